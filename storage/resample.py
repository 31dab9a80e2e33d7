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
    "(N, P) int64: first source pixel touched, counted in the padded table."
    begin: Tensor
    "(N, P): part of the first source pixel that lies before the target pixel."
    reach: Tensor
    "(N, P): end of the target pixel."
    full: Tensor
    "(N, P): width of the target pixel, in widths of the first source pixel."
    taps: int
    "How many source pixels a target pixel may touch."


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
        self._growth = 10.0**source.step if source.kind == "log" else 1.0
        edges = target.edges
        scaled = np.log10(edges) if source.kind == "log" else edges
        # Edge number i of the source is at position i. float64: float32 loses the pixel.
        self._position = torch.from_numpy(scaled / source.step)
        self._origin = source.start / source.step - 0.5
        self._width = torch.from_numpy(np.diff(edges) / self._first_width(edges[:-1])).float()

    def __call__(
        self,
        flux: Tensor,
        ivar: Tensor,
        stretch: Tensor,
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
        min_good : float
            Share of its width that a target pixel needs in good source pixels, above 0.
        covariance : bool
            Whether the covariance factor is wanted.

        Notes
        -----
        With overlaps o_ji (A) of good pixels only: f_j = sum_i o_ji F_i / S_j, S_j = sum_i o_ji,
        1/ivar_j = sum_i o_ji^2 / ivar_i / S_j^2.
        """
        if not 0 < min_good <= 1:
            raise ValueError(f"min_good is {min_good}; expected above 0 and at most 1")
        overlaps = self._overlaps(stretch)
        value, variance = _tables(flux, ivar, overlaps.taps)
        total, covered, spread = (torch.zeros_like(overlaps.begin) for _ in range(3))
        for tap, overlap in self._weights(overlaps):
            noise = _tap(variance, overlaps, tap)
            overlap = overlap.mul_(noise.sign())
            covered += overlap
            total.addcmul_(overlap, _tap(value, overlaps, tap))
            spread.addcmul_(overlap.square_(), noise)
        keep = _enough(covered, overlaps.full, min_good)
        # Where nothing is kept the divisors become 1 or more, and 0 comes out.
        spare = 1 - keep
        flux_NP = total.div_(covered + spare).mul_(keep)
        ivar_NP = covered.square().div_(spread + spare).mul_(keep)
        if not covariance:
            return Rebinned(flux_NP, ivar_NP)
        return Rebinned(flux_NP, ivar_NP, self._covariance(overlaps, variance, covered, keep))

    def mean(self, values: Tensor, stretch: Tensor, min_good: float = 0.5) -> Tensor:
        """Overlap-weighted mean of values (N, L) that are all good, 0 outside them: (N, P)."""
        ones = torch.ones_like(values)
        return self(values, ones, stretch, min_good).flux

    def _first_width(self, edges: np.ndarray) -> np.ndarray | float:
        """Width of a source pixel that begins at these edges, A."""
        return edges * (self._growth - 1) if self.source.kind == "log" else self.source.step

    def _overlaps(self, stretch: Tensor) -> _Overlaps:
        taps = self._taps(stretch)
        size = self.source.size
        position = self._position.to(stretch.device)
        scale = stretch.double()[:, None]
        if self.source.kind == "log":
            place = position + (scale.log10() / self.source.step - self._origin)
        else:
            place = position * scale - self._origin
        # Room for `taps` pixels without data on both sides: edges out there need no special case.
        place = place.add_(taps).clamp_(0, size + taps)
        whole = place.floor()
        part = self._linear(place.sub_(whole).float())
        reach = (whole[:, 1:] - whole[:, :-1]).float().add_(part[:, 1:])
        begin = part[:, :-1]
        width = self._width.to(stretch.device)
        full = width * (1 + begin * (self._growth - 1)) if self._growth > 1 else width * scale
        return _Overlaps(whole[:, :-1].long(), begin, reach, full.float(), taps)

    def _linear(self, part: Tensor) -> Tensor:
        """Part of a source pixel in A, of its part in the grid's own scale.

        (q^part - 1) / (q - 1) for pixels that grow by q, as a series in ln q: sums and products
        round alike wherever they stand in a vector; torch.exp2 does not.
        """
        if self._growth == 1:
            return part
        rate = math.log(self._growth)
        coefficients = [rate / (self._growth - 1)]
        while coefficients[-1] > 1e-9:
            coefficients.append(coefficients[-1] * rate / (len(coefficients) + 1))
        series = torch.full_like(part, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            series.mul_(part).add_(coefficient)
        return series.mul_(part)

    def _taps(self, stretch: Tensor) -> int:
        edges = self.target.edges
        if self.source.kind == "log":
            return int(np.diff(np.log10(edges)).max() / self.source.step) + 2
        # A target stretched beyond the source touches none of it.
        most = min(float(stretch.max()), self.source.edges[-1] / edges[0])
        return int(self.target.widths.max() * most / self.source.step) + 2

    def _weights(self, overlaps: _Overlaps) -> Iterator[tuple[int, Tensor]]:
        """Overlap with each tap, in widths of the first one."""
        for tap in range(overlaps.taps):
            if tap == 0:
                yield 0, overlaps.reach.clamp(max=1).sub_(overlaps.begin)
            else:
                yield tap, (overlaps.reach - tap).clamp_(0, 1).mul_(self._growth**tap)

    def _covariance(
        self, overlaps: _Overlaps, variance: Tensor, covered: Tensor, keep: Tensor
    ) -> Tensor:
        # C_jk = sum_i a_ji a_ki var_i with a = o / S: a row's sum needs the columns' sums of a.
        share = keep / (covered + (1 - keep))
        column = torch.zeros_like(variance)
        for tap, overlap in self._weights(overlaps):
            index = overlaps.first + tap
            column.scatter_add_(1, index, overlap.mul_(share))
        row, diagonal = (torch.zeros_like(covered) for _ in range(2))
        for tap, overlap in self._weights(overlaps):
            noise = _tap(variance, overlaps, tap)
            row.addcmul_(overlap * noise, _tap(column, overlaps, tap))
            diagonal.addcmul_(overlap.square_(), noise)
        return row.mul_(covered).div_(diagonal + (1 - keep)).mul_(keep)


@lru_cache(maxsize=32)
def rebinner(source: Grid, target: Grid) -> Rebinner:
    """The `Rebinner` of two grids, made once."""
    return Rebinner(source, target)


def _tables(flux: Tensor, ivar: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Flux and variance, 0 where there is no data, with `pad` pixels of no data on both sides."""
    value, variance = (flux.new_zeros((len(flux), flux.shape[1] + 2 * pad)) for _ in range(2))
    finite = torch.nan_to_num(flux * 0 + 1, nan=0.0)
    known = torch.nan_to_num(ivar, nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0)
    # Signs and products, no masks: torch is five times slower on booleans.
    good = known.sign().mul_(finite)
    inside = slice(pad, pad + flux.shape[1])
    torch.mul(torch.nan_to_num(flux, nan=0.0, posinf=0.0, neginf=0.0), good, out=value[:, inside])
    torch.div(good, known.clamp_(min=_FAINTEST), out=variance[:, inside])
    return value, variance


def _tap(table: Tensor, overlaps: _Overlaps, tap: int) -> Tensor:
    # The table moves, not the index: no second index in memory.
    return torch.gather(table[:, tap:], 1, overlaps.first)


def _enough(covered: Tensor, full: Tensor, min_good: float) -> Tensor:
    """1 where the good part of a pixel is at least `min_good` of it (to 1e-6), else 0."""
    return (covered - full * (min_good * (1 - 1e-6))).sign_().clamp_(min=0)
