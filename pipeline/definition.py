"""The two kinds of index that papers define by bands: a break and an atomic index.

Bands are written in AIR, as they were published; `measure` gets them in vacuum. Axes: N spectra,
K pixels of a band.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.window import Band, Part, Window, total


@dataclass(frozen=True, kw_only=True)
class Break:
    """Ratio of the mean flux density in two bands, red over blue; the mean is over wavelength."""

    name: str
    "As cards write it."
    blue: Band
    "Air A."
    red: Band
    "Air A."
    density: Literal["nu", "lambda"] = "nu"
    "Which flux density is averaged: per Hz (F_nu ~ lambda^2 F_lambda) or per A."
    reference: str
    "The paper that defines it."
    units: Literal["1"] = "1"
    "A ratio."

    @property
    def bands(self) -> tuple[Band, ...]:
        """Blue, red."""
        return self.blue, self.red

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """R / B, with the exact linear propagation of every pixel's variance."""
        blue, red = window.parts
        scales = [self._scale(part) for part in window.parts]
        mean_b, mean_r = (
            total(part.light, scale) / size
            for part, scale, size in zip(window.parts, scales, window.seen, strict=True)
        )
        ratio = mean_r / mean_b
        slope_b, slope_r = -ratio / (mean_b * window.seen[0]), 1.0 / (mean_b * window.seen[1])
        weight_b, weight_r = blue.share * scales[0], red.share * scales[1]
        pull_b = weight_b / blue.ivar
        variance = slope_b * total(pull_b, weight_b) * slope_b
        variance += slope_r * total(weight_r / red.ivar, weight_r) * slope_r
        if window.touch(0, 1):
            both = total(pull_b, blue.of(bands[1]) * scales[0])
            variance += 2 * slope_b * both * slope_r
        return ratio, variance, mean_b > 0

    def _scale(self, part: Part) -> Tensor:
        """(lambda / 4000 A)^2 for F_nu: any constant cancels, this one keeps numbers near 1."""
        if self.density == "lambda":
            return part.offset.new_ones(1)
        return part.middle.add_(part.low).div_(4000.0).square_()


@dataclass(frozen=True, kw_only=True)
class Atomic:
    """Equivalent width, or magnitude, of a feature below the line through two side bands.

    Notes
    -----
    Worthey (1994): C(l) runs through (middle of the band, mean F_lambda) of both side bands;
    EW = integral of (1 - F/C) dl, positive in absorption; mag = -2.5 log10 of the mean of F/C.
    With S = sum u F / C over the feature, u A of each pixel in it,
    dS/dF_i = u_i / C_i - A_b b_i - A_r r_i, where b, r are the weights of the two means,
    A_b = sum u F a / C^2, A_r = sum u F (1 - a) / C^2, and C = a F_b + (1 - a) F_r.
    var(S) = sum (dS/dF_i)^2 var_i is taken band by band; a pixel in two bands adds their product.
    """

    name: str
    "As cards write it."
    blue: Band
    "Air A."
    feature: Band
    "Air A."
    red: Band
    "Air A."
    units: Literal["Angstrom", "mag"] = "Angstrom"
    "Rest-frame equivalent width, or magnitude."
    reference: str
    "The paper that defines it."

    @property
    def bands(self) -> tuple[Band, ...]:
        """Blue, feature, red."""
        return self.blue, self.feature, self.red

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """EW or mag; the variance holds the continuum's part, and that of pixels in two bands."""
        line, feature, size = _line(window), window.parts[1], window.seen[1]
        a, continuum = line.across(feature)
        per_line = feature.light / continuum
        mean = per_line.sum(-1) / size
        per_both = per_line.div_(continuum)
        per_b = total(per_both, a)
        slopes = per_b / window.seen[0], (per_both.sum(-1) - per_b) / window.seen[2]
        variance = _variance(window, feature.share / continuum, slopes) / size.square()
        # C is a straight line: positive at both ends of the feature, positive between.
        sound = (line.at(bands[1][0]) > 0) & (line.at(bands[1][1]) > 0)
        if self.units == "mag":
            # A logarithm may round otherwise elsewhere in a vector: not once it is float32.
            magnitude = -2.5 * torch.log10(mean.double()).to(mean.dtype)
            return magnitude, (2.5 / math.log(10) / mean).square() * variance, sound & (mean > 0)
        width = bands[1][1] - bands[1][0]
        return width * (1.0 - mean), width**2 * variance, sound


class _Line(NamedTuple):
    """The pseudo-continuum of N spectra."""

    middle_b: float
    middle_r: float
    mean_b: Tensor
    mean_r: Tensor

    def at(self, wavelength: float) -> Tensor:
        """Its flux density (N,) there."""
        a = (self.middle_r - wavelength) / (self.middle_r - self.middle_b)
        return self.mean_r + (self.mean_b - self.mean_r) * a

    def across(self, part: Part) -> tuple[Tensor, Tensor]:
        """The share of the blue mean in it, (K,) or (N, K), and its flux density (N, K)."""
        a = part.middle.sub_(self.middle_r - part.low).div_(self.middle_b - self.middle_r)
        continuum = a * (self.mean_b - self.mean_r)[:, None]
        continuum += self.mean_r[:, None]
        # It may be 0 beyond the feature, where nothing is measured: nothing over 0 would be NaN.
        return a, continuum.clamp_(min=torch.finfo(a.dtype).tiny)


def _line(window: Window) -> _Line:
    (low_b, high_b), _, (low_r, high_r) = window.bands
    mean_b, mean_r = (window.parts[n].light.sum(-1) / window.seen[n] for n in (0, 2))
    return _Line((low_b + high_b) / 2, (low_r + high_r) / 2, mean_b, mean_r)


def _variance(window: Window, per_pixel: Tensor, slopes: tuple[Tensor, Tensor]) -> Tensor:
    """Variance (N,) of S, of which a pixel's flux moves (N, K) in the feature, less the slopes."""
    blue, feature, _ = window.parts
    pull = per_pixel / feature.ivar
    variance = total(pull, per_pixel)
    for number, slope in ((0, slopes[0]), (2, slopes[1])):
        side = window.parts[number]
        variance += slope * total(side.share / side.ivar, side.share) * slope
        if window.touch(number, 1):
            variance -= 2 * slope * total(pull, feature.of(window.bands[number]))
    if window.touch(0, 2):
        both = total(blue.share / blue.ivar, blue.of(window.bands[2]))
        variance += 2 * slopes[0] * both * slopes[1]
    return variance
