"""Generic and composite indices: the fitted continuum, and errors that know what parts share."""

import numpy as np
import pytest
import torch

from pipeline.definition import Atomic
from pipeline.index import Flag, find, measure
from pipeline.index_generic import Generic
from storage.grid import air_to_vacuum, vacuum_to_air

CALCIUM = 8420.0 + np.arange(400)
IRON = 5120.0 + 0.8 * np.arange(330)
TRIPLET = ("CaT", "PaT", "CaT_star")
METALS = ("Fe_mean", "MgFe", "MgFe_prime")


def calcium(wave: np.ndarray) -> np.ndarray:
    shape = np.exp(-0.5 * ((wave[:, None] - np.array([8500.4, 8544.4, 8664.5])) / 5) ** 2)
    return np.asarray(1 + (wave - 8600) / 2000 - shape @ np.array([0.2, 0.4, 0.35]))


def iron(wave: np.ndarray) -> np.ndarray:
    shape = np.exp(-0.5 * ((wave[:, None] - np.array([5177.0, 5270, 5334])) / 7) ** 2)
    return np.asarray(1 + (wave - 5200) / 3000 - shape @ np.array([0.3, 0.25, 0.2]))


def to_air(band: tuple[float, float]) -> tuple[float, float]:
    return float(vacuum_to_air(band[0])), float(vacuum_to_air(band[1]))


def test_the_continuum_is_the_weighted_line_that_fits_best() -> None:
    """The same by hand: numpy's fit of the pixels inside the bands, edges on pixel edges."""
    wave = 6000.5 + np.arange(200)
    rng = np.random.default_rng(5)
    flux, sigma = 2 + rng.normal(0, 0.1, 200), rng.uniform(0.05, 0.3, 200)
    sides, feature = ((6010.0, 6030.0), (6060.0, 6070.0), (6150.0, 6180.0)), (6080.0, 6140.0)

    def inside(low: float, high: float) -> np.ndarray:
        return (wave > low) & (wave < high)

    use = np.any([inside(*band) for band in sides], axis=0)
    core = inside(*feature)
    for weighted in (True, False):
        fit = np.polyfit(wave[use], flux[use], 1, w=1 / sigma[use] if weighted else None)
        expected = (1 - flux[core] / np.polyval(fit, wave[core])).sum()
        index = Generic(
            name="mine",
            continuum=tuple(to_air(band) for band in sides),
            features=(to_air(feature),),
            factors=(1.0,),
            weighted=weighted,
            reference="none",
        )
        found = measure(wave, flux[None], sigma[None] ** -2, (index,)).value
        assert float(found) == pytest.approx(expected, abs=1e-7)


def test_without_errors_all_pixels_weigh_alike() -> None:
    flux = calcium(CALCIUM)[None] + 0.02 * np.sin(CALCIUM)
    alike = measure(CALCIUM, flux, np.full_like(flux, 7.0), TRIPLET)
    unknown = measure(CALCIUM, flux, None, TRIPLET)
    np.testing.assert_allclose(alike.value, unknown.value, rtol=1e-12)
    assert unknown.error.isnan().all()


def test_a_pixel_without_weight_does_not_move_the_continuum() -> None:
    flux, ivar = calcium(CALCIUM)[None].repeat(2, 0), np.full((2, CALCIUM.size), 100.0)
    ivar[1, 150] = 1e-9
    flux[1, 150] = 50.0
    inside = (CALCIUM[150] > 8565) & (CALCIUM[150] < 8577)
    assert inside
    found = measure(CALCIUM, flux, ivar, TRIPLET)
    np.testing.assert_allclose(found.value[1, :1], found.value[0, :1], atol=0.02)


def test_the_paschen_corrected_triplet_is_the_difference() -> None:
    flux = calcium(CALCIUM)[None] + 0.03 * np.sin(CALCIUM / 9)
    cat, pat, star = measure(CALCIUM, flux, np.full_like(flux, 9.0), TRIPLET).value[0].tolist()
    assert star == pytest.approx(cat - 0.93 * pat, abs=1e-10)


@pytest.mark.parametrize(
    ("wave", "truth", "names"),
    [(CALCIUM, calcium(CALCIUM), TRIPLET), (IRON, iron(IRON), METALS)],
    ids=["triplet", "metals"],
)
def test_errors_are_those_of_every_derivative(
    wave: np.ndarray, truth: np.ndarray, names: tuple[str, ...]
) -> None:
    """Each pixel is moved by itself: no formula is used."""
    sigma = 0.02 * (1.4 + np.sin(wave / 15))
    ivar = np.broadcast_to(sigma**-2, (wave.size, wave.size)).copy()
    step = 1e-5 * np.eye(wave.size)
    up, down = (measure(wave, truth + s, ivar, names).value.numpy() for s in (step, -step))
    slope = (up - down) / 2e-5
    expected = np.sqrt(((slope * sigma[:, None]) ** 2).sum(0))
    np.testing.assert_allclose(
        measure(wave, truth[None], ivar[:1], names).error[0], expected, rtol=1e-5
    )


def test_parts_that_share_pixels_are_not_independent() -> None:
    """The red side of Fe5270 and the blue one of Fe5335 are partly the same pixels."""
    noise = 0.02 * np.random.default_rng(4).normal(size=(5000, IRON.size))
    names = ("Fe5270", "Fe5335", *METALS)
    drawn = measure(IRON, iron(IRON) + noise, np.full_like(noise, 2500.0), names)
    error, actual = drawn.error.mean(0), drawn.value.std(0)
    # Scatter of 5000 draws is known to 1 %; the seed is fixed.
    np.testing.assert_allclose(error / actual, 1.0, atol=0.02)
    naive = float(torch.hypot(error[0], error[1])) / 2
    assert abs(naive / float(actual[2]) - 1) > 0.03


@pytest.mark.parametrize("name", [*TRIPLET, *METALS, "Ca1", "CaHK", "bTiO", "TiO2sdss"])
def test_a_covariance_factor_of_four_doubles_the_error(name: str) -> None:
    wave = 3700 + np.arange(5200.0)
    flux = (iron(wave) * 0 + 1 - 0.3 * np.exp(-0.5 * ((wave[:, None] - LINES) / 7) ** 2).sum(1))[
        None
    ]
    ivar = np.full_like(flux, 400.0)
    plain = measure(wave, flux, ivar, (name,))
    factor = measure(wave, flux, ivar, (name,), covariance=np.full_like(flux, 4.0))
    np.testing.assert_allclose(factor.error, 2 * plain.error, rtol=1e-9)
    np.testing.assert_allclose(factor.value, plain.value, rtol=1e-9)


LINES = np.array([3970.0, 5177, 5270, 5334, 8500, 8544, 8664])


def test_the_root_of_what_is_not_positive_is_nan() -> None:
    flux = np.stack([iron(IRON), 2 - iron(IRON)])
    found = measure(IRON, flux, np.ones_like(flux), METALS)
    assert found.flag.tolist() == [[0, 0, 0], [0, Flag.CONTINUUM, Flag.CONTINUUM]]
    assert found.value[0].isfinite().all()
    assert found.value[1, 0] < 0
    assert found.value[1, 1:].isnan().all()
    assert found.error[1, 1:].isnan().all()


def test_a_masked_band_of_the_continuum_is_a_lost_index() -> None:
    flux, ivar = calcium(CALCIUM)[None].repeat(3, 0), np.full((3, CALCIUM.size), 100.0)
    wave = air_to_vacuum([8778.0, 8790.0])
    ivar[1, np.abs(CALCIUM - 8713.0) < 0.6] = 0
    ivar[2, (wave[0] < CALCIUM) & (wave[1] > CALCIUM)] = 0
    found = measure(CALCIUM, flux, ivar, ("CaT",))
    assert found.flag[:, 0].tolist() == [0, Flag.MASKED, Flag.MASKED | Flag.TOO_MUCH_MASKED]
    assert float(found.value[1]) == pytest.approx(float(found.value[0]), abs=1e-3)
    assert found.value[2].isnan().all()


def test_a_falling_continuum_below_zero_is_nan() -> None:
    flux = (1 - (CALCIUM - 8420) / 200)[None]
    found = measure(CALCIUM, flux, np.ones_like(flux), TRIPLET)
    assert (found.flag == Flag.CONTINUUM).all()
    assert found.value.isnan().all()


def test_composites_are_made_of_atomic_indices() -> None:
    for name in METALS:
        parts = [find(part) for part in find(name).parts]  # type: ignore[attr-defined]
        assert all(isinstance(part, Atomic) and part.units == "Angstrom" for part in parts)


def test_float32_is_enough() -> None:
    flux = torch.tensor(calcium(CALCIUM)[None] * 1e-15)
    ivar = torch.full_like(flux, 1e34)
    exact = measure(CALCIUM, flux, ivar, TRIPLET)
    single = measure(CALCIUM, flux.float(), ivar.float(), TRIPLET)
    np.testing.assert_allclose(single.value, exact.value, atol=1e-5)
    np.testing.assert_allclose(single.error, exact.error, rtol=1e-4)


@pytest.mark.parametrize("z", [None, np.array([0.0, 0.003, 0.001] * 20)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_row_does_not_depend_on_those_beside_it(z: np.ndarray | None, dtype: str) -> None:
    wave = 5100 + 1.2 * np.arange(3100)
    rng = np.random.default_rng(9)
    lines = 0.4 * np.exp(-0.5 * ((wave[:, None] - LINES) / 7) ** 2).sum(1)
    flux = (1 - lines + 0.02 * rng.normal(size=(60, wave.size))).astype(dtype)
    ivar = rng.uniform(2000, 3000, flux.shape).astype(dtype)
    names = (*TRIPLET, *METALS)
    together = measure(wave, flux, ivar, names, z=z)
    for rows in ([0], [59], [7, 3, 40], list(range(11, 52))):
        alone = measure(wave, flux[rows], ivar[rows], names, z=None if z is None else z[rows])
        for one, other in zip(alone, together, strict=True):
            assert one.numpy().tobytes() == other[rows].numpy().tobytes()
