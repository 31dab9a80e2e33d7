"""Indices without the velocity dispersion of the stars, and what is not known without it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from pipeline.card_measure import Measure
from pipeline.index import Flag, measure
from pipeline.index_dispersion import LARGEST_KMS, WIDTHS_KMS
from pipeline.index_rules import Rules
from pipeline.lines.templates import analytic as used
from storage.simulation import template_files
from storage.simulation.templates import REST, analytic
from storage.velocity import C_KMS

PIXEL = REST.step * np.log(10) * C_KMS
"km/s."
INSTRUMENT = 80.0
NAMES = ("Mgb", "Fe5270", "Fe5335", "Hbeta", "HdeltaF", "Mg2", "Dn4000", "Fe_mean")
CORRECT: dict[str, Any] = {"dispersion": "correct"}


def rules(*names: str, **asked: Any) -> Rules:
    return Rules.of(Measure(indices=names or NAMES, **CORRECT, **asked))


def unseen() -> np.ndarray:
    """Populations that the templates do not hold, (T, L), infinitely sharp."""
    known = used().flux
    return np.stack([one for one in analytic().flux if not (one == known).all(1).any()]) * 1.0


def broadened(flux: np.ndarray, sigma: float, instrument: float = INSTRUMENT) -> np.ndarray:
    """In pixels, where the table is made of transforms."""
    return np.asarray(
        gaussian_filter1d(flux, np.hypot(sigma, instrument) / PIXEL, axis=1, truncate=8)
    )


def spread(flux: np.ndarray, instrument: float = INSTRUMENT) -> np.ndarray:
    return np.full(flux.shape, instrument / PIXEL)


def corrected(asked: Rules, flux: np.ndarray, sigma: float, ivar: float = 1e14) -> Any:
    weight, vdisp = np.full(flux.shape, ivar), np.full(len(flux), sigma)
    return asked(REST.wavelength, flux, weight, lsf=spread(flux), vdisp=vdisp)


@pytest.mark.parametrize("sigma", [100.0, 200.0, 300.0])
def test_a_broadened_galaxy_has_its_index_back_within_the_error(sigma: float) -> None:
    asked, sharp = rules(), unseen()
    truth = measure(REST.wavelength, broadened(sharp, 0), None, NAMES).value
    found = corrected(asked, broadened(sharp, sigma), sigma)
    assert not found.flag.any()
    away = (found.value - truth).abs()
    # The table is interpolated to a part in 4000.
    assert (away < 2.5 * found.error + 2.5e-4 * truth.abs()).all()
    assert 0.6 < float((away < found.error).double().mean()) < 0.9
    plain = measure(REST.wavelength, broadened(sharp, sigma), None, NAMES).value
    assert ((plain - truth).square().mean(0) > (found.value - truth).square().mean(0)).all()


def test_another_dispersion_does_not_give_the_index_back() -> None:
    names = ("Mgb", "Fe5406")
    asked, sharp = rules(*names), unseen()
    truth = measure(REST.wavelength, broadened(sharp, 0), None, names).value
    strong = truth[:, 0] > 1
    assert strong.any()
    for wrong in (100.0, 280.0):
        found = corrected(asked, broadened(sharp, 200), wrong)
        assert ((found.value - truth)[strong].abs() > 2.5 * found.error[strong]).all()


def test_at_the_resolution_of_lick_the_dispersion_comes_on_top_of_it() -> None:
    names, sharp = ("Mgb", "Hbeta"), unseen()[::4]
    asked = rules(*names, resolution="lick")
    lsf = spread(sharp)
    truth = measure(REST.wavelength, broadened(sharp, 0), None, names, lsf=lsf).value
    found = corrected(asked, broadened(sharp, 250), 250)
    away = (found.value - truth).abs()
    assert (away < 2.5 * found.error + 2.5e-4 * truth.abs()).all()
    plain = measure(REST.wavelength, broadened(sharp, 250), None, names, lsf=lsf).value
    assert ((plain - truth).abs().mean(0) > 4 * away.mean(0)).all()


def test_a_redshift_moves_the_pixels_and_nothing_else() -> None:
    asked, flux = rules(), broadened(unseen()[:3], 200)
    expected = corrected(asked, flux, 200)
    z = np.full(3, 0.1)
    given = {"lsf": spread(flux), "vdisp": np.full(3, 200.0)}
    found = asked(REST.wavelength * 1.1, flux, np.full(flux.shape, 1e14), z=z, **given)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-5)
    np.testing.assert_allclose(found.error, expected.error, atol=1e-6)


def test_errors_hold_the_noise_stretched_and_the_scatter_of_populations() -> None:
    asked, flux = rules(), broadened(unseen(), 200)
    plain = measure(REST.wavelength, flux, np.full(flux.shape, 400.0), NAMES)
    exact, noisy = (corrected(asked, flux, 200, ivar) for ivar in (1e14, 400.0))
    np.testing.assert_array_equal(noisy.value, exact.value)
    ways = asked.recipe["dispersion"]["ways"]
    factor = np.array([ways[name] == "factor" for name in NAMES])
    stretched = np.where(factor, (exact.value / plain.value).numpy(), 1.0)
    expected = np.hypot(stretched * plain.error.numpy(), exact.error.numpy())
    np.testing.assert_allclose(noisy.error, expected, rtol=1e-5)


def test_templates_tell_which_indices_have_a_factor() -> None:
    names = (*NAMES, "HdeltaA", "CN2", "B4000", "TiO1")
    found = rules(*names).recipe["dispersion"]
    assert found["templates"] == ["computed"]
    assert found["ways"] == {
        **dict.fromkeys(("Mgb", "Fe5270", "Fe5335", "Hbeta", "Fe_mean"), "factor"),
        # They cross zero.
        **dict.fromkeys(("HdeltaF", "HdeltaA"), "difference"),
        **dict.fromkeys(("Mg2", "CN2", "TiO1", "Dn4000", "B4000"), "difference"),
    }


@pytest.mark.parametrize("vdisp", [np.nan, 0.0, -20.0, LARGEST_KMS + 1, np.inf])
@pytest.mark.parametrize("resolution", ["native", "lick"])
def test_without_a_dispersion_there_is_no_index(vdisp: float, resolution: str) -> None:
    asked, flux = rules("Mgb", resolution=resolution), broadened(unseen()[:2], 150)
    given = {"lsf": spread(flux), "vdisp": np.array([vdisp, 150.0])}
    found = asked(REST.wavelength, flux, np.ones_like(flux), **given)
    assert found.flag.tolist() == [[Flag.DISPERSION], [0]]
    assert found.value.isnan().tolist() == [[True], [False]]
    assert found.error.isnan().tolist() == [[True], [False]]
    alone = asked(
        REST.wavelength,
        flux[1:],
        np.ones_like(flux[1:]),
        lsf=spread(flux[1:]),
        vdisp=np.array([150.0]),
    )
    assert alone.value.numpy().tobytes() == found.value[1:].numpy().tobytes()
    assert alone.error.numpy().tobytes() == found.error[1:].numpy().tobytes()


def test_what_is_not_given_is_not_known() -> None:
    asked, flux = rules("Mgb", "Dn4000"), broadened(unseen()[:1], 150)
    for given in (
        {"lsf": spread(flux)},
        {"vdisp": np.array([150.0])},
        {"lsf": 0 * flux, "vdisp": np.array([150.0])},
        {"lsf": spread(flux, WIDTHS_KMS[-1]), "vdisp": np.array([150.0])},
    ):
        found = asked(REST.wavelength, flux, None, **given)
        assert (found.flag & int(Flag.DISPERSION)).all()
        assert found.value.isnan().all()


def test_gaps_in_the_line_spread_do_not_matter() -> None:
    asked, flux = rules("Mgb"), broadened(unseen()[:1], 150)
    lsf = spread(flux)
    lsf[0, ::3] = 0
    found = asked(REST.wavelength, flux, None, lsf=lsf, vdisp=np.array([150.0]))
    expected = corrected(asked, flux, 150)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)


def test_unless_asked_for_nothing_is_another() -> None:
    plain, kept = (
        Rules.of(Measure(indices=NAMES)),
        Rules.of(Measure(indices=NAMES, dispersion="keep")),
    )
    assert plain == kept
    assert plain.recipe == {"indices": list(NAMES)}
    assert not plain.wants_spread
    flux = unseen()[:4].astype("f4")
    ivar = np.ones_like(flux)
    expected = measure(REST.wavelength, flux, ivar, NAMES)
    given = {"lsf": spread(flux), "vdisp": np.full(4, 200.0)}
    for found in (kept(REST.wavelength, flux, ivar, **given), plain(REST.wavelength, flux, ivar)):
        for one, other in zip(found, expected, strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes()
    assert rules().as_seen == plain


def test_a_table_of_errors_is_of_indices_before_they_are_corrected() -> None:
    assert rules().keys == Rules.of(Measure(indices=NAMES)).keys
    assert rules(missing=0.2).keys == Rules.of(Measure(indices=NAMES, missing=0.2)).keys


def held_back(folder: Path) -> tuple[Rules, np.ndarray, np.ndarray]:
    """Rules by MIUSCAT, and populations of it that they do not use, with their ages in Gyr."""
    files = str(folder / "ssp_miuscat" / "*.fits")
    asked = rules(
        "Mgb", "Fe5270", "Fe5335", "HdeltaA", "HgammaF", templates=files, template_fwhm=2.51
    )
    assert asked.dispersion is not None
    library, known = template_files.library(files, "air"), asked.dispersion.basis.flux
    ages = np.repeat(library.ages, len(library.metallicities))
    mine = [not (one == known).all(1).any() for one in library.flux]
    return asked, library.flux[mine].astype(float), ages[mine]


def test_real_libraries_correct_their_own_populations(survey_data: Path) -> None:
    asked, flux, age = held_back(survey_data)
    own = 2.51 / 2.3548 / 5200 * C_KMS
    truth = measure(REST.wavelength, broadened(flux, 0, 20), None, asked.indices).value
    seen = broadened(flux, 200, 20)
    lsf = spread(flux, float(np.hypot(own, 20)))
    vdisp = np.full(len(flux), 200.0)
    found = asked(REST.wavelength, seen, np.full(seen.shape, 1e14), lsf=lsf, vdisp=vdisp)
    pull = ((found.value - truth) / found.error).numpy()
    assert np.sqrt((pull**2).mean()) == pytest.approx(1, abs=0.3)
    # As Kuntschner (2004) found: of old populations metals have one factor for all, and Balmer
    # lines differ by as much as they are corrected.
    plain = measure(REST.wavelength, seen, None, asked.indices).value
    old = age > 3
    factor, change = (truth / plain)[old].numpy(), (truth - plain)[old].numpy()
    assert (factor[:, :3].std(0) < 0.1 * (factor[:, :3].mean(0) - 1)).all()
    assert (np.abs(change[:, 3:]).mean(0) < 4 * change[:, 3:].std(0)).all()
