"""A straight pseudo-continuum, and the flux below it with its derivative by every pixel's flux.

A line whose height is linear in the flux is C(x) = sum_i F_i (p_i + q_i x). With
S = sum_j u_j F_j / C_j,

    dS/dF_i = u_i / C_i - p_i P - q_i Q,
    P = sum_j u_j F_j / C_j^2,   Q = sum_j x_j u_j F_j / C_j^2,

whatever made the line: the means of two bands, or a fit to several. In float64. Axes: N spectra,
K pixels of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.definition import Atomic
from pipeline.window import Band, Window, total


class Line(NamedTuple):
    """How a straight continuum follows from the flux."""

    level: Tensor
    "(N, K) p, by which the flux gives the height at the origin."
    tilt: Tensor
    "(N, K) q, by which it gives the rise over one scale."
    origin: float
    "Vacuum A."
    scale: float
    "A."

    def place(self, wavelength: Tensor) -> Tensor:
        """X of vacuum wavelengths."""
        return (wavelength.double() - self.origin) / self.scale


class Below(NamedTuple):
    """What is below a continuum, with its derivative."""

    value: Tensor
    "(N,)."
    slope: Tensor
    "(N, K), by each pixel's flux."
    sound: Tensor
    "(N,) bool: the continuum is positive from end to end."


def mean_weight(window: Window, band: int) -> Tensor:
    """The weights (N, K) whose sum over the flux is the mean of a band; masked pixels have none."""
    return (window.overlap[band] * window.good).double() / window.seen[band].double()[:, None]


def through_means(window: Window, bands: Sequence[Band], blue: int, red: int) -> Line:
    """The line through (middle, mean flux) of two bands of a window."""
    left, right = mean_weight(window, blue), mean_weight(window, red)
    origin = sum(bands[blue]) / 2
    return Line(left, right - left, origin, sum(bands[red]) / 2 - origin)


def fitted(window: Window, bands: Sequence[Band], weighted: bool) -> Line:
    """The least-squares line through all pixels of the first bands of a window.

    weighted : by inverse variance, as far as it is known; else all pixels alike.
    """
    low, high = min(band[0] for band in bands), max(band[1] for band in bands)
    inside = torch.stack(window.overlap[: len(bands)]).sum(0)
    good = window.good.double()
    weight = inside * (_precision(window.variance.double(), good) if weighted else good)
    origin, scale = (low + high) / 2, (high - low) / 2
    x = (window.rest.double() - origin) / scale
    size, first, second = (total(weight, x**power) for power in (0, 1, 2))
    unit = weight / (size * second - first**2)[:, None]
    return Line(
        unit * (second[:, None] - first[:, None] * x),
        unit * (size[:, None] * x - first[:, None]),
        origin,
        scale,
    )


def _precision(variance: Tensor, good: Tensor) -> Tensor:
    """Inverse variance, its largest 1; where no variance is known, 1 for all that is there."""
    inverse = torch.where(variance > 0, 1 / variance, 0.0)
    largest = inverse.amax(-1, keepdim=True)
    return torch.where(largest > 0, inverse / largest, good)


def below(window: Window, line: Line, weight: Tensor, ends: Band) -> Below:
    """S, for weights u (N, K) that are 0 outside the features between the ends."""
    flux, place = window.flux.double(), line.place(window.rest)
    level, tilt = total(flux, line.level), total(flux, line.tilt)
    continuum = level[:, None] + tilt[:, None] * place
    # The line may cross zero where nothing is measured.
    inverse = torch.where(weight == 0, 0.0, 1 / continuum)
    share = weight * inverse * flux
    by_level, by_tilt = (share * inverse).sum(-1), (share * inverse * place).sum(-1)
    slope = weight * inverse
    slope = slope - line.level * by_level[:, None] - line.tilt * by_tilt[:, None]
    heights = [level + tilt * (end - line.origin) / line.scale for end in ends]
    return Below(share.sum(-1), slope, torch.stack(heights).amin(0) > 0)


def with_variance(window: Window, found: Below) -> tuple[Tensor, Tensor, Tensor]:
    """Value, variance and soundness (N,), for pixels that are independent."""
    variance = total(window.variance.double(), found.slope.square())
    return found.value, variance, found.sound


def width_of(index: Atomic, window: Window, bands: Sequence[Band], first: int) -> Below:
    """Equivalent width, A, of an atomic index whose three bands begin at `first` in a window."""
    feature = bands[first + 1]
    width = feature[1] - feature[0]
    line = through_means(window, bands, first, first + 2)
    found = below(window, line, width * mean_weight(window, first + 1), feature)
    return Below(width - found.value, -found.slope, found.sound)
