"""Rebinning of uneven pixels, against the rebinning of even ones and against sums."""

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.resample import Rebinner
from storage.sdss.rebin import edges_of, rebin

SOURCE = Grid(kind="log", start=3.6, step=1.1e-4, size=300)
TARGET = Grid(kind="log", start=3.603, step=1e-4, size=250)


def spectrum() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    ivar = rng.uniform(0.5, 2, SOURCE.size).astype("f4")
    ivar[[20, 100, 101, 102]] = 0
    flux = rng.normal(3, 1, SOURCE.size).astype("f4")
    return flux, ivar, np.zeros(SOURCE.size, dtype="u4")


def test_even_pixels_are_rebinned_as_by_the_rebinner() -> None:
    flux, ivar, mask = spectrum()
    actual = rebin(flux, ivar, mask, SOURCE.edges, TARGET.edges)
    flux_NL, ivar_NL = (torch.from_numpy(array)[None] for array in (flux, ivar))
    one = torch.ones(1, dtype=torch.float64)
    expected = Rebinner(SOURCE, TARGET)(flux_NL, ivar_NL, one, covariance=True)
    for name in ("flux", "ivar", "covariance"):
        np.testing.assert_allclose(
            getattr(actual, name), getattr(expected, name)[0], rtol=3e-3, atol=1e-3, err_msg=name
        )


def test_flux_is_conserved_on_uneven_pixels() -> None:
    centre = np.sort(np.random.default_rng(1).uniform(3.6, 3.61, 60))
    edges = edges_of(centre)
    flux = np.random.default_rng(2).uniform(1, 2, 60)
    coarse = np.linspace(edges[0], edges[-1], 9)
    made = rebin(flux, np.ones(60), np.zeros(60, "u4"), edges, coarse)
    assert made.flux @ np.diff(coarse) == pytest.approx(flux @ np.diff(edges), rel=1e-12)
    # The sum has the variance of its parts, once neighbours' shared noise is counted.
    weight = np.diff(coarse)
    assert (made.covariance / made.ivar).sum() > 0
    total = 1 / made.ivar[0] * made.covariance[0] * weight[0]
    assert total == pytest.approx(_variance(edges, coarse), rel=1e-9)


def _variance(edges: np.ndarray, coarse: np.ndarray) -> float:
    """Covariance of the first coarse pixel with all, times width: from the matrix itself."""
    low, high = np.maximum.outer(coarse[:-1], edges[:-1]), np.minimum.outer(coarse[1:], edges[1:])
    share = np.clip(high - low, 0, None) / np.diff(coarse)[:, None]
    return float((share @ share.T)[0].sum() * np.diff(coarse)[0])


def test_a_masked_pixel_never_bleeds() -> None:
    flux, ivar, mask = spectrum()
    wild = flux.copy()
    wild[ivar == 0] = 1e30
    mask[ivar == 0] = 4
    calm, made = (rebin(f, ivar, mask, SOURCE.edges, TARGET.edges) for f in (flux, wild))
    np.testing.assert_array_equal(made.flux, calm.flux)
    assert (made.ivar == 0).sum() == 3
    assert (made.flux[made.ivar == 0] == 0).all()
    assert set(np.unique(made.mask)) == {0, 4}
    assert (made.mask[made.ivar == 0] == 4).all()


def test_beyond_the_source_there_is_no_data() -> None:
    flux, ivar, mask = spectrum()
    away = Grid(kind="log", start=3.5, step=1e-4, size=50)
    made = rebin(flux, ivar, mask, SOURCE.edges, away.edges)
    assert not made.ivar.any()
    assert not made.flux.any()


def test_edges_lie_halfway_between_centres() -> None:
    np.testing.assert_allclose(
        edges_of(np.array([0.0, 1.0, 3.0])), 10.0 ** np.array([-0.5, 0.5, 2, 4])
    )
