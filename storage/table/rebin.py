"""Flux-conserving rebinning from pixels of any spacing to a grid.

`storage.resample.Rebinner` is for even grids; what a file holds may be uneven, have gaps, and be
bent by the refraction of air. A target pixel is the mean of what it overlaps, weighted in A.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.border import RefusedError
from storage.grid import Grid
from storage.schema import Reason

Float = NDArray[np.float64]
Bits = NDArray[np.uint32]

FEWEST = 10
"Pixels that a spectrum needs."
_ON_GRID = 0.01  # pixels
_GAP = 1.5  # a pixel reaches at most this many times as far to one side as to the other
_MIN_GOOD = 0.5


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """Where source pixels lie on a grid, piece by piece, in ascending wavelength."""

    source: NDArray[np.intp]
    "(S,) source pixel of each piece."
    target: NDArray[np.intp]
    "(S,) target pixel of each piece."
    width: Float
    "(S,) A."
    grid: Grid
    "The target."
    copied: bool
    "Whether source pixels are pixels of the grid."

    def __call__(self, flux: Float, ivar: Float, mask: Bits | None) -> tuple[Float, Float, Bits]:
        """Flux, ivar and mask (P,) on the grid of those of one spectrum (L,).

        Where ivar is 0, or one of the two is not finite, there is no data, whatever stands there.

        Notes
        -----
        As `storage.resample.Rebinner`: a target pixel needs half of its width in good pixels;
        f = sum o F / sum o, 1/ivar = sum o^2 / IVAR / (sum o)^2. Mask bits are those of any pixel
        that it touches.
        """
        bits = np.zeros(self.grid.size, dtype=np.uint32)
        if mask is not None:
            np.bitwise_or.at(bits, self.target, mask[self.source])
        good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
        flux, variance = np.where(good, flux, 0), 1 / np.where(good, ivar, np.inf)
        part = self.width * good[self.source]
        covered = self._sum(part)
        keep = covered > 0
        if not self.copied:
            keep &= covered >= _MIN_GOOD * (1 - 1e-6) * self.grid.widths
        scale = np.where(keep, covered, 1)
        spread = self._sum(part**2 * variance[self.source]) / scale**2
        found = np.where(keep, self._sum(part * flux[self.source]) / scale, 0)
        return found, np.where(keep, 1 / np.where(keep, spread, 1), 0), bits

    def _sum(self, values: Float) -> Float:
        return np.asarray(np.bincount(self.target, values, self.grid.size), dtype=np.float64)


def overlaps(wavelength: Float, grid: Grid) -> tuple[Overlaps, NDArray[np.intp]]:
    """Overlaps of pixels with a grid, and the order that makes them ascend.

    wavelength : (L,) pixel centres, vacuum A, ascending or descending.

    Raises
    ------
    RefusedError
        When they are too few, not finite, not monotonic, or all beyond the grid.
    """
    order = _order(wavelength)
    centre = wavelength[order]
    target = _on_grid(centre, grid)
    copied = target is not None
    if target is not None:
        source = np.flatnonzero((target >= 0) & (target < grid.size))
        target = target[source]
        width = grid.widths[target]
    else:
        source, target, width = _pieces(*_pixels(centre), grid)
    if not source.size:
        raise _bad(
            f"wavelengths {centre[0]:.1f}-{centre[-1]:.1f} A are beyond the grid, "
            f"{grid.wavelength[0]:.1f}-{grid.wavelength[-1]:.1f} A; check "
            "survey.options.wavelength_unit, or set survey.options.grid"
        )
    found = Overlaps(source=source, target=target, width=width, grid=grid, copied=copied)
    return found, order


def _order(wavelength: Float) -> NDArray[np.intp]:
    if wavelength.size < FEWEST:
        raise _bad(f"{wavelength.size} pixels, expected {FEWEST} or more; leave it out")
    lost = ~np.isfinite(wavelength) | (wavelength <= 0)
    if lost.any():
        raise _bad(
            f"wavelength is not finite and above 0 in {int(lost.sum())} of {wavelength.size} "
            "pixels; fetch the file again, or check survey.options.wavelength_scale"
        )
    order = np.arange(wavelength.size)
    order = order[::-1] if wavelength[0] > wavelength[-1] else order
    back = np.diff(wavelength[order]) <= 0
    if back.any():
        raise _bad(
            f"wavelengths do not ascend: {int(back.sum())} steps are 0 or back, the first after "
            f"{wavelength[order][int(np.argmax(back))]:.4f} A; sort them and leave out the doubles"
        )
    return order


def _bad(words: str) -> RefusedError:
    return RefusedError(Reason.BAD_GRID, words)


def _on_grid(centre: Float, grid: Grid) -> NDArray[np.intp] | None:
    """Pixels of the grid that these are, some maybe beyond its ends; None where they are not."""
    pixel = grid.pixel(centre)
    nearest = np.rint(pixel)
    even = np.abs(pixel - nearest).max() <= _ON_GRID and np.diff(nearest).max() == 1
    return nearest.astype(np.intp) if even else None


def _pixels(centre: Float) -> tuple[Float, Float]:
    """Ends of pixels half-way to the next, but not into a gap."""
    half = np.diff(centre) / 2
    left, right = np.append(half[:1], half), np.append(half, half[-1:])
    most = _GAP * np.minimum(left, right)
    return centre - np.minimum(left, most), centre + np.minimum(right, most)


def _pieces(low: Float, high: Float, grid: Grid) -> tuple[Any, Any, Float]:
    """Source pixel, target pixel and width of everything that both cover."""
    edges = grid.edges
    cuts = np.unique(np.concatenate([low, high, edges]))
    middle, width = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    source = np.searchsorted(low, middle, side="right") - 1
    target = np.searchsorted(edges, middle, side="right") - 1
    inside = (source >= 0) & (target >= 0) & (target < grid.size)
    inside &= middle < high[np.maximum(source, 0)]
    return source[inside], target[inside], width[inside]
