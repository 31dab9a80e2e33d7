"""Flux-conserving rebinning from any grid to any other, each spectrum at its own redshift.

A target pixel is the mean of the source pixels it overlaps, weighted by the exact overlap in A.
It touches few of them (three when 1e-4 dex becomes 1 A), so the sum is written out tap by tap:
no cumulative sum, and so nothing of a pixel leaks beyond the pixels that overlap it.

Axes: N spectra, L source pixels, P target pixels.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from storage.grid import Grid

# Below this an inverse variance is taken to be this: 1/ivar and its sums stay finite in float32.
_FAINTEST = 1e-30
# Divisor of what is 0 anyway.
_LEAST = 1e-37


class Rebinned(NamedTuple):
    """Spectra on the target grid."""

    flux: Tensor
    "(N, P) float32; mean flux density of the good overlap, 0 where there is none."
    ivar: Tensor
    "(N, P) float32; inverse variance of one pixel, 0 where there is no data."
    covariance: Tensor | None = None
    """(N, P) float32: sum of a row of the covariance matrix over its diagonal, so that a smooth
    weighting g has var(sum g_j f_j) = sum g_j^2 covariance_j / ivar_j; 0 where no data."""


class _Overlaps(NamedTuple):
    """Where target pixels lie among source pixels, in pixels from the first one they touch."""

    first: Tensor
    "(N * P,) int64: first source pixel touched, counted through the padded table of all rows."
    begin: Tensor
    "(N, P): part of the first source pixel that lies before the target pixel."
    reach: Tensor
    "(N, P): end of the target pixel."
    full: Tensor
    "(N, P): width of the target pixel, in widths of the first source pixel."
    taps: int
    "How many source pixels a target pixel may touch; as many pad a row of the table at each end."


class Rebinner:
    """Rebins from one grid to another; made once, used for any spectra.

    ``stretch`` (N,) is what target wavelengths are multiplied by to be source wavelengths:
    1 + z from observed to rest frame, 1 / (1 + z) back.

    Raises
    ------
    ValueError
        When a grid reaches wavelengths of 0 or less.
    """

    def __init__(self, source: Grid, target: Grid) -> None:
        for grid in (source, target):
            if not grid.edges[0] > 0:
                raise ValueError(f"{grid!r}: starts at {grid.edges[0]:g} A; expected above 0 A")
        self.source, self.target = source, target
        log = source.kind == "log"
        self._growth = 10.0**source.step if log else 1.0
        edges = target.edges
        # Edge number i of the source is at position i. float64: float32 loses the pixel.
        self._position = torch.from_numpy((np.log10(edges) if log else edges) / source.step)
        self._origin = source.start / source.step - 0.5
        width = edges[:-1] * (self._growth - 1) if log else source.step
        self._width = torch.from_numpy(target.widths / width).float()
        "(P,) of target pixels, in widths of a source pixel that begins where they do."

    def __call__(
        self,
        flux: Tensor,
        ivar: Tensor,
        stretch: Tensor,
        *,
        gain: Tensor | None = None,
        min_good: float = 0.5,
        covariance: bool = False,
    ) -> Rebinned:
        """Rebin spectra with their errors.

        Parameters
        ----------
        flux, ivar : (N, L) float32
            Flux density and inverse variance of independent pixels; where ivar is 0, or one of
            the two is not finite, there is no data, whatever stands there.
        stretch : (N,) float64
            Target to source wavelengths; finite and above 0.
        gain : (N, L) float32, optional
            Multiplies flux and its error first; above 0.
        min_good : float
            Share of its width that a target pixel needs in good source pixels, above 0.
        covariance : bool
            Whether the covariance factor is wanted.

        Raises
        ------
        ValueError
            When `min_good` is not in (0, 1].

        Notes
        -----
        With overlaps o_ji (A) of good pixels only: f_j = sum_i o_ji F_i / S_j, S_j = sum_i o_ji,
        1/ivar_j = sum_i o_ji^2 / ivar_i / S_j^2.
        """
        if not 0 < min_good <= 1:
            raise ValueError(f"min_good is {min_good}; expected above 0 and at most 1")
        taps = self._taps(stretch)
        overlaps = self._overlaps(stretch, taps, (-taps, self.source.size + taps))
        value, variance = _tables(flux, ivar, gain, taps)
        total, covered, spread = overlaps.full.new_zeros((3, *overlaps.full.shape)).unbind()
        noise, other = torch.empty_like(covered), torch.empty_like(covered)
        for tap, growth, overlap in self._weights(overlaps):
            _tap(variance, overlaps, tap, out=noise)
            # Signs and products, no masks: torch is five times slower on booleans.
            overlap.mul_(torch.sign(noise, out=other))
            covered.add_(overlap, alpha=growth)
            total.addcmul_(overlap, _tap(value, overlaps, tap, out=other), value=growth)
            spread.addcmul_(overlap.square_(), noise, value=growth**2)
        keep = _enough(covered, overlaps.full, min_good)
        flux_NP = total.div_(covered.clamp_(min=_LEAST)).mul_(keep)
        ivar_NP = covered.square().div_(spread.clamp_(min=_LEAST)).mul_(keep)
        if not covariance:
            return Rebinned(flux_NP, ivar_NP)
        return Rebinned(flux_NP, ivar_NP, self._covariance(overlaps, variance, covered, keep))

    def mean(self, values: Tensor, stretch: Tensor, min_good: float = 0.5) -> Tensor:
        """Overlap-weighted mean (N, P) of values (N, L) that are all good; 0 outside them."""
        taps = self._taps(stretch)
        overlaps = self._overlaps(stretch, taps, (0, self.source.size))
        table = _blank(values, taps)
        table[:, taps : taps + self.source.size] = values
        total, covered = (torch.zeros_like(overlaps.full) for _ in range(2))
        for tap, growth, overlap in self._weights(overlaps):
            covered.add_(overlap, alpha=growth)
            total.addcmul_(overlap, _tap(table, overlaps, tap), value=growth)
        keep = _enough(covered, overlaps.full, min_good)
        return total.div_(covered.clamp_(min=_LEAST)).mul_(keep)

    def _overlaps(self, stretch: Tensor, taps: int, limits: tuple[int, int]) -> _Overlaps:
        position = self._position.to(stretch.device)
        scale = stretch.double()[:, None]
        # Beyond the source lie `taps` pixels without data: its ends need no special case.
        if self.source.kind == "log":
            place = position + (scale.log10() / self.source.step - self._origin + taps)
        else:
            place = (position * scale).add_(taps - self._origin)
        place.clamp_(limits[0] + taps, limits[1] + taps)
        whole = place.floor()
        part = self._linear(place.sub_(whole).float())
        reach = (whole[:, 1:] - whole[:, :-1]).float().add_(part[:, 1:])
        begin = part[:, :-1]
        width = self._width.to(stretch.device)
        if self.source.kind == "log":
            full = torch.addcmul(width, begin, width, value=self._growth - 1)
        else:
            full = width * scale.float()
        rows = torch.arange(len(stretch), device=stretch.device)[:, None]
        first = whole[:, :-1].add_(rows * (self.source.size + 2 * taps)).int()
        return _Overlaps(first.flatten(), begin, reach, full, taps)

    def _linear(self, part: Tensor) -> Tensor:
        """Part of a source pixel in A, of its part in the grid's own scale.

        (q^part - 1) / (q - 1) for pixels that grow by q, as a series in ln q: sums and products
        round alike wherever they stand in a vector; torch.exp2 does not.
        """
        if self.source.kind == "linear":
            return part
        rate = math.log(self._growth)
        coefficients = [rate / (self._growth - 1)]
        while coefficients[-1] > 1e-9:
            coefficients.append(coefficients[-1] * rate / (len(coefficients) + 1))
        series = part * coefficients.pop()
        while coefficients:
            series.add_(coefficients.pop()).mul_(part)
        return series

    def _taps(self, stretch: Tensor) -> int:
        edges = self.target.edges
        if self.source.kind == "log":
            return int(np.diff(np.log10(edges)).max() / self.source.step) + 2
        # A target stretched beyond the source touches none of it.
        most = min(float(stretch.max()), self.source.edges[-1] / edges[0])
        return int(self.target.widths.max() * most / self.source.step) + 2

    def _weights(self, overlaps: _Overlaps) -> Iterator[tuple[int, float, Tensor]]:
        """Tap, width of its pixel in first ones, and the part of it that is overlapped."""
        # One tensor for all taps, and so in the methods above: memory just used is in cache.
        overlap = overlaps.reach.clamp(max=1).sub_(overlaps.begin)
        yield 0, 1.0, overlap
        for tap in range(1, overlaps.taps):
            yield tap, self._growth**tap, torch.sub(overlaps.reach, tap, out=overlap).clamp_(0, 1)

    def _covariance(
        self, overlaps: _Overlaps, variance: Tensor, covered: Tensor, keep: Tensor
    ) -> Tensor:
        # C_jk = sum_i a_ji a_ki var_i with a = o / S: a row's sum needs the columns' sums of a.
        share = keep / covered
        column = torch.zeros_like(variance)
        for tap, growth, overlap in self._weights(overlaps):
            part = overlap.mul_(share).mul_(growth)
            column.view(-1)[tap:].scatter_add_(0, overlaps.first.long(), part.flatten())
        row, diagonal = (torch.zeros_like(covered) for _ in range(2))
        for tap, growth, overlap in self._weights(overlaps):
            noise = _tap(variance, overlaps, tap)
            row.addcmul_(overlap * noise, _tap(column, overlaps, tap), value=growth)
            diagonal.addcmul_(overlap.square_(), noise, value=growth**2)
        return row.mul_(covered).div_(diagonal.clamp_(min=_LEAST)).mul_(keep)


@lru_cache(maxsize=32)
def rebinner(source: Grid, target: Grid) -> Rebinner:
    """The `Rebinner` of two grids, made once."""
    return Rebinner(source, target)


def _tables(flux: Tensor, ivar: Tensor, gain: Tensor | None, pad: int) -> tuple[Tensor, Tensor]:
    """Flux and variance after gain, padded; variance is 0 where there is no data."""
    # One pass finds anything that is not finite: 0 x inf is none either.
    if not bool(torch.isfinite(torch.dot(flux.flatten(), ivar.flatten()))):
        good = torch.isfinite(flux) & torch.isfinite(ivar)
        flux, ivar = torch.where(good, flux, 0), torch.where(good, ivar, 0)
    ivar = ivar.clamp(min=0)
    good = ivar.sign()
    value, variance = _blank(flux, pad), _blank(flux, pad)
    inside = slice(pad, pad + flux.shape[1])
    factor = torch.ones_like(flux[:, :1]) if gain is None else gain
    noise = torch.div(good, ivar.clamp_(min=_FAINTEST), out=variance[:, inside])
    noise.mul_(factor).mul_(factor)
    torch.mul(flux, good.mul_(factor), out=value[:, inside])
    return value, variance


def _blank(values: Tensor, pad: int) -> Tensor:
    return values.new_zeros((len(values), values.shape[1] + 2 * pad))


def _tap(table: Tensor, overlaps: _Overlaps, tap: int, out: Tensor | None = None) -> Tensor:
    """(N, P) values of one tap; the table moves, not the index: no second index in memory."""
    found = torch.empty_like(overlaps.full) if out is None else out
    torch.index_select(table.view(-1)[tap:], 0, overlaps.first, out=found.view(-1))
    return found


def _enough(covered: Tensor, full: Tensor, min_good: float) -> Tensor:
    """1 where the good part of a pixel is at least `min_good` of it (to 1e-6), else 0."""
    return covered.sub(full, alpha=min_good * (1 - 1e-6)).sign_().clamp_(min=0)
