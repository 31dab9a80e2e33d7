"""Emission lines of spectra that lack something, or come in another form."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from pipeline.lines.fit import LineFlag, Lines, measure_lines
from pipeline.lines.line_list import LINES, number
from pipeline.lines.templates import from_files
from storage.grid import vacuum_to_air
from storage.velocity import C_KMS
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


def test_whatever_the_spectrum_a_missing_number_is_flagged(few: Starlit) -> None:
    flux, ivar = few.flux.copy(), few.ivar.copy()
    flux[0], flux[1], flux[2], flux[3, 1000] = 0, 1, -flux[2], 1e8
    flux[4], ivar[4] = flux[4] * 1e12, ivar[4] * 1e-24
    ivar[5] *= 10.0 ** np.random.default_rng(0).uniform(-12, 6, SDSS.size)
    ivar[6], ivar[6, 1500] = 0, 1
    ivar[7], ivar[7, 1500:1530] = 0, 225
    ivar[8], ivar[9], ivar[10] = 1e-30, 1e30, np.inf
    ivar[11], ivar[11, ::7] = 0, 225
    flux[12] *= 1e-30
    found = few.measured(flux=flux, ivar=ivar, return_model=True)
    lost = has(found, LineFlag.OUTSIDE | LineFlag.FEW_PIXELS)
    dark = has(found, LineFlag.NO_CONTINUUM)
    for name in ("flux", "flux_err", "sigma", "velocity", "continuum"):
        assert torch.equal(getattr(found, name).isnan(), lost), name
    for name in ("ew", "ew_err"):
        assert torch.equal(getattr(found, name).isnan(), lost | dark), name
    assert (found.flux_err[~lost] > 0).all()
    for part in (found.emission, found.stars):
        assert part is not None
        assert part.isfinite().all()


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


def test_a_line_spread_that_is_lost_at_the_middle_of_a_line_is_that_beside_it(few: Starlit) -> None:
    """Surveys give none where there is no data."""
    hole = near(few, OIII, 1.2)
    ivar = np.where(hole, 0, few.ivar).astype(np.float32)
    whole = np.full(few.flux.shape, LSF)
    for nothing in (0.0, np.nan):
        lost = few.measured(ivar=ivar, lsf=np.where(hole, nothing, whole))
        same(lost, few.measured(ivar=ivar, lsf=whole), 1e-3)
        assert not has(lost, LineFlag.AS_OBSERVED).any()


def test_where_no_line_spread_is_known_widths_are_as_observed_and_say_so(few: Starlit) -> None:
    found = few.measured(lsf=np.where(near(few, OIII, 30), 0, LSF))
    plain = few.measured(lsf=None)
    assert has(found, LineFlag.AS_OBSERVED).all(dim=0).nonzero()[:, 0].tolist() == [OIII]
    assert has(plain, LineFlag.AS_OBSERVED).all()
    assert not has(few.measured(), LineFlag.AS_OBSERVED).any()


def test_the_dispersion_of_stars_is_free_of_the_instrument_where_that_is_known(
    few: Starlit,
) -> None:
    """Beyond the fitted range, and where there is no data, its width does not count."""
    plain = few.measured()
    beyond = (few.grid.wavelength / (1 + few.z[:, None]) > 7200) | near(few, HALPHA, 40)
    ivar = np.where(near(few, HALPHA, 40), 0, few.ivar).astype(np.float32)
    lsf = np.where(beyond, 0, LSF)
    expected = few.measured(ivar=ivar).vdisp
    actual = few.measured(ivar=ivar, lsf=lsf).vdisp
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0, equal_nan=True)
    unknown, there = few.measured(lsf=None).vdisp, plain.vdisp > 0
    within = (unknown.square() - plain.vdisp.square()).sqrt()[there]
    instrument = LSF * SDSS.step * np.log(10) * C_KMS
    torch.testing.assert_close(within, torch.full_like(within, instrument), rtol=1e-3, atol=0)


def test_a_dispersion_beyond_those_that_are_tried_is_nan(few: Starlit) -> None:
    """Stars as smooth as if they moved at 1000 km/s."""
    smooth = gaussian_filter1d(few.stars, 1000 / (SDSS.step * np.log(10) * C_KMS), axis=1)
    noise = np.random.default_rng(1).standard_normal(smooth.shape) / 100
    ivar = np.full_like(few.ivar, 1e4)
    found = few.measured(flux=(smooth + noise).astype(np.float32), ivar=ivar)
    assert found.vdisp.isnan().all()
    assert not found.chi2.isnan().any()


def test_a_dispersion_that_cannot_be_is_refused(few: Starlit) -> None:
    for value in (np.nan, -1.0, np.inf):
        vdisp = np.full(len(few.z), 100.0)
        vdisp[2] = value
        with pytest.raises(ValueError, match=r"vdisp: expected 0 km/s or above"):
            few.measured(vdisp=vdisp)


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
