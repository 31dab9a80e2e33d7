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
    "(N, P) float32; inverse variance of one pixel, or of smooth sums; 0 where there is no data."
    covariance: Tensor | None = None
    """(N, P) float32: sum of a row of the covariance matrix over its diagonal, so that a smooth
    weighting g has var(sum g_j f_j) = sum g_j^2 covariance_j / ivar_j; 0 where no data."""


class _Overlaps(NamedTuple):
    """Where target pixels lie among source pixels, in pixels from the first one they touch."""

    first: Tensor
    "(N * P,) int: first source pixel touched, counted through the padded table of all rows."
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
        place = self._position - self._origin
        self._split = torch.stack([place.floor(), place - place.floor()]).float()
        # Source pixels per target pixel, unstretched; the stretch that leaves the source behind.
        self._broadest = float(self._position.diff().max())
        self._farthest = float(source.edges[-1] / edges[0])
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
        smooth: bool = False,
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
        smooth : bool
            Whether ivar is wanted of sums over neighbours instead of one pixel: what independent
            pixels would need for sums with smooth weights to have the right error. It is
            ivar / covariance, and costs what ivar costs; next to a gap, where `covariance` is
            exact, it takes the pixel beyond for whole.

        Raises
        ------
        ValueError
            When `min_good` is not in (0, 1].

        Notes
        -----
        With overlaps o_ji (A) of good pixels only, w_i and W_j widths of source and target pixels:
        f_j = sum_i o_ji F_i / S_j, S_j = sum_i o_ji, 1/ivar_j = sum_i o_ji^2 / ivar_i / S_j^2;
        smooth: 1/ivar_j = sum_i o_ji w_i / ivar_i / (S_j W_j).
        """
        if not 0 < min_good <= 1:
            raise ValueError(f"min_good is {min_good}; expected above 0 and at most 1")
        taps = self._taps(stretch)
        overlaps = self._overlaps(stretch, taps, lowest=-taps)
        value, variance = _tables(flux, ivar, gain, taps)
        total, covered, spread = (torch.zeros_like(overlaps.reach) for _ in range(3))
        for tap, growth, overlap in self._weights(overlaps):
            noise = _tap(variance, overlaps, tap)
            # Signs and products, no masks: torch is five times slower on booleans.
            overlap.mul_(noise.sign())
            covered.add_(overlap, alpha=growth)
            total.addcmul_(overlap, _tap(value, overlaps, tap), value=growth)
            spread.addcmul_(overlap if smooth else overlap.square_(), noise, value=growth**2)
        keep = _enough(covered, overlaps.full, min_good)
        flux_NP = total.div_(covered.clamp_(min=_LEAST)).mul_(keep)
        breadth = overlaps.full if smooth else covered
        ivar_NP = (covered * breadth).div_(spread.clamp_(min=_LEAST)).mul_(keep)
        if not covariance:
            return Rebinned(flux_NP, ivar_NP)
        return Rebinned(flux_NP, ivar_NP, self._covariance(overlaps, variance, covered, keep))

    def mean(self, values: Tensor, stretch: Tensor, min_good: float = 0.5) -> Tensor:
        """Overlap-weighted mean (N, P) of values (N, L) that are all good; 0 outside them."""
        taps = self._taps(stretch)
        overlaps = self._overlaps(stretch, taps, lowest=0)
        table = _blank(values, taps)
        table[:, taps : taps + self.source.size] = values
        total, covered = (torch.zeros_like(overlaps.reach) for _ in range(2))
        for tap, growth, overlap in self._weights(overlaps):
            covered.add_(overlap, alpha=growth)
            total.addcmul_(overlap, _tap(table, overlaps, tap), value=growth)
        keep = _enough(covered, overlaps.full, min_good)
        return total.div_(covered.clamp_(min=_LEAST)).mul_(keep)

    def _overlaps(self, stretch: Tensor, taps: int, lowest: int) -> _Overlaps:
        whole, part = self._places(stretch)
        # Beyond the source lie `taps` pixels without data: its ends need no special case.
        inside = whole.clamp(lowest, self.source.size - 1)
        part.add_(whole.sub_(inside)).clamp_(0, 1)
        part = self._linear(part)
        begin = part[:, :-1]
        reach = (inside[:, 1:] - inside[:, :-1]).add_(part[:, 1:])
        width = self._width.to(stretch.device)
        if self.source.kind == "log":
            full = torch.addcmul(width, begin, width, value=self._growth - 1)
        else:
            full = width * stretch.float()[:, None]
        length = self.source.size + 2 * taps
        # Half the memory where it can count that far.
        count = torch.int32 if len(stretch) * length < 2**31 else torch.int64
        rows = torch.arange(len(stretch), dtype=count, device=stretch.device)[:, None]
        first = inside[:, :-1].to(count).add_(rows * length + taps)
        return _Overlaps(first.view(-1), begin, reach, full, taps)

    def _places(self, stretch: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of target edges (N, P + 1), whole and part: float32 cannot hold both."""
        position = self._position.to(stretch.device)
        scale = stretch.double()[:, None]
        if self.source.kind == "linear":
            place = (position * scale).sub_(self._origin)
            whole = place.floor()
            return whole.float(), place.sub_(whole).float()
        whole, part = self._split.to(stretch.device)
        shift = scale.log10() / self.source.step
        shift_whole = shift.floor()
        parts = part + (shift - shift_whole).float()
        carry = parts.floor()
        parts.sub_(carry)
        return carry.add_(whole).add_(shift_whole.float()), parts

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
        # A target stretched beyond a linear source touches none of it.
        most = 1.0 if self.source.kind == "log" else min(float(stretch.max()), self._farthest)
        return int(self._broadest * most) + 2

    def _weights(self, overlaps: _Overlaps) -> Iterator[tuple[int, float, Tensor]]:
        """Tap, width of its pixel in first ones, and the part of it that is overlapped."""
        yield 0, 1.0, overlaps.reach.clamp(max=1).sub_(overlaps.begin)
        for tap in range(1, overlaps.taps):
            yield tap, self._growth**tap, (overlaps.reach - tap).clamp_(0, 1)

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
    known = ivar.clamp(min=0)
    good = known.sign()
    value, variance = _blank(flux, pad), _blank(flux, pad)
    inside = slice(pad, pad + flux.shape[1])
    noise = torch.div(good, known.clamp_(min=_FAINTEST), out=variance[:, inside])
    if gain is not None:
        noise.mul_(gain).mul_(gain)
        good.mul_(gain)
    torch.mul(flux, good, out=value[:, inside])
    return value, variance


def _blank(values: Tensor, pad: int) -> Tensor:
    """A table of 0 for values, with `pad` pixels more on both sides."""
    return values.new_zeros((len(values), values.shape[1] + 2 * pad))


def _tap(table: Tensor, overlaps: _Overlaps, tap: int) -> Tensor:
    """(N, P) values of one tap; the table moves, not the index: no second index in memory."""
    return table.view(-1)[tap:].index_select(0, overlaps.first).view_as(overlaps.reach)


def _enough(covered: Tensor, full: Tensor, min_good: float) -> Tensor:
    """1 where the good part of a pixel is at least `min_good` of it (to 1e-6), else 0."""
    return covered.sub(full, alpha=min_good * (1 - 1e-6)).sign_().clamp_(min=0)
