"""Flux-conserving rebinning of one spectrum whose pixels follow no formula.

The pixels of a CCD have steps of their own. A target pixel is the mean of the source pixels that
it overlaps, weighted by the exact overlap in A; the equations are those of `storage.resample`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Rebinned(NamedTuple):
    """A spectrum on the target pixels."""

    flux: Floats
    "(P,) mean flux density of the good overlap; 0 where there is none."
    ivar: Floats
    "(P,) inverse variance of one pixel; 0 where there is no data."
    mask: NDArray[np.uint32]
    "(P,) bits of all pixels that are overlapped, good or not."
    covariance: Floats
    """(P,) sum of a row of the covariance matrix over its diagonal: what the variance of sums over
    smooth weights is larger by than that of independent pixels; 0 where no data."""


def edges_of(loglam: Floats) -> Floats:
    """Pixel edges (L + 1,) in A of pixel centres (L,) in log10(A), ascending: halfway between."""
    half = np.diff(loglam) / 2
    ends = [loglam[0] - half[0]], [loglam[-1] + half[-1]]
    return np.asarray(10.0 ** np.concatenate((ends[0], loglam[:-1] + half, ends[1])))


def rebin(
    flux: NDArray[np.floating],
    ivar: NDArray[np.floating],
    mask: NDArray[np.uint32],
    edges: Floats,
    target: Floats,
    min_good: float = 0.5,
) -> Rebinned:
    """Rebin a spectrum with its errors.

    Parameters
    ----------
    flux, ivar, mask : (L,)
        Flux density and inverse variance of independent pixels; ivar 0 is no data.
    edges : (L + 1,) float64
        Edges of the pixels, ascending, A.
    target : (P + 1,) float64
        Edges of the target pixels, ascending, A.
    min_good : float
        Share of its width that a target pixel needs in good source pixels.
    """
    size = len(target) - 1
    i, j, overlap = _overlaps(edges, target)
    bits = np.zeros(size, dtype=np.uint32)
    np.bitwise_or.at(bits, j, mask[i])
    good = ivar[i] > 0
    i, j, overlap = i[good], j[good], overlap[good]
    covered = _sum(j, overlap, size)
    keep = covered >= min_good * (1 - 1e-6) * np.diff(target)
    # a_ji: the share of source pixel i in target pixel j.
    share = overlap * keep[j] / covered[j]
    variance = share / ivar[i]
    diagonal = _sum(j, share * variance, size)
    column = _sum(i, share, len(flux))
    row = _sum(j, variance * column[i], size)
    known = np.where(keep, diagonal, 1)
    return Rebinned(
        flux=_sum(j, share * flux[i], size),
        ivar=keep / known,
        mask=bits,
        covariance=keep * row / known,
    )


def _overlaps(edges: Floats, target: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Source pixel, target pixel and overlap in A of every pair that has one."""
    cuts = np.sort(np.concatenate((edges, target)))
    first, last = max(edges[0], target[0]), min(edges[-1], target[-1])
    cuts = cuts[(cuts >= first) & (cuts <= last)]
    overlap = np.diff(cuts)
    middle = (cuts[:-1] + overlap / 2)[overlap > 0]
    i, j = (np.searchsorted(e, middle, side="right") - 1 for e in (edges, target))
    return i, j, overlap[overlap > 0]


def _sum(pixel: NDArray[np.intp], values: NDArray[np.floating], size: int) -> Floats:
    """Sums (size,) of values by pixel."""
    return np.asarray(np.bincount(pixel, values, size), np.float64)
