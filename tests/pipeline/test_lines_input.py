"""Emission lines of spectra that lack something, or come in another form."""

import numpy as np
import pytest
import torch

from pipeline.lines.fit import LineFlag, Lines, measure_lines
from pipeline.lines.line_list import LINES, number
from pipeline.lines.templates import from_files
from storage.grid import vacuum_to_air
from tests.pipeline.starlit import LSF, SDSS, Starlit, has, starlit

HALPHA, OIII = number("Halpha"), number("OIII5007")


@pytest.fixture(scope="module")
def few() -> Starlit:
    return starlit(24, 8.0, 15.0)


def near(scene: Starlit, line: int, reach: float) -> np.ndarray:
    """Pixels (N, L) within so many A of a line."""
    centre = LINES[line].wavelength * (1 + scene.z)
    return np.abs(scene.grid.wavelength - centre[:, None]) < reach


def same(one: Lines, other: Lines, share: float) -> None:
    """Fluxes, widths and velocities agree to a share of their errors."""
    for name in ("flux", "sigma", "velocity", "ew"):
        error = getattr(one, f"{name}_err")
        off = (getattr(one, name) - getattr(other, name)).abs() / error
        assert float(off.nan_to_num().max()) < share, name
    assert torch.equal(one.flag, other.flag)


def test_a_line_without_pixels_is_nan_and_says_so(few: Starlit) -> None:
    found = few.measured(ivar=np.where(near(few, HALPHA, 14), 0, few.ivar).astype(np.float32))
    assert has(found, LineFlag.FEW_PIXELS)[:, HALPHA].all()
    assert found.flux[:, HALPHA].isnan().all()
    assert found.ew[:, HALPHA].isnan().all()
    assert not found.flux[:, number("Hbeta")].isnan().any()


def test_a_line_that_lacks_some_pixels_is_measured_and_flagged(few: Starlit) -> None:
    found = few.measured(ivar=np.where(near(few, HALPHA, 1.2), 0, few.ivar).astype(np.float32))
    assert has(found, LineFlag.MASKED)[:, HALPHA].all()
    assert not has(found, LineFlag.FEW_PIXELS)[:, HALPHA].any()
    pull = (found.flux.numpy() - few.lines)[:, HALPHA] / found.flux_err.numpy()[:, HALPHA]
    assert abs(pull.mean()) < 0.7


def test_a_masked_line_of_a_doublet_is_known_from_the_other(few: Starlit) -> None:
    found = few.measured(ivar=np.where(near(few, OIII, 14), 0, few.ivar).astype(np.float32))
    assert has(found, LineFlag.MASKED)[:, OIII].all()
    pull = (found.flux.numpy() - few.lines)[:, OIII] / found.flux_err.numpy()[:, OIII]
    assert abs(pull.mean()) < 0.7
    whole = few.measured()
    assert (found.flux_err[:, OIII] > 1.5 * whole.flux_err[:, OIII]).all()


def test_a_line_off_the_axis_is_nan_and_says_so() -> None:
    far = starlit(8, 8.0, 15.0, z=(0.48, 0.5))
    found = far.measured()
    assert has(found, LineFlag.OUTSIDE)[:, HALPHA].all()
    assert found.flux[:, HALPHA].isnan().all()
    assert found.continuum[:, HALPHA].isnan().all()
    assert not has(found, LineFlag.OUTSIDE)[:, OIII].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_no_data(few: Starlit, value: float) -> None:
    hole = near(few, number("Hbeta"), 3.0)
    broken = np.where(hole, value, few.flux).astype(np.float32)
    masked = few.measured(ivar=np.where(hole, 0, few.ivar).astype(np.float32))
    same(few.measured(flux=broken), masked, 0.05)


def test_a_spectrum_without_data_has_no_lines_and_no_stars(few: Starlit) -> None:
    ivar = few.ivar.copy()
    ivar[3] = 0
    found = few.measured(ivar=ivar, return_model=True)
    assert has(found, LineFlag.FEW_PIXELS)[3].all()
    assert found.flux[3].isnan().all()
    assert found.flux_err[3].isnan().all()
    assert found.chi2[3].isnan()
    assert found.vdisp[3].isnan()
    assert found.emission is not None
    assert (found.emission[3] == 0).all()


@pytest.mark.parametrize("z", [np.nan, -1.5, np.inf])
def test_without_a_redshift_every_line_is_outside(few: Starlit, z: float) -> None:
    redshift = few.z.copy()
    redshift[0] = z
    found = measure_lines(SDSS.wavelength, few.flux, few.ivar, redshift)
    assert has(found, LineFlag.OUTSIDE)[0].all()
    assert found.flux[0].isnan().all()
    assert not found.flux[1].isnan().any()


def test_no_starlight_leaves_fluxes_and_takes_equivalent_widths(few: Starlit) -> None:
    found = few.measured(flux=(few.flux - few.stars - 0.5).astype(np.float32))
    dark = has(found, LineFlag.NO_CONTINUUM)
    assert dark[:, HALPHA].all()
    assert found.ew[dark].isnan().all()
    assert not found.flux[:, HALPHA].isnan().any()


def test_who_else_is_there_changes_nothing(few: Starlit) -> None:
    whole, part = few.measured(), slice(5, 8)
    some = measure_lines(
        SDSS.wavelength, few.flux[part], few.ivar[part], few.z[part], lsf=np.full(SDSS.size, LSF)
    )
    same(Lines._make(None if c is None else c[part] for c in whole), some, 0.1)


def test_no_spectra_are_no_lines() -> None:
    none = np.zeros((0, SDSS.size), np.float32)
    found = measure_lines(SDSS.wavelength, none, none, np.zeros(0))
    assert found.flux.shape == (0, len(LINES))


def test_precision_byte_order_and_library_of_arrays_change_nothing(few: Starlit) -> None:
    plain = few.measured()
    same(few.measured(flux=few.flux.astype(">f4"), ivar=few.ivar.astype("f8")), plain, 0.05)
    same(
        few.measured(flux=torch.from_numpy(few.flux), ivar=torch.from_numpy(few.ivar)), plain, 0.02
    )


def test_the_unit_of_flux_is_that_of_the_lines(few: Starlit) -> None:
    unit = 1e-17
    tiny = few.measured(flux=few.flux.astype("f8") * unit, ivar=few.ivar.astype("f8") / unit**2)
    plain = few.measured()
    off = (tiny.flux / unit - plain.flux).abs() / plain.flux_err
    assert float(off.nan_to_num().max()) < 0.1
    torch.testing.assert_close(tiny.ew, plain.ew, rtol=0.02, atol=0.02, equal_nan=True)


def test_an_axis_in_air_gives_the_same_lines(few: Starlit) -> None:
    air = measure_lines(
        vacuum_to_air(SDSS.wavelength), few.flux, few.ivar, few.z,
        lsf=np.full(SDSS.size, LSF), medium="air",
    )  # fmt: skip
    same(few.measured(), air, 0.3)
    # Taken for vacuum they are 80 km/s off.
    wrong = measure_lines(
        vacuum_to_air(SDSS.wavelength), few.flux, few.ivar, few.z, lsf=np.full(SDSS.size, LSF)
    )
    off = (wrong.velocity - air.velocity)[:, OIII]
    assert float(off.median()) == pytest.approx(-83, abs=3)


def test_shapes_that_do_not_fit_are_refused(few: Starlit) -> None:
    wavelength = SDSS.wavelength
    with pytest.raises(ValueError, match=r"flux: shape \(24, 3849\), expected \(N, 3850\)"):
        measure_lines(wavelength, few.flux[:, 1:], few.ivar, few.z)
    with pytest.raises(ValueError, match=r"ivar: shape \(23, 3850\), expected \(24, 3850\)"):
        measure_lines(wavelength, few.flux, few.ivar[1:], few.z)
    with pytest.raises(ValueError, match=r"z: shape \(23,\), expected \(24,\)"):
        measure_lines(wavelength, few.flux, few.ivar, few.z[1:])
    with pytest.raises(ValueError, match=r"lsf: shape \(24,\), expected \(24, 3850\) or \(3850,\)"):
        measure_lines(wavelength, few.flux, few.ivar, few.z, lsf=few.z)
    with pytest.raises(ValueError, match=r"even neither in A nor in log10\(A\)"):
        measure_lines(wavelength + (np.arange(SDSS.size) > 99), few.flux, few.ivar, few.z)


def test_a_library_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"no such file"):
        from_files("nowhere/*.fits", "air")
