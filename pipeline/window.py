"""Window: the pixels around the bands of one index, with the exact share of each in each band.

Axes: N spectra, K pixels of the window, B bands. On a common rest-frame axis all spectra share one
slice; with redshifts each spectrum has a window of its own, and the bands move instead of the data.
Numbers have the precision of the flux; pixel edges are float64 until they are offsets in a window.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Band = tuple[float, float]


class Rows(NamedTuple):
    """Spectra that share an axis."""

    edges: Tensor
    "(L + 1,) float64 pixel edges, vacuum A."
    flux: Tensor
    "(N, L) flux density per A."
    ivar: Tensor | None
    "(N, L) inverse variance, 0 where there is no data; None: all there, with errors unknown."
    covariance: Tensor | None
    "(N, L) factor that correlated neighbours put on the variance of a sum; None: 1."
    stretch: Tensor | None
    "(N,) float64 1 + z, by which the bands move; None: the axis is rest-frame."


class Window(NamedTuple):
    """What one index needs of N spectra."""

    flux: Tensor
    "(N, K); 0 where there is no data."
    variance: Tensor
    "(N, K) variance of one pixel in a sum; 0 where there is no data."
    good: Tensor
    "(N, K); 1 where there is data, else 0."
    rest: Tensor
    "(K,) or (N, K) rest-frame middle of each pixel, vacuum A."
    overlap: tuple[Tensor, ...]
    "B of (K,) or (N, K): rest-frame A of each pixel that lie inside the band."
    seen: tuple[Tensor, ...]
    "B of (N,): rest-frame A of the band that have data."
    outside: Tensor
    "(N,) bool: a band leaves the axis."


def total(pixels: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum over pixels (N, K) with a common (K,) or a row's own (N, K) weight -> (N,)."""
    return pixels @ weight if weight.ndim == 1 else torch.linalg.vecdot(pixels, weight)


def spread(coefficients: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]) -> Tensor:
    """Sum of a row's own coefficient (N,) times weights, as `total` has them -> (N, K)."""
    if weights[0].ndim == 1:
        return torch.stack(coefficients, 1) @ torch.stack(weights)
    first, second = (coefficient[:, None] for coefficient in coefficients)
    return (first * weights[0]).addcmul_(second, weights[1])


def cut(rows: Rows, bands: tuple[Band, ...]) -> Window:
    """The window of rest-frame bands (vacuum A) in N spectra."""
    low, high = min(band[0] for band in bands), max(band[1] for band in bands)
    if rows.stretch is None:
        pick, edges, outside = _common(rows, low, high)
    else:
        pick, edges, outside = _moving(rows, low, high, rows.stretch)
    flux, variance, good = _pixels(rows, pick)
    offset = edges.to(flux.dtype)
    overlap = tuple(torch.diff(offset.clamp(lo - low, hi - low)) for lo, hi in bands)
    seen = tuple(total(good, share) for share in overlap)
    rest = (offset[..., 1:] + offset[..., :-1]).mul_(0.5).add_(low)
    return Window(flux, variance, good, rest, overlap, seen, outside)


Pick = Callable[[Tensor], Tensor]


def _common(rows: Rows, low: float, high: float) -> tuple[Pick, Tensor, Tensor]:
    """How to pick the window, its rest-frame edges from `low` on, and who is outside the axis."""
    pixels = rows.edges.numel() - 1
    span = torch.searchsorted(rows.edges, rows.edges.new_tensor([low, high])).tolist()
    first = min(max(span[0] - 1, 0), pixels - 1)
    last = max(min(span[1], pixels), first + 1)
    outside = low < float(rows.edges[0]) or high > float(rows.edges[-1])
    everywhere = torch.full((rows.flux.shape[0],), outside, device=rows.flux.device)
    return lambda a: a[:, first:last], rows.edges[first : last + 1] - low, everywhere


def _moving(rows: Rows, low: float, high: float, stretch: Tensor) -> tuple[Pick, Tensor, Tensor]:
    """As `_common`, for windows that each row has at its own redshift."""
    edges = rows.edges
    inside = (low * stretch >= edges[0]) & (high * stretch <= edges[-1])
    first = torch.searchsorted(edges, low * stretch, right=True) - 1
    last = torch.searchsorted(edges, high * stretch)
    size = max(int(((last - first) * inside).max()), _most(edges, high / low))
    # Where a band leaves the axis nothing is measured: any window of the right size will do.
    first = torch.where(inside, first, 0).clamp(0, edges.numel() - 1 - size)
    row = torch.arange(len(first), device=first.device)
    own = edges.unfold(0, size + 1, 1)[first].mul_(1 / stretch[:, None]).sub_(low)
    return lambda a: a.unfold(1, size, 1)[row, first], own, ~inside


def _most(edges: Tensor, ratio: float) -> int:
    """Pixels of the longest window between two wavelengths of that ratio, wherever it lies.

    Sums are rounded by how many pixels they run over: that must not depend on who else is there.
    """
    pixels = edges.numel() - 1
    last = int(torch.searchsorted(edges, edges[-1] / ratio)) - 1
    # On even axes, in A or in log A, windows are longest at one of the two ends.
    begins = torch.tensor([0, min(max(last, 0), pixels - 1)], device=edges.device)
    ends = torch.searchsorted(edges, ratio * edges[begins + 1])
    return min(int((ends - begins).max()) + 1, pixels)


def _pixels(rows: Rows, pick: Pick) -> tuple[Tensor, Tensor, Tensor]:
    """Flux, variance and 1 or 0 for data or none."""
    flux = pick(rows.flux)
    flux = flux if flux.dtype == torch.float64 else flux.float()
    if rows.ivar is None:
        return flux, torch.zeros_like(flux), torch.ones_like(flux)
    ivar = pick(rows.ivar).to(flux.dtype)
    # A sum tells cheaply whether any pixel is not finite; `where` on every pixel would cost more
    # than the rest of the measurement.
    if not bool(torch.isfinite(flux.sum() + ivar.sum())):
        ivar = torch.where(torch.isfinite(ivar), ivar, 0.0)
        flux = torch.where(ivar > 0, flux, 0.0)
    ivar = ivar.clamp(min=0.0)
    good = ivar.sign()
    variance = good / ivar.clamp_(min=torch.finfo(flux.dtype).tiny)
    if rows.covariance is not None:
        variance = variance * pick(rows.covariance).to(flux.dtype)
    return flux * good, variance, good
