"""Formal errors of indices are the scatter of draws, on the grids and under the noise of surveys.

The long version, every index and 20,000 draws, is `python -m benchmarks.evidence`.
"""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.index import measure
from storage.grid import Grid
from tests.pipeline.error_scene import SCENES, WAYS, Scene

THREE = ("Dn4000", "HdeltaF", "Mgb")
DRAWS = 2000
KNOWN = 3 / np.sqrt(2 * DRAWS)
"Three standard deviations of a scatter."


REST = Grid(kind="linear", start=3780, step=1, size=1490)
SHORT = {
    "SDSS": Grid(kind="log", start=3.6, step=1e-4, size=1560),
    "DESI": Grid(kind="linear", start=4000, step=0.8, size=2150),
}
"What the three need of each axis."


def scene(survey: str) -> Scene:
    return replace(SCENES[survey][0], grid=SHORT[survey], rest=REST)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("survey", ["SDSS", "DESI"])
def test_formal_errors_are_the_scatter(survey: str, way: str) -> None:
    ratio = scene(survey).ratio(way, THREE, DRAWS)
    np.testing.assert_allclose(ratio, 1.0, atol=0.01 + KNOWN)


def test_noise_of_the_scene_varies_along_the_spectrum() -> None:
    seen = scene("SDSS")
    relative = seen.sigma / seen.truth
    assert np.ptp(relative) > 0.5 * np.median(relative)


def test_without_the_covariance_factor_errors_of_moved_spectra_would_be_too_small() -> None:
    seen, random = scene("SDSS"), np.random.default_rng(1)
    made = seen.moved(*seen.draws("moved", random), "moved")
    alone = measure(seen.rest.wavelength, made.flux, made.ivar, THREE)
    assert (alone.error.mean(0) / alone.value.std(0)).max() < 0.9


def test_neither_the_number_of_rows_nor_their_neighbours_change_a_bit() -> None:
    names = (*THREE, "B4000", "CN2", "HgammaF", "Fe4383")
    random = np.random.default_rng(2)
    for survey in ("SDSS", "DESI"):
        seen = scene(survey)
        flux, ivar = (array[:300].copy() for array in seen.draws("masked", random))
        redshifts = random.uniform(0.0, 0.3, len(flux))
        for z in (None, redshifts):
            wave = seen.grid.wavelength
            together = measure(wave, flux, ivar, names, z=z)
            for rows in (slice(0, 1), slice(7, 9), slice(100, 133), slice(299, 300)):
                own = None if z is None else z[rows]
                apart = measure(wave, flux[rows], ivar[rows], names, z=own)
                for one, other in zip(apart, together, strict=True):
                    assert one.numpy().tobytes() == other[rows].numpy().tobytes()


LINES = np.array([4103.0, 5177, 5270, 5334])


@pytest.mark.parametrize("snr", [2.0, 3.0])
def test_formal_errors_cover_where_noise_is_strong_but_roots_are_lost(snr: float) -> None:
    wave = Grid(kind="log", start=3.57, step=1e-4, size=1620).wavelength
    truth = 1 - 0.3 * np.exp(-0.5 * ((wave[:, None] - LINES) / 5) ** 2).sum(1)
    names = (*THREE, "MgFe")
    right = measure(wave, truth[None], None, names).value[0]
    noise = np.random.default_rng(8).normal(0, 1 / snr, (DRAWS, wave.size))
    found = measure(wave, truth + noise, np.full_like(noise, snr**2), names)
    within = ((found.value - right).abs() < found.error).double().mean(0)
    # A share of 2000 is known to 1 %.
    np.testing.assert_allclose(within[:3], 0.683, atol=0.03)
    assert found.value[:, :3].isfinite().all()
    # Lines that noise turns into emission have no root: what is left is a choice of the strong.
    assert found.value[:, 3].isnan().double().mean() > 0.1
