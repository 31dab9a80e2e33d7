"""Emission lines: what was put in comes out, with errors that are right."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as one_nnls

from benchmarks import spzline
from pipeline.lines import ppxf_fit
from pipeline.lines.fit import LineFlag, Lines, measure_lines
from pipeline.lines.line_list import LINES, names, number
from pipeline.lines.nnls import nnls
from storage.grid import Grid
from storage.simulation import nebula
from tests.pipeline.starlit import LSF, SDSS, Starlit, has, starlit

FREE = [k for k, line in enumerate(LINES) if line.tie is None]
BALMER = [k for k, line in enumerate(LINES) if line.kind == "balmer"]


@pytest.fixture(scope="module")
def bright() -> Starlit:
    return starlit(160, 8.0, 15.0)


def spread(pull: np.ndarray) -> float:
    return float(np.diff(np.percentile(pull, (15.87, 84.13)))[0] / 2)


def test_lines_are_where_others_have_them() -> None:
    for name, wavelength in nebula.LINES.items():
        mine = [k for k in names() if k.lower() == name]
        assert not mine or abs(LINES[number(mine[0])].wavelength - wavelength) < 0.01
    assert [line.wavelength for line in LINES] == sorted(line.wavelength for line in LINES)


def test_an_unknown_line_is_named() -> None:
    with pytest.raises(ValueError, match=r"no emission line 'Hzeta'; there are OII3726, OII3729"):
        number("Hzeta")


def test_ties_are_to_lines_that_are_free() -> None:
    tied = {line.name: line.tie[0] for line in LINES if line.tie}
    assert tied["OIII4959"] == "OIII5007"
    assert tied["NII6548"] == "NII6584"
    assert all(LINES[number(other)].tie is None for other in tied.values())


@pytest.fixture(scope="module")
def found(bright: Starlit) -> Lines:
    return bright.measured(return_model=True)


def test_fluxes_are_unbiased_and_their_errors_are_those_of_noise(
    bright: Starlit, found: Lines
) -> None:
    pull = ((found.flux.numpy() - bright.lines) / found.flux_err.numpy())[:, FREE]
    assert not has(found, LineFlag.NOT_CONVERGED).any()
    assert np.abs(pull.mean(axis=0)).max() < 0.4
    assert abs(pull.mean()) < 0.1
    assert spread(pull) == pytest.approx(1.0, abs=0.1)
    assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.05)


def test_equivalent_widths_are_at_rest_and_of_the_starlight_under_the_line(
    bright: Starlit, found: Lines
) -> None:
    pull = ((found.ew.numpy() - bright.ew) / found.ew_err.numpy())[:, FREE]
    assert np.abs(pull.mean(axis=0)).max() < 0.6
    assert np.mean(np.abs(pull) < 1) == pytest.approx(0.683, abs=0.07)


def test_velocity_and_width_are_those_of_the_gas(bright: Starlit, found: Lines) -> None:
    for name in ("Halpha", "OIII5007"):
        line = number(name)
        for value, error, truth in (
            (found.velocity, found.velocity_err, bright.velocity),
            (found.sigma, found.sigma_err, bright.sigma),
        ):
            pull = ((value - truth) / error)[:, line].numpy()
            assert abs(pull.mean()) < 0.35
            assert spread(pull) == pytest.approx(1.0, abs=0.2)


def test_without_a_line_spread_widths_are_as_observed(bright: Starlit) -> None:
    seen = bright.measured(lsf=None).sigma[:, number("OIII5007")].median()
    pixel_kms = np.log(10) * 1e-4 * 299792.458
    assert float(seen) == pytest.approx(np.hypot(bright.sigma, 1.1 * pixel_kms), rel=0.03)


def test_absorption_alone_is_no_emission() -> None:
    """Populations of 0.3 and 1 Gyr, whose Balmer lines absorb up to 9 A."""
    dark = starlit(96, 0.0, 20.0, ages=slice(4, 6))
    found = dark.measured()
    assert np.abs((found.flux / found.flux_err).numpy()[:, BALMER].mean(axis=0)).max() < 0.7
    assert abs(float(found.ew[:, number("Hbeta")].mean())) < 0.15
    plain = ~has(found, LineFlag.NOT_DETECTED)
    assert float(plain.double().mean()) < 0.02


def test_a_limit_is_three_errors_where_nothing_is_detected() -> None:
    found = starlit(64, 0.0, 20.0).measured()
    missed = has(found, LineFlag.NOT_DETECTED)
    assert missed.double().mean() > 0.98
    torch.testing.assert_close(found.limit[missed], 3 * found.flux_err[missed])
    assert found.limit[~missed].isnan().all()


def test_where_no_line_stands_out_kinematics_are_given_and_flagged() -> None:
    found = starlit(64, 0.0, 20.0).measured()
    fixed = has(found, LineFlag.FIXED)
    assert fixed.double().mean() > 0.95
    both = fixed.all(dim=1)
    assert (found.sigma[both] == 100).all()
    assert (found.velocity[both] == 0).all()
    assert found.sigma_err[both].isnan().all()


def test_balmer_lines_without_forbidden_ones_lend_them_their_kinematics(bright: Starlit) -> None:
    spectrum = bright.stars.copy()
    gas = np.zeros_like(bright.flux)
    for line in BALMER:
        centre = LINES[line].wavelength * (1 + bright.z) * (1 + 100 / 299792.458)
        nebula.add_lines(gas, SDSS, centre, centre * 150 / 299792.458, bright.lines[:, line])
    noise = np.random.default_rng(3).standard_normal(spectrum.shape) / 15
    found = bright.measured(flux=(spectrum + gas + noise).astype(np.float32))
    sii = number("SII6716")
    lent = has(found, LineFlag.FIXED)[:, sii]
    assert lent.double().mean() > 0.9
    assert float(found.velocity[lent, sii].median()) == pytest.approx(100, abs=5)
    pull = (found.flux / found.flux_err)[:, sii]
    assert abs(float(pull.mean())) < 0.4


def test_tied_lines_have_the_ratio_of_atomic_physics(found: Lines) -> None:
    ratio = found.flux[:, number("OIII4959")] / found.flux[:, number("OIII5007")]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 / 2.98))
    tied = has(found, LineFlag.TIED)
    assert [n for n, t in zip(names(), tied[0].tolist(), strict=True) if t] == [
        "NeIII3968", "OIII4959", "OI6364", "NII6548",
    ]  # fmt: skip


def test_lines_of_a_linear_axis_are_measured_alike() -> None:
    desi = Grid(kind="linear", start=3600, step=0.8, size=7780)
    wide = starlit(64, 8.0, 12.0, grid=desi)
    found = wide.measured()
    pull = ((found.flux.numpy() - wide.lines) / found.flux_err.numpy())[:, FREE]
    assert abs(pull.mean()) < 0.1
    assert spread(pull) == pytest.approx(1.0, abs=0.1)
    assert abs(float(found.velocity[:, number("OIII5007")].median()) - wide.velocity) < 3
    assert abs(float(found.sigma[:, number("OIII5007")].median()) - wide.sigma) < 5


def test_the_models_add_up_to_the_spectrum(bright: Starlit, found: Lines) -> None:
    assert found.emission is not None
    assert found.stars is not None
    total = (found.emission.double() @ torch.from_numpy(SDSS.widths)).numpy()
    assert total == pytest.approx(found.flux.nansum(dim=1).numpy(), rel=0.02)
    inside = found.stars > 0
    residual = ((torch.from_numpy(bright.flux) - found.emission - found.stars) * 15.0)[inside]
    assert float(residual.std()) == pytest.approx(1.0, abs=0.05)
    assert found.chi2.mean() == pytest.approx(1.0, abs=0.05)


def test_the_dispersion_of_stars_is_found_or_taken_as_given(bright: Starlit, found: Lines) -> None:
    # 150 km/s with an instrument of 1.1 pixels of 69 km/s in it.
    assert float(found.vdisp.nanmedian()) == pytest.approx(np.sqrt(150**2 - 76**2), rel=0.15)
    given = bright.measured(vdisp=np.full(len(bright.z), 130.0))
    assert (given.vdisp == 130).all()


def test_ppxf_says_how_to_be_had(bright: Starlit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ppxf.ppxf", None)
    monkeypatch.setitem(sys.modules, "ppxf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pPXF is not installed.*pip install ppxf"):
        ppxf_fit.measure_lines(SDSS.wavelength, bright.flux, bright.ivar, bright.z)


def test_a_ppxf_that_lacks_something_itself_says_what(
    bright: Starlit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ppxf").mkdir()
    (tmp_path / "ppxf" / "__init__.py").touch()
    (tmp_path / "ppxf" / "ppxf.py").write_text("import capfitting")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("ppxf", "ppxf.ppxf"):
        # Set first: what is there afterwards is taken away again.
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'capfitting'"):
        ppxf_fit.measure_lines(SDSS.wavelength, bright.flux, bright.ivar, bright.z)


def test_ppxf_is_not_asked_of_spectra_without_data_or_redshift(
    bright: Starlit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ppxf.ppxf", SimpleNamespace(ppxf=None))
    ivar, z = np.zeros_like(bright.ivar[:3]), np.array([0.1, np.nan, 0.5])
    found = ppxf_fit.measure_lines(SDSS.wavelength, bright.flux[:3], ivar, z)
    assert found.flux.isnan().all()
    assert (found.flag[0] == LineFlag.FEW_PIXELS).all()
    assert (found.flag[1] == LineFlag.OUTSIDE).all()
    assert found.flag[2, number("Halpha")] == LineFlag.OUTSIDE


@pytest.mark.slow
def test_ppxf_finds_the_same_lines_where_it_is_installed(bright: Starlit, found: Lines) -> None:
    pytest.importorskip("ppxf.ppxf")
    some = slice(0, 4)
    theirs = ppxf_fit.measure_lines(
        SDSS.wavelength, bright.flux[some], bright.ivar[some], bright.z[some],
        lsf=np.full(SDSS.size, LSF),
    )  # fmt: skip
    for name in ("Halpha", "OIII5007", "SII6716"):
        line = number(name)
        off = (theirs.flux - found.flux[some])[:, line] / found.flux_err[some, line]
        assert float(off.abs().max()) < 2, name
        assert float((theirs.flux_err / found.flux_err[some])[:, line].median()) > 0.75


def test_non_negative_least_squares_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    design, data = rng.normal(size=(50, 40, 12)) + 0.5, rng.normal(size=(50, 40)) + 0.5
    gram, rhs = np.swapaxes(design, 1, 2) @ design, np.einsum("npt,np->nt", design, data)
    actual, free = nnls(torch.from_numpy(gram), torch.from_numpy(rhs))
    expected = np.stack([one_nnls(a, b)[0] for a, b in zip(design, data, strict=True)])
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-10)
    assert ((actual > 0) == free).all()


@pytest.mark.slow
def test_real_galaxies_have_the_lines_that_sdss_found(survey_data: Path) -> None:
    """Forbidden lines: SPZLINE leaves part of the Balmer absorption in, and these do not."""
    paths = spzline.galaxies(survey_data / "sdss")
    spectra, theirs = spzline.read(paths)
    basis = spzline.starlight(str(survey_data / "ssp_miuscat/*.fits"))
    ours = measure_lines(
        spzline.GRID.wavelength, spectra["flux"], spectra["ivar"], spectra["z"],
        lsf=spectra["lsf"], templates=basis,
    )  # fmt: skip
    pull, use = spzline.tables(ours, theirs)
    forbidden = use & np.array([line.kind == "forbidden" for line in LINES])
    assert forbidden.sum() > 60
    assert abs(np.median(pull[forbidden])) < 0.3
    assert np.mean(np.abs(pull[forbidden]) < 2) > 0.9
    strong = (ours.flux / ours.flux_err)[:, number("Hgamma")] > 7
    ratio = (ours.flux[:, number("Hgamma")] / ours.flux[:, number("Hbeta")])[strong]
    # Case B without dust is 0.468, and dust makes it less.
    assert 0.36 < float(ratio.median()) < 0.52
