"""Window: the pixels around the bands of one index, with the exact share of each in each band.

Axes: N spectra, K pixels of a band or of the window, B bands. On a common rest-frame axis all
spectra share one slice; with redshifts each spectrum has pixels of its own, and the bands move
instead of the data. Numbers have the precision of the flux; pixel edges are float64 until they are
offsets from a band.

What comes out for a spectrum does not depend, to the last bit, on those beside it: K follows from
the axis alone, sums run along rows, and all else is rounded once (products, quotients, roots).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

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


class Part(NamedTuple):
    """The pixels of one band; where bands move, with some beyond its ends that have no share."""

    share: Tensor
    "(N, K) rest-frame A of each pixel that lie inside the band and have data."
    light: Tensor
    "(N, K) flux density times share."
    ivar: Tensor
    "(N, K) inverse variance of one pixel in a sum; above 0 also where there is no share."
    offset: Tensor
    "(K + 1,) or (N, K + 1) rest-frame edges of the pixels, A from the begin of the band on."
    low: float
    "Where the band begins, rest-frame vacuum A."

    @property
    def middle(self) -> Tensor:
        """(K,) or (N, K) rest-frame middle of each pixel, A from the begin of the band on."""
        return (self.offset[..., 1:] + self.offset[..., :-1]).mul_(0.5)

    def of(self, band: Band) -> Tensor:
        """(K,) or (N, K) rest-frame A of each pixel that lie inside another band."""
        return _inside(self.offset, band[0] - self.low, band[1] - self.low)


@dataclass(frozen=True, kw_only=True)
class Window:
    """What one index needs of N spectra: band by band, or all pixels from first band to last."""

    rows: Rows
    bands: tuple[Band, ...]
    "B rest-frame bands, vacuum A."
    parts: tuple[Part, ...]
    "B, in the order of the bands."
    outside: Tensor
    "(N,) bool: a band leaves the axis."

    @cached_property
    def seen(self) -> tuple[Tensor, ...]:
        """B of (N,): rest-frame A of the band that have data."""
        return tuple(part.share.sum(-1) for part in self.parts)

    @property
    def missing(self) -> Tensor:
        """(N,) largest share of a band without data; 0 where a band leaves the axis."""
        pairs = zip(self.seen, self.bands, strict=True)
        most = torch.stack([seen / -(high - low) for seen, (low, high) in pairs]).amax(0).add_(1)
        return most.masked_fill_(self.outside, 0.0)

    def touch(self, one: int, other: int) -> bool:
        """Whether a pixel may lie in two bands."""
        early, late = sorted((self.bands[one], self.bands[other]))
        return early[1] > late[0] or _most(self.rows.edges, early[1] / late[0]) > 0

    @cached_property
    def _whole(self) -> "_Whole":
        return _whole(self.rows, self.bands, self.outside)

    @cached_property
    def flux(self) -> Tensor:
        """(N, K) of the whole window; 0 where there is no data."""
        return self._whole.flux

    @cached_property
    def variance(self) -> Tensor:
        """(N, K) variance of one pixel in a sum; 0 where there is no data."""
        return self._whole.variance

    @cached_property
    def good(self) -> Tensor:
        """(N, K); 1 where there is data, else 0."""
        return self._whole.good

    @cached_property
    def rest(self) -> Tensor:
        """(K,) or (N, K) rest-frame middle of each pixel, vacuum A."""
        offset = self._whole.offset
        return (offset[..., 1:] + offset[..., :-1]).mul_(0.5).add_(_span(self.bands)[0])

    @cached_property
    def overlap(self) -> tuple[Tensor, ...]:
        """B of (K,) or (N, K): rest-frame A of each pixel that lie inside the band."""
        begin = _span(self.bands)[0]
        return tuple(_inside(self._whole.offset, a - begin, b - begin) for a, b in self.bands)

    def _replace(self, **made: Any) -> Self:
        """This window with something else in place of what it found; the rest stays as found."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__ | made)
        return other


def total(pixels: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum over pixels (N, K) with a common (K,) or a row's own (N, K) weight -> (N,)."""
    return (pixels * weight).sum(-1)


def cut(rows: Rows, bands: tuple[Band, ...]) -> Window:
    """The window of rest-frame bands (vacuum A) in N spectra."""
    (low, high), first, last = _span(bands), rows.edges[0], rows.edges[-1]
    if rows.stretch is None:
        outside = ((low < first) | (high > last)).expand(len(rows.flux))
    else:
        outside = ~((low * rows.stretch >= first) & (high * rows.stretch <= last))
    parts = tuple(_part(rows, band, outside) for band in bands)
    return Window(rows=rows, bands=bands, parts=parts, outside=outside)


Pick = Callable[[Tensor], Tensor]


class _Whole(NamedTuple):
    flux: Tensor
    variance: Tensor
    good: Tensor
    offset: Tensor
    "From the begin of the first band on."


def _span(bands: tuple[Band, ...]) -> Band:
    return min(band[0] for band in bands), max(band[1] for band in bands)


def _inside(offset: Tensor, low: float, high: float) -> Tensor:
    """Length of each pixel between two offsets."""
    return torch.diff(offset.clamp(low, high))


def _part(rows: Rows, band: Band, outside: Tensor) -> Part:
    pick, edges = _pixels(rows, band, outside)
    flux, ivar = _values(rows, pick)
    offset = edges.to(flux.dtype)
    overlap = _inside(offset, 0.0, band[1] - band[0])
    if ivar is None:
        unknown = flux.new_full((1, 1), torch.inf)
        return Part(overlap.expand(flux.shape), flux * overlap, unknown, offset, band[0])
    least = torch.finfo(flux.dtype).tiny
    ivar = ivar.clamp(min=least)
    share = (ivar - least).sign_().mul_(overlap)
    if rows.covariance is not None:
        ivar /= pick(rows.covariance).clamp(min=least)
    return Part(share, flux * share, ivar, offset, band[0])


def _whole(rows: Rows, bands: tuple[Band, ...], outside: Tensor) -> _Whole:
    pick, edges = _pixels(rows, _span(bands), outside)
    flux, ivar = _values(rows, pick)
    offset = edges.to(flux.dtype)
    if ivar is None:
        return _Whole(flux, torch.zeros_like(flux), torch.ones_like(flux), offset)
    ivar = ivar.clamp(min=0.0)
    good = ivar.sign()
    variance = good / ivar.clamp_(min=torch.finfo(flux.dtype).tiny)
    if rows.covariance is not None:
        variance = variance * pick(rows.covariance).to(flux.dtype)
    return _Whole(flux * good, variance, good, offset)


def _values(rows: Rows, pick: Pick) -> tuple[Tensor, Tensor | None]:
    """Flux and inverse variance, both finite: what is no number is no data.

    The inverse variance is None where there is none and all of the flux is there.
    """
    flux = pick(rows.flux)
    flux = flux if flux.dtype == torch.float64 else flux.float()
    ivar = None if rows.ivar is None else pick(rows.ivar).to(flux.dtype)
    # A sum tells cheaply whether any pixel is not finite; `where` on every pixel would cost more
    # than the rest of the measurement.
    if not math.isfinite(flux.sum() + (0.0 if ivar is None else ivar.sum())):
        there = torch.isfinite(flux)
        ivar = there.to(flux.dtype) if ivar is None else ivar
        ivar = torch.where(there & torch.isfinite(ivar), ivar, 0.0)
        flux = torch.where(ivar > 0, flux, 0.0)
    return flux, ivar


def _pixels(rows: Rows, band: Band, outside: Tensor) -> tuple[Pick, Tensor]:
    """How to pick the pixels of a band, and their rest-frame edges from its begin on."""
    edges, (low, high), pixels = rows.edges, band, rows.edges.numel() - 1
    if rows.stretch is None:
        span = torch.searchsorted(edges, edges.new_tensor(band)).tolist()
        first = min(max(span[0] - 1, 0), pixels - 1)
        last = max(min(span[1], pixels), first + 1)
        return lambda a: a[:, first:last], edges[first : last + 1] - low
    size = _most(edges, high / low)
    begin = torch.searchsorted(edges, low * rows.stretch, right=True) - 1
    # Where a band leaves the axis nothing is measured: any pixels will do.
    begin = begin.masked_fill_(outside, 0).clamp_(0, pixels - size)
    row = torch.arange(len(begin), device=begin.device)
    own = edges.unfold(0, size + 1, 1)[begin].mul_(1 / rows.stretch[:, None]).sub_(low)
    return lambda a: a.unfold(1, size, 1)[row, begin], own


def _most(edges: Tensor, ratio: float) -> int:
    """Most pixels that two wavelengths of that ratio, and what is between them, can lie in.

    Sums are rounded by how many pixels they run over: that must not depend on who else is there.
    A ratio below 1 is a gap; 0 pixels where it is wider than any pixel.
    """
    (begin, second), (last, end) = edges[:2].tolist(), edges[-2:].tolist()
    # Even in A, windows are longest at the red end; in log A, this bound is longest at the blue.
    longest = max((1 - 1 / ratio) * end / (end - last), (ratio - 1) * begin / (second - begin))
    return 0 if longest < -1 else min(int(longest * (1 + 1e-6)) + 2, edges.numel() - 1)
