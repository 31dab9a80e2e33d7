"""What an index does with bad input: a flag and NaN, never a number that looks right."""

import numpy as np
import pytest
import torch

from pipeline.definition import Atomic
from pipeline.index import NOTHING, Flag, find, measure, names
from pipeline.index_coarse import LEAST
from storage.grid import Grid, air_to_vacuum
from training.frames import named

WAVE = 3650.0 + np.arange(5200)
SURVEYS = {
    "SDSS": Grid(kind="log", start=3.5500, step=1e-4, size=4700),
    "DESI": Grid(kind="linear", start=3600, step=0.8, size=7781),
    "fs": named("fs").grid,
    "weave": named("weave-blue").grid,
}


def lines(wave: np.ndarray = WAVE) -> np.ndarray:
    shape = np.exp(-0.5 * ((wave[:, None] - np.array([5177.0, 5267, 5334])) / 6) ** 2)
    return np.asarray(2 - 0.8 * shape.sum(1))[None]


def half_masked(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A quarter of the first band of an index has no data."""
    flux = lines()
    ivar = np.full_like(flux, 100.0)
    low, high = air_to_vacuum(find(name).bands[0])
    ivar[0, (low < WAVE) & (low + 0.25 * (high - low) > WAVE)] = 0
    return flux, ivar


@pytest.mark.parametrize("name", ["Dn4000", "HdeltaA", "Mg2", "CaT", "MgFe_prime"])
def test_the_share_that_may_be_masked_is_told(name: str) -> None:
    flux, ivar = half_masked(name)
    strict, lenient = (measure(WAVE, flux, ivar, (name,), missing=m) for m in (0.1, 0.5))
    assert Flag(int(strict.flag)) == Flag.MASKED | Flag.TOO_MUCH_MASKED
    assert strict.value.isnan().all()
    assert Flag(int(lenient.flag)) == Flag.MASKED
    assert lenient.value.isfinite().all()
    nothing = measure(WAVE, flux, ivar, (name,), missing=0.0)
    assert nothing.value.isnan().all()
    whole = measure(WAVE, flux, np.full_like(flux, 100.0), (name,), missing=0.0)
    assert int(whole.flag) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("z", [None, 0.0])
@pytest.mark.parametrize("name", ["Dn4000", "HdeltaA", "Mg2", "CaT", "Fe_mean"])
def test_flux_that_is_no_number_is_no_data_whatever_its_weight(
    name: str, z: float | None, bad: float
) -> None:
    seen = None if z is None else np.full(2, z)
    for band in find(name).bands:
        flux, ivar = lines().repeat(2, 0), np.full((2, WAVE.size), 100.0)
        hit = np.abs(WAVE - air_to_vacuum(sum(band) / 2)) < 0.6
        flux[0, hit], masked = bad, ivar.copy()
        masked[0, hit] = 0
        expected = measure(WAVE, lines().repeat(2, 0), masked, (name,), z=seen, missing=0.5)
        found = measure(WAVE, flux, ivar, (name,), z=seen, missing=0.5)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert found.flag.ravel().tolist() == [Flag.MASKED, 0]
        unknown = measure(WAVE, flux, None, (name,), z=seen, missing=0.5)
        assert unknown.flag.ravel().tolist() == [Flag.MASKED | Flag.NO_ERROR, Flag.NO_ERROR]
        np.testing.assert_allclose(unknown.value, expected.value, rtol=1e-12)


def test_flux_that_is_no_number_beyond_the_bands_does_not_matter() -> None:
    flux = lines()
    low, high = (float(air_to_vacuum(end)) for end in (5142.625, 5206.375))
    flux[:, (low - 1.5 > WAVE) | (high + 1.5 < WAVE)] = np.nan
    for z in (None, np.zeros(1)):
        found = measure(WAVE, flux, np.full_like(flux, 100.0), ("Mgb",), z=z)
        assert found.flag == 0
        np.testing.assert_array_equal(
            found.value, measure(WAVE, lines(), None, ("Mgb",), z=z).value
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_errors_that_are_no_numbers_are_no_errors(bad: float) -> None:
    flux, factor = lines().repeat(2, 0), np.ones((2, WAVE.size))
    factor[0, np.abs(WAVE - 5177) < 3] = bad
    found = measure(WAVE, flux, np.full_like(flux, 100.0), ("Mgb", "Fe_mean"), covariance=factor)
    assert found.flag.tolist() == [[Flag.NO_ERROR, 0], [0, 0]]
    assert found.error.isnan().tolist() == [[True, False], [False, False]]
    assert found.value.isfinite().all()


@pytest.mark.parametrize("name", names())
def test_whole_bands_lack_nothing_in_single_precision(name: str) -> None:
    flux = lines().astype("f4")
    for z in (None, np.zeros(1)):
        found = measure(WAVE, flux, np.full_like(flux, 100.0), (name,), z=z, missing=0.0)
        assert not int(found.flag) & int(Flag.TOO_MUCH_MASKED)


@pytest.mark.parametrize("level", [0.0, -1.0])
@pytest.mark.parametrize("name", names())
def test_zero_and_negative_continua_have_no_index(name: str, level: float) -> None:
    flux = np.full((1, WAVE.size), level)
    found = measure(WAVE, flux, np.ones_like(flux), (name,))
    assert found.value.isnan().all()
    assert found.error.isnan().all()
    assert int(found.flag) == Flag.CONTINUUM


@pytest.mark.parametrize("survey", SURVEYS)
def test_no_survey_is_too_coarse_for_the_shelf(survey: str) -> None:
    grid = SURVEYS[survey]
    flux = np.ones((2, grid.size))
    for z in (None, np.array([0.0, 0.3])):
        found = measure(grid.wavelength, flux, None, names(), z=z)
        assert not (found.flag & int(Flag.COARSE)).any()


def test_wide_pixels_have_no_index_of_narrow_bands() -> None:
    grid = Grid(kind="linear", start=4000, step=6.0, size=300)
    flux = np.ones((1, grid.size))
    found = measure(grid.wavelength, flux, flux, ("Ca4227", "Mg1"))
    assert found.flag.tolist() == [[Flag.COARSE, 0]]
    assert found.value.isnan().tolist() == [[True, False]]
    assert found.error.isnan().tolist() == [[True, False]]


def test_a_band_seen_wider_at_a_redshift_may_be_measured() -> None:
    # 8.75 A of Ca4227 are 1.94 pixels of 4.5 A at rest, and 2.1 at z = 0.08.
    grid = Grid(kind="linear", start=4000, step=4.5, size=300)
    flux = np.ones((3, grid.size))
    found = measure(grid.wavelength, flux, flux, ("Ca4227",), z=np.array([0.0, 0.08, np.nan]))
    assert found.flag[:2, 0].tolist() == [Flag.COARSE, 0]
    assert found.flag[2, 0] & Flag.OUTSIDE


def test_a_band_of_two_pixels_has_one_inside_wherever_they_fall() -> None:
    assert LEAST == 2
    rest = named("s23").grid
    flux = np.ones((1, rest.size))
    found = measure(rest.wavelength, flux, flux, ("Fe5782", "Fe5406", "Mgb", "HdeltaF", "Dn4000"))
    assert found.flag.tolist() == [[Flag.COARSE, 0, 0, 0, 0]]


def test_an_index_may_be_given_itself() -> None:
    given = find("Mgb")
    assert isinstance(given, Atomic)
    both = measure(WAVE, lines(), None, (given, "Mg_b")).value
    assert float(both[0, 0]) == float(both[0, 1])


@pytest.mark.gpu
@pytest.mark.parametrize("z", [None, 0.02])
@pytest.mark.parametrize("lick", [False, True])
def test_a_gpu_measures_the_same(z: float | None, lick: bool) -> None:
    flux = torch.tensor(lines().repeat(40, 0)) + 0.01 * torch.randn(40, WAVE.size)
    ivar, spread = torch.full_like(flux, 1e4), torch.full_like(flux, 0.8)
    seen = None if z is None else torch.full((40,), z)

    def on(device: str) -> list[np.ndarray]:
        given = [None if a is None else a.to(device) for a in (flux, ivar, seen, spread)]
        found = measure(
            WAVE, given[0], given[1], names(), z=given[2], lsf=given[3] if lick else None
        )
        return [part.cpu().numpy() for part in found]

    for here, there in zip(on("cpu"), on("cuda"), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-7, atol=1e-9)


def test_nothing_is_written_where_a_flag_says_so() -> None:
    assert Flag(2 | 4 | 8 | 32 | 64 | 128) == NOTHING
    assert all(int(flag) < 256 for flag in Flag)
