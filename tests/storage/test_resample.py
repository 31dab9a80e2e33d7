"""Rebinning against dense overlap matrices, cumulative integrals and random draws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.grid import Grid
from storage.resample import Rebinned, Rebinner, rebinner

Float = NDArray[np.float64]

LOG = Grid(kind="log", start=3.7, step=1e-4, size=470)
COARSE_LOG = Grid(kind="log", start=3.705, step=4e-4, size=90)
ANGSTROM = Grid(kind="linear", start=5050, step=1, size=400)
FINE = Grid(kind="linear", start=5100, step=0.3, size=500)
BROAD = Grid(kind="linear", start=5000, step=17.3, size=30)
PAIRS = [
    (LOG, ANGSTROM),
    (ANGSTROM, LOG),
    (LOG, COARSE_LOG),
    (COARSE_LOG, FINE),
    (ANGSTROM, FINE),
    (ANGSTROM, BROAD),
    (FINE, BROAD),
    (LOG, LOG),
]


def overlaps(source: Grid, target: Grid, stretch: float) -> Float:
    """(P, L) A that a target and a source pixel share."""
    low = np.maximum(target.edges[:-1, None] * stretch, source.edges[None, :-1])
    high = np.minimum(target.edges[1:, None] * stretch, source.edges[None, 1:])
    return np.clip(high - low, 0, None)


def spectrum(grid: Grid, seed: int = 0, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    flux = draw.normal(5, 1, (rows, grid.size)).astype(np.float32)
    ivar = draw.uniform(0.5, 2, flux.shape).astype(np.float32)
    gone = draw.random(flux.shape) < 0.1
    return torch.from_numpy(np.where(gone, 0, flux)), torch.from_numpy(np.where(gone, 0, ivar))


def rebin(source: Grid, target: Grid, z: float = 0.0, covariance: bool = False) -> Rebinned:
    flux, ivar = spectrum(source)
    stretch = torch.full((len(flux),), 1 + z, dtype=torch.float64)
    return rebinner(source, target)(flux, ivar, stretch, covariance=covariance)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@settings(max_examples=15, deadline=None)
@given(z=st.floats(-0.02, 0.3))
def test_any_grid_to_any_other_is_the_dense_overlap_matrix(
    source: Grid, target: Grid, z: float
) -> None:
    flux, ivar = (part.double().numpy() for part in spectrum(source))
    actual = rebin(source, target, z, covariance=True)
    assert actual.covariance is not None
    shared = overlaps(source, target, 1 + z)
    for row in range(len(flux)):
        good = shared * (ivar[row] > 0)
        covered = good.sum(axis=1)
        share = covered / (target.widths * (1 + z))
        keep = actual.ivar[row].numpy() > 0
        sure = np.abs(share - 0.5) > 1e-4
        np.testing.assert_array_equal(keep[sure], share[sure] > 0.5)
        weight = good[keep] / covered[keep, None]
        noise = np.where(ivar[row] > 0, 1 / np.where(ivar[row] > 0, ivar[row], 1), 0)
        matrix = (weight * noise) @ weight.T
        np.testing.assert_allclose(actual.flux[row, keep], weight @ flux[row], rtol=1e-5)
        np.testing.assert_allclose(actual.ivar[row, keep], 1 / np.diag(matrix), rtol=1e-4)
        factor = matrix.sum(axis=1) / np.diag(matrix)
        np.testing.assert_allclose(actual.covariance[row, keep], factor, rtol=1e-4)
        assert (actual.flux[row, ~keep] == 0).all()
        assert (actual.covariance[row, ~keep] == 0).all()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_flux_is_the_difference_of_cumulative_integrals(source: Grid, target: Grid) -> None:
    flux = torch.from_numpy(np.random.default_rng(1).normal(5, 1, (1, source.size))).float()
    stretch = 1.01
    integral = np.concatenate([[0], np.cumsum(flux[0].double().numpy() * source.widths)])
    edges = target.edges * stretch
    inside = (edges[:-1] >= source.edges[0]) & (edges[1:] <= source.edges[-1])
    expected = np.diff(np.interp(edges, source.edges, integral)) / np.diff(edges)
    actual = rebinner(source, target)(
        flux, torch.ones_like(flux), torch.tensor([stretch], dtype=torch.float64)
    )
    np.testing.assert_allclose(actual.flux[0, inside], expected[inside], rtol=1e-5)


def test_constant_stays_constant() -> None:
    flux = torch.full((2, LOG.size), 3.25)
    stretch = torch.tensor([1.0, 1.01], dtype=torch.float64)
    actual = rebinner(LOG, ANGSTROM)(flux, torch.ones_like(flux), stretch)
    covered = actual.ivar > 0
    assert covered.sum() > 500
    np.testing.assert_allclose(actual.flux[covered], 3.25, rtol=1e-6)


def test_ramp_stays_a_ramp() -> None:
    fives = Grid(kind="linear", start=5062, step=5, size=70)
    flux = torch.from_numpy(ANGSTROM.wavelength[None] - 5000).float()
    actual = rebinner(ANGSTROM, fives)(flux, torch.ones_like(flux), torch.ones(1))
    np.testing.assert_allclose(actual.flux[0], fives.wavelength - 5000, rtol=1e-6)


@pytest.mark.parametrize("z", [0.0, 0.003, 0.0123])
def test_flux_of_a_line_is_conserved(z: float) -> None:
    centre, sigma = 5230.0, 3.0
    line = np.exp(-0.5 * ((LOG.wavelength - centre * (1 + z)) / sigma) ** 2)
    flux = torch.from_numpy(line[None]).float()
    stretch = torch.tensor([1 + z], dtype=torch.float64)
    actual = rebinner(LOG, ANGSTROM)(flux, torch.ones_like(flux), stretch).flux[0]
    expected = (flux[0].double().numpy() * LOG.widths).sum()
    assert actual.double().sum().item() * (1 + z) == pytest.approx(expected, rel=1e-6)


def test_scatter_of_pixels_and_of_sums_is_what_ivar_and_covariance_say() -> None:
    draw = np.random.default_rng(2)
    rows = 4000
    sigma = draw.uniform(0.5, 1.5, LOG.size)
    noise = torch.from_numpy(draw.normal(0, sigma, (rows, LOG.size))).float()
    ivar = torch.from_numpy(1 / sigma**2).float().expand_as(noise)
    stretch = torch.full((rows,), 1.002, dtype=torch.float64)
    binned = rebinner(LOG, ANGSTROM)(noise, ivar, stretch, covariance=True)
    assert binned.covariance is not None
    used = slice(0, 360)
    flux, weight = binned.flux[:, used], binned.ivar[0, used]
    pulls = flux * weight.sqrt()
    assert pulls.std().item() == pytest.approx(1, rel=0.02)
    sums = flux.reshape(rows, -1, 20).sum(dim=2)
    variance = (binned.covariance[0, used] / weight).reshape(-1, 20).sum(dim=1)
    ratio = sums.std(dim=0) / variance.sqrt()
    assert ratio.mean().item() == pytest.approx(1, rel=0.03)
    smooth = rebinner(LOG, ANGSTROM)(noise[:1], ivar[:1], stretch[:1], smooth=True)
    inner = slice(1, 360)
    torch.testing.assert_close(
        smooth.ivar[0, inner], weight[1:] / binned.covariance[0, inner], rtol=1e-3, atol=0
    )
    # Taken for independent, the pixels would promise far less scatter than there is.
    assert (binned.covariance[0, used] > 1.2).float().mean() > 0.9


@pytest.mark.parametrize("rubbish", [1e9, -1e37, np.nan, np.inf])
def test_masked_pixel_never_bleeds(rubbish: float) -> None:
    flux, ivar = spectrum(LOG)
    stretch = torch.full((3,), 1.004, dtype=torch.float64)
    gain = torch.full_like(flux, 20.0)
    clean = rebinner(LOG, ANGSTROM)(flux, ivar, stretch, gain=gain, covariance=True)
    dirty = torch.where(ivar == 0, rubbish, flux)
    actual = rebinner(LOG, ANGSTROM)(dirty, ivar, stretch, gain=gain, covariance=True)
    for one, other in zip(actual, clean, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -1.0])
def test_ivar_that_is_none_is_no_data(rubbish: float) -> None:
    flux, ivar = spectrum(LOG)
    stretch = torch.ones(3)
    clean = rebinner(LOG, ANGSTROM)(flux, ivar, stretch)
    actual = rebinner(LOG, ANGSTROM)(flux, torch.where(ivar == 0, rubbish, ivar), stretch)
    assert torch.equal(actual.flux, clean.flux)
    assert torch.equal(actual.ivar, clean.ivar)


def test_pixel_needs_half_of_its_width() -> None:
    fours = Grid(kind="linear", start=5101.5, step=4, size=3)
    flux, ivar = torch.ones((1, ANGSTROM.size)), torch.ones((1, ANGSTROM.size))
    #        pixel 0      pixel 1       pixel 2
    # 5100:  g g g g      - - g g       - - - g
    for masked in (54, 55, 58, 59, 60):
        ivar[0, masked] = 0
    actual = rebinner(ANGSTROM, fours)(flux, ivar, torch.ones(1))
    assert actual.flux[0].tolist() == [1, 1, 0]
    assert actual.ivar[0].tolist() == [4, 2, 0]


def test_gain_multiplies_flux_and_error() -> None:
    flux, ivar = spectrum(LOG)
    stretch = torch.ones(3)
    gain = torch.linspace(1, 2, LOG.size).expand_as(flux)
    expected = rebinner(LOG, ANGSTROM)(flux * gain, ivar / gain**2, stretch)
    actual = rebinner(LOG, ANGSTROM)(flux, ivar, stretch, gain=gain)
    torch.testing.assert_close(actual.flux, expected.flux)
    torch.testing.assert_close(actual.ivar, expected.ivar)


@pytest.mark.parametrize("source", [LOG, ANGSTROM])
@pytest.mark.parametrize("stretch", [1e-6, 0.5, 2.0, 1e12])
def test_spectrum_elsewhere_leaves_nothing(source: Grid, stretch: float) -> None:
    flux, ivar = spectrum(source)
    factors = torch.full((3,), stretch, dtype=torch.float64)
    actual = rebinner(source, FINE)(flux, ivar, factors, covariance=True)
    assert actual.covariance is not None
    for part in actual:
        assert part is not None
        assert (part == 0).all()
    assert (rebinner(source, FINE).mean(flux, factors) == 0).all()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_mean_is_the_flux_of_good_pixels(source: Grid, target: Grid) -> None:
    flux, _ = spectrum(source)
    stretch = torch.tensor([1.0, 1.01, 1.03], dtype=torch.float64)
    expected = rebinner(source, target)(flux, torch.ones_like(flux), stretch).flux
    torch.testing.assert_close(rebinner(source, target).mean(flux, stretch), expected)


def test_grid_at_zero_wavelength_is_refused() -> None:
    with pytest.raises(ValueError, match="expected above 0 A"):
        Rebinner(Grid(kind="linear", start=0, step=1, size=5), LOG)


@pytest.mark.parametrize("min_good", [0.0, 1.5])
def test_min_good_is_a_share(min_good: float) -> None:
    flux, ivar = spectrum(LOG)
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        rebinner(LOG, ANGSTROM)(flux, ivar, torch.ones(3), min_good=min_good)
