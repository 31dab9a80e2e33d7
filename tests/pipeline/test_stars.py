"""Velocities of stars: injected ones come back, errors are the scatter, bad input says so."""

import numpy as np
import pytest
import torch

from pipeline.stars.fit import Stars, measure_stars, start_values
from pipeline.stars.flag import Flag
from pipeline.stars.templates import Templates, templates
from storage.grid import Float
from tests.pipeline.star_scene import CHOSEN, GRID, noisy, seen


@pytest.fixture(scope="module")
def stars() -> Templates:
    return templates(CHOSEN)


def fitted(flux: Float, ivar: Float, stars: Templates) -> Stars:
    return measure_stars(GRID.wavelength, flux, ivar, templates=stars)


def test_an_injected_velocity_comes_back(stars: Templates) -> None:
    # Every part of a pixel of 69 km/s, up to the end of the range.
    injected = np.linspace(-900, 930, 53)
    flux = seen(injected)
    ivar = np.full(flux.shape, 1e4)
    start = start_values(GRID.wavelength, flux, ivar, templates=stars)
    assert start.velocity.numpy() == pytest.approx(injected, abs=2.0)
    found = fitted(flux, ivar, stars)
    assert found.velocity.numpy() == pytest.approx(injected, abs=0.3)
    assert (found.flag == 0).all()


def test_the_error_is_the_scatter(stars: Templates) -> None:
    flux, ivar = noisy(np.repeat(seen(123.0), 250, axis=0), snr=25)
    start = start_values(GRID.wavelength, flux, ivar, templates=stars)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=start)
    # The scatter of 250 has an error of 4.5 %; templates at nodes are not quite the star's.
    for velocity, error, bias in (
        (found.velocity, found.velocity_err, 0.8),
        (start.velocity, start.velocity_err, 1.5),
    ):
        assert ((velocity - 123.0) / error).std().item() == pytest.approx(1, abs=0.13)
        assert velocity.mean().item() == pytest.approx(123.0, abs=bias)


def test_errors_of_parameters_are_their_scatter(stars: Templates) -> None:
    flux, ivar = noisy(np.repeat(seen(123.0), 200, axis=0), snr=150)
    found = fitted(flux, ivar, stars)
    assert (found.flag == 0).all()
    for value, error in (
        (found.teff, found.teff_err),
        (found.logg, found.logg_err),
        (found.feh, found.feh_err),
    ):
        assert (value.std() / error.median()).item() == pytest.approx(1, abs=0.16)


def test_chi2_is_that_of_the_noise(stars: Templates) -> None:
    found = fitted(*noisy(np.repeat(seen(-50.0), 150, axis=0), snr=10), stars)
    # Three parameters, a velocity and a cubic are fitted.
    expected = found.pixels[0].item() - 8
    assert found.chi2.mean().item() == pytest.approx(expected, rel=0.025)


def test_masked_pixels_do_not_count(stars: Templates) -> None:
    flux, ivar = noisy(seen([10.0, -300.0]), snr=30)
    ivar[:, 20:45] = 0
    expected = fitted(flux, ivar, stars)
    for garbage in (1e6, np.nan, -np.inf):
        spoilt = flux.copy()
        spoilt[:, 20:45] = garbage
        assert fitted(spoilt, ivar, stars).velocity.tolist() == expected.velocity.tolist()
    low, high = CHOSEN.wavelength
    band = (GRID.wavelength > low) & (GRID.wavelength < high)
    assert expected.pixels.tolist() == [int((ivar[0, band] > 0).sum())] * 2


def test_a_pixel_that_is_not_finite_is_masked(stars: Templates) -> None:
    flux, ivar = noisy(seen(10.0), snr=30)
    masked = ivar.copy()
    masked[:, 100] = 0
    flux[:, 100] = np.nan
    actual = fitted(flux, ivar, stars)
    assert actual.velocity.item() == fitted(flux, masked, stars).velocity.item()


def test_brightness_and_a_smooth_curve_do_not_matter(stars: Templates) -> None:
    flux, ivar = noisy(seen([40.0]), snr=50)
    x = np.log(GRID.wavelength / 8600.0) * 20
    curve = 1e-17 * (1 + 0.3 * x - 0.2 * x**2 + 0.1 * x**3)
    expected, actual = fitted(flux, ivar, stars), fitted(flux * curve, ivar / curve**2, stars)
    assert actual.velocity.item() == pytest.approx(expected.velocity.item(), abs=0.02)
    assert actual.feh.item() == pytest.approx(expected.feh.item(), abs=0.02)


def test_pixels_even_in_wavelength_give_the_same(stars: Templates) -> None:
    linear = np.arange(8370.0, 8850.0, 0.427)
    flux = seen([-431.7], wavelength=linear)
    found = measure_stars(linear, flux, np.full(flux.shape, 1e4), templates=stars)
    assert found.velocity.item() == pytest.approx(-431.7, abs=0.3)
    assert found.teff.item() == pytest.approx(4430.0, abs=10)


def test_a_star_is_measured_alike_in_any_company(stars: Templates) -> None:
    flux, ivar = noisy(seen(np.linspace(-500, 500, 140)), snr=8)
    together = fitted(flux, ivar, stars)
    for row in (0, 77, 139):
        alone = fitted(flux[[row]], ivar[[row]], stars)
        assert alone.velocity.item() == pytest.approx(together.velocity[row].item(), abs=1e-6)
        assert alone.iterations.item() == together.iterations[row].item()
        assert alone.flag.item() == together.flag[row].item()


def test_tensors_and_arrays_give_the_same(stars: Templates) -> None:
    flux, ivar = (a.astype(">f4") for a in noisy(seen([40.0]), snr=50))
    native = [torch.from_numpy(a.astype("=f4")) for a in (flux, ivar)]
    expected = measure_stars(GRID.wavelength, *native, templates=stars)
    assert fitted(flux, ivar, stars).velocity.item() == expected.velocity.item()


def test_no_stars_are_no_stars(stars: Templates) -> None:
    none = np.empty((0, GRID.size))
    assert fitted(none, none, stars).velocity.shape == (0,)


def test_a_velocity_beyond_the_range_is_not_a_number(stars: Templates) -> None:
    flux = seen([700.0, 100.0])
    ivar = np.full(flux.shape, 1e4)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, range_kms=400.0)
    assert found.flag[0] & Flag.VELOCITY_EDGE
    assert found.velocity.isnan().tolist() == [True, False]
    start = start_values(GRID.wavelength, flux, ivar, templates=stars, range_kms=400.0)
    assert start.velocity.isnan().tolist() == [True, False]
    moved = measure_stars(
        GRID.wavelength, flux, ivar, templates=stars, range_kms=400.0, z0=[2e-3, 0.0]
    )
    assert moved.velocity.numpy() == pytest.approx([700.0, 100.0], abs=0.3)


def test_too_few_pixels_are_not_a_star(stars: Templates) -> None:
    flux, ivar = noisy(seen([0.0, 0.0, 0.0]), snr=30)
    ivar[1] = 0
    ivar[2, 40:] = 0
    found = fitted(flux, ivar, stars)
    assert (found.flag & Flag.TOO_FEW > 0).tolist() == [False, True, True]
    assert found.velocity.isnan().tolist() == [False, True, True]
    assert found.teff.isnan().tolist() == [False, True, True]


def test_outside_the_band_there_is_no_star(stars: Templates) -> None:
    flux, ivar = noisy(seen([0.0]), snr=30)
    found = measure_stars(GRID.wavelength - 2000, flux, ivar, templates=stars)
    assert found.flag.item() & Flag.TOO_FEW
    assert found.velocity.isnan().all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_spectrum_without_a_line_has_no_velocity(level: float, stars: Templates) -> None:
    flux = np.full((1, GRID.size), level)
    found = fitted(flux, np.full(flux.shape, 1e-4), stars)
    # Flat in every template's eyes: nothing chooses among velocities.
    assert found.flag.item() & (Flag.AMBIGUOUS | Flag.NOT_CONVERGED)


def test_two_stars_in_one_are_ambiguous(stars: Templates) -> None:
    both = 0.5 * (seen([-300.0]) + seen([300.0]))
    start = start_values(GRID.wavelength, both, np.full(both.shape, 400.0), templates=stars)
    assert start.flag.item() & Flag.AMBIGUOUS
    single = seen([-300.0])
    start = start_values(GRID.wavelength, single, np.full(both.shape, 400.0), templates=stars)
    assert start.flag.item() == 0


def test_shapes_must_fit(stars: Templates) -> None:
    flux = np.ones((2, GRID.size))
    with pytest.raises(ValueError, match=r"flux \(2, 250\), ivar \(2, 249\) and wavelength"):
        fitted(flux, flux[:, :-1], stars)
    with pytest.raises(ValueError, match=r"expected an ascending axis"):
        measure_stars(GRID.wavelength[::-1], flux, flux, templates=stars)
    with pytest.raises(ValueError, match=r"z0: shape \(3,\), expected \(2,\)"):
        measure_stars(GRID.wavelength, flux, flux, templates=stars, z0=np.zeros(3))
