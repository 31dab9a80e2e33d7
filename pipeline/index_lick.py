"""Indices at the resolution of the Lick/IDS spectrograph, of spectra that are sharper.

Flux is smoothed by the Gaussian that takes its own line spread to that of Lick/IDS, wavelength by
wavelength. Smoothed pixels are not independent: the derivative of the index by a smoothed pixel is
taken back to the observed ones before it is squared, so that errors stay exact. Axes: N spectra,
K pixels of a window.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pipeline.index_names import Index
from pipeline.index_slope import slope
from pipeline.window import Band, Rows, Window, cut, total
from storage.grid import Grid

FWHM = ((4000.0, 11.5), (4400.0, 9.2), (4900.0, 8.4), (5400.0, 8.4), (6000.0, 9.8))
"Rest-frame wavelength and FWHM, A, of Lick/IDS (Worthey & Ottaviani 1997, ApJS 111, 377)."
SIGMAS = 4.0
"Reach of the smoothing."
PER_FWHM = 1 / math.sqrt(8 * math.log(2))


class AtLick(NamedTuple):
    """One index at the resolution of Lick/IDS."""

    window: Window
    "With the smoothed flux."
    value: Tensor
    "(N,)."
    variance: Tensor
    "(N,)."
    sound: Tensor
    "(N,) bool."
    broad: Tensor
    "(N,) bool: broader than Lick/IDS somewhere, or its line spread is not known."


def sigma(wavelength: Tensor) -> Tensor:
    """Line spread of Lick/IDS, Gaussian sigma, A; beyond its ends that of the end."""
    place, width = zip(*FWHM, strict=True)
    found = np.interp(wavelength.cpu().numpy(), place, width) * PER_FWHM
    return torch.as_tensor(found, device=wavelength.device)


def on_axis(
    lsf: NDArray[np.floating], grid: Grid, axis: Grid, z: NDArray[np.floating] | None
) -> NDArray[np.float32]:
    """Line spread (N, P), pixels of an axis, of spectra that are put on it; 0 where none is known.

    Parameters
    ----------
    lsf : (N, L) float
        Pixels of `grid`, 0 where it is not known.
    grid, axis : Grid
        Where the spectra were observed, and where they are now.
    z : (N,) float, optional
        Redshifts, where the axis is at rest.
    """
    stretch = np.ones((len(lsf), 1)) if z is None else 1 + np.nan_to_num(z)[:, None]
    place = np.rint(grid.pixel(axis.wavelength * stretch))
    there = (place >= 0) & (place < grid.size)
    observed = np.asarray(lsf, np.float64) * grid.widths
    found = np.take_along_axis(observed, np.where(there, place, 0).astype(int), axis=1)
    return np.asarray(there * found / stretch / axis.widths, np.float32)


def at_lick(index: Index, rows: Rows, lsf: Tensor, bands: tuple[Band, ...]) -> AtLick:
    """An index of smoothed rows.

    lsf : (N, L) Gaussian sigma of the line spread, pixels; 0 where it is not known.
    """
    reach = SIGMAS * PER_FWHM * max(width for _, width in FWHM)
    low, high = min(band[0] for band in bands), max(band[1] for band in bands)
    wide = ((low - reach, low), *bands, (high, high + reach))
    raw = cut(rows, wide)
    own = cut(rows._replace(flux=lsf, ivar=None, covariance=None), wide).flux
    width = _widths(raw.rest.double())
    missing = sigma(raw.rest).square() - (_known(own.double(), raw.good) * width).square()
    used = torch.stack(raw.overlap[1:-1]).sum(0) > 0
    broad = (used & ~(missing >= 0)).any(-1)
    smooth = Smooth(raw, missing.nan_to_num(0).clamp(min=0).sqrt(), width)
    window = raw._replace(
        flux=smooth(raw.flux.double()),
        bands=bands,
        overlap=raw.overlap[1:-1],
        seen=raw.seen[1:-1],
    )
    found = slope(index, window, bands)
    variance = total(raw.variance.double(), smooth.back(found.slope).square())
    # erf may round otherwise elsewhere in a vector: not once it is float32.
    value, variance = (each.to(raw.flux.dtype) for each in (found.value, variance))
    return AtLick(window, value, variance, found.sound, broad)


def _widths(rest: Tensor) -> Tensor:
    """Pixel widths; a window off the axis may have one pixel."""
    return torch.gradient(rest, dim=-1)[0] if rest.shape[-1] > 1 else torch.ones_like(rest)


def _known(lsf: Tensor, good: Tensor) -> Tensor:
    """Line spread, with the row's mean where a pixel has none; NaN in rows without any."""
    there = (lsf > 0).double()
    mean = (lsf * there).sum(-1, keepdim=True) / there.sum(-1, keepdim=True)
    return torch.where(lsf > 0, lsf, mean)


class Smooth:
    """The smoothing of a window by Gaussians of sigma (N, K) A: rows of weights that sum to 1."""

    def __init__(self, window: Window, sigma: Tensor, width: Tensor) -> None:
        good, place = window.good.double(), window.rest.double()
        # Where there is no redshift there are no widths either.
        pixels = (SIGMAS * sigma / width).nan_to_num(0).clamp(max=good.shape[-1])
        self._reach = max(1, math.ceil(float(pixels.amax())))
        self._size = good.shape[-1]
        edges = torch.cat([place - width / 2, place[..., -1:] + width[..., -1:] / 2], -1)
        scale = sigma.clamp(min=1e-3) * math.sqrt(2)
        steps = [torch.erf((each - place) / scale) for each in self._around(edges)]
        norm, shares = torch.zeros_like(sigma), []
        middles, theres = self._around(place.expand(sigma.shape)), self._around(good)
        for (left, right), middle, there in zip(pairwise(steps), middles, theres, strict=True):
            # A row reaches as far as its own sigma says, whoever else is here.
            near = (middle - place).abs() <= SIGMAS * sigma.clamp(min=width)
            # The integral over the pixel: a narrow Gaussian lies between middles.
            shares.append((right - left) * near * there)
            norm += shares[-1]
        self._weights = [share / norm.clamp(min=1e-12) * good for share in shares]

    def __call__(self, flux: Tensor) -> Tensor:
        """Smoothed flux (N, K); 0 where there is no data."""
        found = torch.zeros_like(flux)
        for weight, near in zip(self._weights, self._around(flux), strict=True):
            found.addcmul_(weight, near)
        return found

    def back(self, slope: Tensor) -> Tensor:
        """Derivative by the flux, of what has this derivative (N, K) by the smoothed flux."""
        found = pad(torch.zeros_like(slope), (self._reach, self._reach))
        for step, weight in enumerate(self._weights):
            found[..., step : step + self._size].addcmul_(weight, slope)
        return found[..., self._reach : self._reach + self._size]

    def _around(self, pixels: Tensor) -> Iterator[Tensor]:
        """What is so many pixels away from each, from the bluest step to the reddest; 0 outside."""
        wide = pad(pixels, (self._reach, self._reach))
        # Of edges there is one more than of pixels, and so of steps.
        for step in range(wide.shape[-1] - self._size + 1):
            yield wide[..., step : step + self._size]
