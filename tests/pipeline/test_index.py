"""Indices against analysis: flat spectra, Gaussians, steps, and Monte Carlo scatter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.index import Flag, Measured, measure, names, units
from storage.grid import Grid, air_to_vacuum, vacuum_to_air

LINEAR = Grid(kind="linear", start=3700.0, step=1.0, size=3800)
FINE = Grid(kind="linear", start=3700.0, step=0.25, size=20800)
LOG = Grid(kind="log", start=3.5500, step=1e-4, size=4700)
THREE = ("Dn4000", "HdeltaF", "Mgb")

Spectrum = Callable[[np.ndarray], np.ndarray]


def one(spectrum: Spectrum, name: str, grid: Grid = FINE, z: float | None = None) -> float:
    """The index of a noiseless rest-frame spectrum; seen at redshift z when given."""
    stretch = 1.0 if z is None else 1.0 + z
    flux = spectrum(grid.wavelength / stretch)[None]
    seen = None if z is None else np.array([z])
    return float(measure(grid.wavelength, flux, np.ones_like(flux), (name,), z=seen).value)


def line(centre_air: float, ew: float, sigma: float = 1.5) -> Spectrum:
    centre = float(air_to_vacuum(centre_air))
    depth = ew / (sigma * np.sqrt(2 * np.pi))
    return lambda wave: 1.0 - depth * np.exp(-0.5 * ((wave - centre) / sigma) ** 2)


def galaxy(wave: np.ndarray) -> np.ndarray:
    """Smooth on the scale of a pixel: slope, a step of 30 A, broad lines."""
    flux = 1.0 + 0.6 / (1 + np.exp(-(wave - 3980.0) / 30.0)) - 1e-4 * (wave - 4000.0)
    for centre, depth in ((4103.0, 0.1), (4350.0, 0.15), (5177.0, 0.2), (5270.0, 0.1)):
        flux = flux - depth * np.exp(-0.5 * ((wave - centre) / 6.0) ** 2)
    return np.asarray(flux)


# Of no lines there is no root: these have a test of their own.
ROOTS = ("MgFe", "MgFe_prime")


@pytest.mark.parametrize("name", [n for n in names() if units(n) != "1" and n not in ROOTS])
def test_straight_spectrum_has_no_feature(name: str) -> None:
    assert one(lambda wave: np.full_like(wave, 3.0), name) == pytest.approx(0.0, abs=1e-10)
    # Whole pixels are flat inside: a slope leaves a rounding of the band edges.
    assert one(lambda wave: wave / 5000.0, name) == pytest.approx(0.0, abs=2e-4)


@pytest.mark.parametrize("name", ["Dn4000", "D4000"])
def test_constant_f_nu_has_no_break(name: str) -> None:
    assert one(lambda wave: wave**-2.0, name) == pytest.approx(1.0, abs=1e-9)


def test_constant_f_lambda_has_the_break_of_lambda_squared() -> None:
    # A break of F_lambda would be exactly 1: the trap of averaging the wrong flux density.
    def mean_square(low: float, high: float) -> float:
        a, b = air_to_vacuum([low, high])
        return float((b**3 - a**3) / 3 / (b - a))

    expected = mean_square(4000, 4100) / mean_square(3850, 3950)
    assert one(np.ones_like, "Dn4000") == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(1.0786, abs=1e-3)
    assert one(np.ones_like, "B4000") == pytest.approx(1.0, abs=1e-12)


def test_step_is_its_break() -> None:
    step = float(air_to_vacuum(3975.0))
    actual = one(lambda wave: np.where(wave < step, 1.0, 1.7) / wave**2, "Dn4000")
    assert actual == pytest.approx(1.7, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "centre"), [("HdeltaF", 4101.6), ("Mgb", 5171.3), ("Fe5270", 5265.0), ("Hbeta", 4862)]
)
def test_gaussian_line_has_its_analytic_width(name: str, centre: float) -> None:
    assert one(line(centre, ew=1.3), name) == pytest.approx(1.3, abs=2e-4)


def test_magnitude_of_a_gaussian_line() -> None:
    expected = -2.5 * np.log10(1 - 4.0 / (5196.625 - 5154.125))
    assert one(line(5175.0, ew=4.0, sigma=3.0), "Mg2") == pytest.approx(expected, abs=2e-4)


def test_bands_in_air_on_a_vacuum_spectrum_would_be_seen() -> None:
    # HdeltaF ends at 4112.250 in air, 4113.411 in vacuum: this line lies between the two.
    wave = FINE.wavelength
    flux = (1.0 - 0.8 * np.exp(-0.5 * ((wave - 4112.8) / 0.15) ** 2))[None]
    right = float(measure(wave, flux, None, ("HdeltaF",)).value)
    trap = float(measure(wave, flux, None, ("HdeltaF",), medium="air").value)
    assert right == pytest.approx(0.8 * 0.15 * np.sqrt(2 * np.pi), rel=0.02)
    assert abs(trap) < 0.2 * right


def test_one_spectrum_in_air_or_vacuum_is_one_index() -> None:
    flux = galaxy(FINE.wavelength)[None]
    vacuum = measure(FINE.wavelength, flux, None, THREE).value
    written_in_air = measure(vacuum_to_air(FINE.wavelength), flux, None, THREE, medium="air").value
    even_in_air = measure(
        FINE.wavelength, galaxy(air_to_vacuum(FINE.wavelength))[None], None, THREE, medium="air"
    ).value
    np.testing.assert_allclose(written_in_air, vacuum, atol=1e-5)
    np.testing.assert_allclose(even_in_air, vacuum, atol=2e-4)


@pytest.mark.parametrize("grid", [LINEAR, LOG], ids=["linear", "log"])
@pytest.mark.parametrize("name", THREE)
def test_a_shift_by_part_of_a_pixel_changes_nothing(grid: Grid, name: str) -> None:
    shifts = [grid.model_copy(update={"start": grid.start + s * grid.step}) for s in (0, 0.3, 0.7)]
    found = [one(galaxy, name, Grid(**shifted.model_dump())) for shifted in shifts]
    # Whole pixels would step by several 0.01 A.
    assert np.ptp(found) < (1e-4 if name == "Dn4000" else 2e-3)


@pytest.mark.parametrize("grid", [LINEAR, LOG], ids=["linear", "log"])
def test_redshift_changes_nothing(grid: Grid) -> None:
    for name in THREE:
        rest = one(galaxy, name, FINE)
        for z in (0.05, 0.1234, 0.3):
            assert one(galaxy, name, grid, z) == pytest.approx(rest, abs=2e-3)


def test_each_row_has_its_own_redshift() -> None:
    z = np.array([0.05, 0.11, 0.2])
    flux = np.stack([galaxy(LOG.wavelength / (1 + each)) for each in z])
    together = measure(LOG.wavelength, flux, np.ones_like(flux), THREE, z=z)
    for row in range(3):
        alone = measure(LOG.wavelength, flux[[row]], np.ones((1, LOG.size)), THREE, z=z[[row]])
        np.testing.assert_allclose(together.value[[row]], alone.value, rtol=1e-12)
        np.testing.assert_allclose(together.error[[row]], alone.error, rtol=1e-12)


@pytest.mark.parametrize("z", [None, 0.1])
def test_redshift_zero_is_the_common_axis_and_units_of_flux_cancel(z: float | None) -> None:
    wave = LOG.wavelength
    flux = galaxy(wave / (1 + (z or 0)))[None].repeat(3, axis=0)
    seen = None if z is None else np.full(3, z)
    scale = np.array([[1.0], [1e-17], [1e5]])
    found = measure(wave, flux * scale, 100 / scale**2 + 0 * flux, names()[:15], z=seen)
    np.testing.assert_allclose(found.value[1:], found.value[:1].repeat(2, 1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.error[1:], found.error[:1].repeat(2, 1), rtol=1e-9, atol=1e-12)
    if z is None:
        moved = measure(wave, flux, 100 + 0 * flux, names()[:15], z=np.zeros(3))
        np.testing.assert_allclose(moved.value, found.value[:1].repeat(3, 1), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(moved.error, found.error[:1].repeat(3, 1), rtol=1e-9, atol=1e-12)


def monte_carlo(z: float | None, draws: int = 4000, correlated: bool = False) -> tuple[float, ...]:
    """Formal error over scatter of draws, for three kinds of index."""
    rng = np.random.default_rng(11)
    wave = LOG.wavelength
    stretch = 1 + (z or 0.0)
    keep = (wave > 3800 * stretch) & (wave < 5450 * stretch)
    wave = wave[keep]
    truth = galaxy(wave / stretch)
    sigma = 0.04 * (1.5 - 0.2 * (wave / stretch - 4500) / 1000)
    noise = rng.normal(size=(draws, wave.size + 1))
    factor = None
    if correlated:
        # Each pixel shares half of its neighbour's noise: (a + b) / sqrt(2), row sum of 1 + 2 / 2.
        noise = (noise[:, 1:] + noise[:, :-1]) / np.sqrt(2)
        factor = np.full((draws, wave.size), 2.0)
    flux = truth + sigma * noise[:, : wave.size]
    ivar = np.broadcast_to(sigma**-2.0, flux.shape).copy()
    seen = None if z is None else np.full(draws, z)
    found = measure(wave, flux, ivar, (*THREE, "Mg2"), z=seen, covariance=factor)
    return tuple((found.error.mean(0) / found.value.std(0)).tolist())


@pytest.mark.parametrize("z", [None, 0.1])
def test_formal_errors_are_the_scatter(z: float | None) -> None:
    # Scatter of 4000 draws is known to 1.1 %; the seed is fixed.
    np.testing.assert_allclose(monte_carlo(z), 1.0, atol=0.02)


def test_covariance_factor_gives_the_scatter_of_correlated_noise() -> None:
    np.testing.assert_allclose(monte_carlo(None, correlated=True), 1.0, atol=0.05)


def flat(bad: list[float] | None = None, width: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    wave = LINEAR.wavelength
    flux, ivar = np.ones((1, wave.size)), np.full((1, wave.size), 100.0)
    for centre in bad or []:
        ivar[0, np.abs(wave - centre) < width] = 0
    flux[ivar == 0] = 1e6
    return flux, ivar


def flags(found: Measured) -> Flag:
    return Flag(int(found.flag))


def test_masked_pixels_are_left_out() -> None:
    flux, ivar = flat(bad=[4105.0])
    found = measure(LINEAR.wavelength, flux, ivar, ("HdeltaF",))
    assert flags(found) == Flag.MASKED
    assert float(found.value) == pytest.approx(0.0, abs=1e-9)
    everywhere = measure(LINEAR.wavelength, *flat(), ("HdeltaF",))
    assert flags(everywhere) == Flag(0)
    assert float(found.error) > float(everywhere.error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("z", [None, 0.0])
def test_nan_under_a_mask_is_no_data(dtype: type, z: float | None) -> None:
    flux, ivar = (array.astype(dtype) for array in flat(bad=[4105.0]))
    flux[ivar == 0] = np.nan
    seen = None if z is None else np.zeros(1)
    found = measure(LINEAR.wavelength, flux, ivar, ("HdeltaF",), z=seen)
    assert float(found.value) == pytest.approx(0.0, abs=1e-5)
    assert flags(found) == Flag.MASKED


@pytest.mark.parametrize("centre", [4075.0, 4102.0, 4125.0], ids=["blue", "feature", "red"])
def test_too_much_of_any_band_masked_is_nan(centre: float) -> None:
    found = measure(LINEAR.wavelength, *flat(bad=[centre], width=2.6), ("HdeltaF",))
    assert flags(found) == Flag.MASKED | Flag.TOO_MUCH_MASKED
    assert found.value.isnan().all()
    assert found.error.isnan().all()


def test_outside_the_axis_is_nan() -> None:
    wave = LINEAR.wavelength[420:]
    flux = np.ones((2, wave.size))
    at_rest = measure(wave, flux, flux, ("Dn4000", "Mgb"))
    assert at_rest.flag.tolist() == [[Flag.OUTSIDE, 0], [Flag.OUTSIDE, 0]]
    assert at_rest.value[:, 0].isnan().all()
    moved = measure(wave, flux, flux, ("Dn4000", "Mgb"), z=np.array([0.08, np.nan]))
    np.testing.assert_array_equal(moved.value.isnan(), [[False, False], [True, True]])
    assert moved.flag[1, 1] & Flag.OUTSIDE


def test_no_positive_continuum_is_nan() -> None:
    flux = -np.ones((1, LINEAR.size))
    found = measure(LINEAR.wavelength, flux, np.ones_like(flux), THREE)
    assert found.value.isnan().all()
    assert (found.flag == Flag.CONTINUUM).all()


def test_flux_without_errors_has_a_value_and_no_error() -> None:
    found = measure(LINEAR.wavelength, galaxy(LINEAR.wavelength)[None], None, THREE)
    assert found.value.isfinite().all()
    assert found.error.isnan().all()
    assert (found.flag == Flag.NO_ERROR).all()


def test_float32_torch_and_read_only_arrays_agree_with_float64() -> None:
    flux = galaxy(LOG.wavelength)[None].repeat(5, axis=0)
    ivar = np.full_like(flux, 400.0)
    exact = measure(LOG.wavelength, flux, ivar, THREE)
    single = flux.astype(np.float32)
    single.flags.writeable = False
    for given in (single, torch.tensor(single), single.astype(">f4")):
        found = measure(LOG.wavelength, given, ivar.astype(np.float32), THREE)
        np.testing.assert_allclose(found.value, exact.value, atol=3e-5)
        np.testing.assert_allclose(found.error, exact.error, rtol=1e-4)


def test_rows_do_not_depend_on_how_many_are_measured() -> None:
    rng = np.random.default_rng(3)
    flux = rng.normal(1.0, 0.05, (1300, 1600))
    wave = LINEAR.wavelength[:1600]
    everything = measure(wave, flux, np.ones_like(flux), THREE)
    part = measure(wave, flux[1000:1100], np.ones((100, 1600)), THREE)
    np.testing.assert_allclose(part.value, everything.value[1000:1100], rtol=1e-12)


def test_no_rows_give_no_rows() -> None:
    assert measure(LINEAR.wavelength, np.ones((0, 3800)), None, THREE).value.shape == (0, 3)


def test_wrong_input_is_named() -> None:
    flux = np.ones((2, LINEAR.size))
    with pytest.raises(ValueError, match=r"no index 'HdeltaG'.*did you mean 'Hdelta"):
        measure(LINEAR.wavelength, flux, flux, ("HdeltaG",))
    with pytest.raises(ValueError, match=r"flux: shape \(2, 3800\), expected \(N, 100\)"):
        measure(LINEAR.wavelength[:100], flux, flux, THREE)
    with pytest.raises(ValueError, match=r"z: shape \(3,\), expected \(2,\)"):
        measure(LINEAR.wavelength, flux, flux, THREE, z=np.zeros(3))
    with pytest.raises(ValueError, match="even neither in A nor in log10"):
        measure(LINEAR.wavelength**1.5, flux, flux, THREE)


def test_a_value_does_not_depend_on_the_redshifts_beside_it() -> None:
    grid = LOG
    random = np.random.default_rng(3)
    flux = random.normal(5, 1, (48, grid.size)).astype("f4")
    ivar = random.uniform(0.5, 2, flux.shape).astype("f4")
    z = np.linspace(0.01, 0.2, 48)
    other = z.copy()
    other[40:] = 0.01
    one, two = (measure(grid.wavelength, flux, ivar, THREE, z=given) for given in (z, other))
    for left, right in zip(one, two, strict=True):
        assert left[:40].numpy().tobytes() == right[:40].numpy().tobytes()
