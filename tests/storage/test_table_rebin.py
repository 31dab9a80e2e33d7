"""Rebinning from any pixels: the same as the even rebinner's, and exact where that cannot go."""

import numpy as np
import pytest
import torch

from storage.border import RefusedError
from storage.grid import Grid, air_to_vacuum
from storage.resample import Rebinner
from storage.table.rebin import overlaps

LOG = Grid(kind="log", start=3.55, step=1e-4, size=4700)
SOURCES = [
    Grid(kind="linear", start=3700, step=1.04, size=5000),
    Grid(kind="linear", start=4000, step=0.1, size=9000),
    Grid(kind="log", start=3.6, step=3.1e-4, size=1000),
    Grid(kind="linear", start=3000, step=7.0, size=1200),
]


def noise(size: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random flux and ivar; one pixel in ten has no data."""
    random = np.random.default_rng(seed)
    ivar = random.uniform(0.5, 2, size)
    ivar[random.random(size) < 0.1] = 0
    return random.normal(2, 1, size), ivar


@pytest.mark.parametrize("source", SOURCES)
def test_even_pixels_are_rebinned_as_by_the_rebinner(source: Grid) -> None:
    flux, ivar = noise(source.size)
    found, order = overlaps(source.wavelength, LOG)
    actual_flux, actual_ivar, _ = found(flux[order], ivar[order], None)
    tables = [torch.tensor(values, dtype=torch.float32)[None] for values in (flux, ivar)]
    expected = Rebinner(source, LOG)(*tables, torch.ones(1, dtype=torch.float64))
    wanted = expected.flux.numpy()[0], expected.ivar.numpy()[0]
    # Pixels end half-way in A here, half-way in log A there: 3e-4 of a pixel where they are broad.
    same = (actual_ivar > 0) == (wanted[1] > 0)
    assert same.mean() > 0.999
    np.testing.assert_allclose(actual_flux[same], wanted[0][same], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(actual_ivar[same], wanted[1][same], rtol=2e-3)


def test_flux_is_conserved_from_uneven_pixels() -> None:
    wave = air_to_vacuum(np.cumsum(1 + 0.3 * np.sin(np.arange(3000) / 50)) + 4000)
    flux = noise(wave.size)[0]
    flux[:5] = flux[-5:] = 0
    found, _ = overlaps(wave, LOG)
    actual, ivar, _ = found(flux, np.ones(wave.size), None)
    edges = (wave[1:] + wave[:-1]) / 2
    expected = (flux[1:-1] * np.diff(edges)).sum()
    assert (actual * LOG.widths).sum() == pytest.approx(expected, rel=1e-9)
    assert (ivar > 0).sum() > 2000


def test_pixels_of_the_grid_are_copied() -> None:
    wave = LOG.wavelength[500:900] * (1 + 1e-9)
    flux, ivar = noise(400)
    found, _ = overlaps(wave, LOG)
    actual = found(flux, ivar, None)
    good = ivar > 0
    np.testing.assert_allclose(actual[0][500:900][good], flux[good], rtol=1e-12)
    np.testing.assert_allclose(actual[1][500:900], ivar, rtol=1e-12)
    assert not actual[1][:500].any()
    assert not actual[1][900:].any()


def test_a_gap_between_two_arms_has_no_data() -> None:
    wave = np.concatenate([np.arange(4000, 5000, 1.0), np.arange(5500, 6000, 1.0)])
    found, _ = overlaps(wave, LOG)
    _, ivar, _ = found(np.ones(wave.size), np.ones(wave.size), None)
    gap = (LOG.wavelength > 5001) & (LOG.wavelength < 5499)
    assert not ivar[gap].any()
    assert ivar[(LOG.wavelength > 4900) & (LOG.wavelength < 4999)].all()


def test_mask_bits_are_those_of_every_pixel_touched() -> None:
    wave = np.arange(4000, 4100, 0.2)
    bits = np.zeros(wave.size, dtype=np.uint32)
    bits[200], bits[202] = 1, 4
    found, _ = overlaps(wave, Grid(kind="linear", start=4000, step=10, size=10))
    mask = found(np.ones(wave.size), np.ones(wave.size), bits)[2]
    assert mask.tolist() == [0, 0, 0, 0, 5, 0, 0, 0, 0, 0]


def test_what_has_no_data_never_counts() -> None:
    wave = np.arange(4000, 4100, 1.0)
    flux, ivar = np.full(100, 2.0), np.ones(100)
    flux[50], ivar[50] = 1e30, 0
    flux[60] = np.nan
    found, _ = overlaps(wave + 0.3, Grid(kind="linear", start=4000, step=1, size=100))
    actual, known, _ = found(flux, ivar, None)
    np.testing.assert_allclose(actual[known > 0], 2.0, rtol=1e-12)


def test_pixels_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"do not ascend: 1 steps"):
        overlaps(np.repeat(np.arange(4000, 4100, 1.0), [2, *[1] * 99]), LOG)
