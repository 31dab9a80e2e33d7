"""Indices without the stars' velocities: what templates lose when they are broadened is given back.

An index I of populations, broadened to the resolution at which it is measured (near) and by the
dispersion of the galaxy on top (far), tells what a measured one is without it:

    I_near = factor I_far + shift,    factor = sum(near far) / sum(far^2), shift = 0;
                                   or factor = 1, shift = mean(near - far),

both by least squares over the populations. What is left of them is the scatter, and part of the
error. Axes: N spectra, L pixels, T templates, I indices, W widths.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import fourier_gaussian
from torch import Tensor

from pipeline import index
from pipeline.index import Flag, Index, Measured
from pipeline.line_templates import LineTemplates
from storage.grid import Float, Grid, air_to_vacuum
from storage.simulation.templates import REST
from storage.velocity import C_KMS

VERSION = 1
"Raised when the same templates give another correction."
LARGEST_KMS = 400.0
"Dispersion beyond which nothing is corrected."
WIDTHS_KMS = np.arange(0.0, 501.0, 20.0)
"Of the table, stars and instrument together; between them it is interpolated in the square."
PLACES = 16
"Where the line spread under an index is looked at."
Way = Literal["factor", "difference"]
WAYS: tuple[Way, ...] = ("factor", "difference")


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Indices of populations at every width."""

    value: Tensor
    "(W, T, I) float64."
    ways: tuple[Way, ...]
    "How each index is corrected."
    ends: tuple[tuple[float, float], ...]
    "First and last wavelength of each index, rest-frame vacuum A."
    library: float
    "Resolution that the templates come with, Gaussian sigma, A; 0: as sharp as wanted."

    def at(self, width: Tensor, column: int) -> Tensor:
        """An index (N, T) of the populations at widths (N,) km/s; NaN where there is no width."""
        step = float(WIDTHS_KMS[1])
        low = (width.nan_to_num(0) / step).long().clamp(0, len(self.value) - 2)
        first, second = (low * step).square(), ((low + 1) * step).square()
        share = (width.square() - first) / (second - first)
        value = self.value[..., column]
        return value[low] + share[:, None] * (value[low + 1] - value[low])


class Correction(NamedTuple):
    """What makes indices those of stars that do not move: factor x value + shift; NaN: unknown."""

    factor: Tensor
    "(N, I) float64."
    shift: Tensor
    "(N, I) float64, in the units of the index."
    scatter: Tensor
    "(N, I) float64, one standard deviation among the populations, same units."

    def of(self, found: Measured) -> Measured:
        """Indices without the dispersion; NaN and flagged where it is not known."""
        there = Correction(*(part.to(found.value.device) for part in self))
        flag = found.flag | there.factor.isnan().to(found.flag) * int(Flag.DISPERSION)
        return Measured(*there.apply(found.value, found.error), flag)

    def apply(self, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, I) without the dispersion, and their errors."""
        return self.factor * value + self.shift, torch.hypot(self.factor * error, self.scatter)


@lru_cache(maxsize=8)
def table(templates: LineTemplates, indices: tuple[Index, ...], lick: bool) -> Table:
    """The table of some indices, made once a process.

    lick : at the resolution of Lick/IDS, which smooths templates as it does spectra; else each
    width is one that spectra may have, instrument and stars together.
    """
    basis = templates.basis
    sharp = np.fft.rfft(basis.flux.astype(np.float64))
    # A line spread of 0 would be one that is not known.
    own = np.broadcast_to(np.maximum(basis.sigma / REST.widths, 1e-3), basis.flux.shape)
    lsf, widths = (own, WIDTHS_KMS[WIDTHS_KMS <= LARGEST_KMS]) if lick else (None, WIDTHS_KMS)
    value = torch.stack(
        [
            index.measure(REST.wavelength, _broadened(sharp, width), None, indices, lsf=lsf).value
            for width in widths
        ]
    )
    return Table(
        value=value,
        ways=tuple(_way(each, value[..., i]) for i, each in enumerate(indices)),
        ends=tuple(_ends(each) for each in indices),
        library=basis.sigma,
    )


def correction(
    known: Table, axis: Grid, sigma: Tensor, z: Tensor | None, lsf: Tensor | None
) -> Correction:
    """The correction of spectra.

    Parameters
    ----------
    known : Table
    axis : Grid
        That the spectra are on: observed, or at rest where z is None.
    sigma : (N,) float
        Velocity dispersion of the stars, km/s; what is not in (0, 400] is not known.
    z : (N,) float, optional
        Redshifts that the spectra have on the axis.
    lsf : (N, L) float, optional
        Line spread, Gaussian sigma in pixels, 0 where it is not known. None: the table is at the
        resolution of Lick/IDS.
    """
    sigma = sigma.double()
    sigma = torch.where((sigma > 0) & (sigma <= LARGEST_KMS), sigma, torch.nan)
    if lsf is None:
        near = torch.zeros(len(sigma), len(known.ends), dtype=torch.float64)
    else:
        near = _seen(known, axis, z, lsf)
    far = torch.hypot(near, sigma[:, None])
    far = torch.where(far <= WIDTHS_KMS[-1], far, torch.nan)
    parts = [
        _solved(known.at(near[:, i], i), known.at(far[:, i], i), way)
        for i, way in enumerate(known.ways)
    ]
    return Correction(*(torch.stack(part, -1) for part in zip(*parts, strict=True)))


def _broadened(sharp: NDArray[np.complex128], width: float) -> Float:
    """Templates (T, L) of a transform, with a Gaussian of that width, km/s."""
    pixels = width / (REST.step * np.log(10) * C_KMS)
    return np.asarray(np.fft.irfft(fourier_gaussian(sharp, (0, pixels), n=REST.size), n=REST.size))


def _ends(each: Index) -> tuple[float, float]:
    low, high = zip(*each.bands, strict=True)
    return float(air_to_vacuum(min(low))), float(air_to_vacuum(max(high)))


def _way(each: Index, value: Tensor) -> Way:
    """A factor for widths of one sign, (W, T), where it leaves less scatter than a difference."""
    if each.units != "Angstrom" or not (value.sign() == value[0, 0].sign()).all():
        return "difference"
    near, far = value[:1].expand(value[1:].shape), value[1:]
    left = {way: _solved(near, far, way)[2].square().sum() for way in WAYS}
    return min(left, key=lambda way: float(left[way]))


def _solved(near: Tensor, far: Tensor, way: Way) -> tuple[Tensor, Tensor, Tensor]:
    """Factor, shift and scatter (N,) by least squares over populations (N, T)."""
    if way == "factor":
        factor = (near * far).sum(-1) / far.square().sum(-1)
        left = near - factor[:, None] * far
        return factor, torch.zeros_like(factor), left.square().mean(-1).sqrt()
    shift = (near - far).mean(-1)
    left = near - far - shift[:, None]
    # What is not known is not known in any part.
    return 1 + 0 * shift, shift, left.square().mean(-1).sqrt()


def _seen(known: Table, axis: Grid, z: Tensor | None, lsf: Tensor) -> Tensor:
    """Broadening (N, I) km/s that templates lack at the resolution of spectra.

    Of the line spread the mean over places in the index where it is known; a library that is
    broader is left as it is.
    """
    stretch = np.ones((len(lsf), 1)) if z is None else 1 + z.double().numpy()[:, None]
    # Without a redshift the index is off the axis, and NaN already.
    stretch = np.where((stretch > 0) & np.isfinite(stretch), stretch, 1.0)
    found = []
    for ends in known.ends:
        place = axis.pixel(stretch * np.linspace(*ends, PLACES))
        at = torch.from_numpy(np.rint(place)).long().clamp(0, axis.size - 1)
        pixels = lsf.gather(1, at).double()
        width = pixels * torch.from_numpy(axis.widths / axis.wavelength * C_KMS)[at]
        # NaN where no place has a line spread.
        instrument = width.sum(-1) / (pixels > 0).sum(-1)
        library = known.library / (0.5 * sum(ends)) * C_KMS
        found.append((instrument.square() - library**2).clamp(min=0).sqrt())
    return torch.stack(found, -1)
