"""The two kinds of index that papers define by bands: a break and an atomic index.

Bands are written in AIR, as they were published; `measure` gets them in vacuum. Axes: N spectra,
K pixels of a window.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.window import Band, Window, spread, total


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
        # (lambda / 4000 A)^2: any constant cancels, this one keeps numbers near 1.
        density = (window.rest / 4000.0).square_() if self.density == "nu" else window.rest**0
        blue, red = (overlap * density for overlap in window.overlap)
        size_b, size_r = window.seen
        mean_b, mean_r = total(window.flux, blue) / size_b, total(window.flux, red) / size_r
        ratio = mean_r / mean_b
        slope = spread((-ratio / (mean_b * size_b), 1.0 / (mean_b * size_r)), (blue, red))
        variance = total(window.variance, slope.square_())
        return ratio, variance, mean_b > 0


@dataclass(frozen=True, kw_only=True)
class Atomic:
    """Equivalent width, or magnitude, of a feature below the line through two side bands.

    Notes
    -----
    Worthey (1994): C(l) runs through (middle of the band, mean F_lambda) of both side bands;
    EW = integral of (1 - F/C) dl, positive in absorption; mag = -2.5 log10 of the mean of F/C.
    With S = mean of F/C over the feature,
    dS/dF_i = u_i / C_i - A_b b_i - A_r r_i, where u, b, r are the weights of the three means,
    A_b = sum u F a / C^2, A_r = sum u F (1 - a) / C^2, and C = a F_b + (1 - a) F_r.
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
        blue, feature, red = window.overlap
        size_b, size_f, size_r = window.seen
        mean_b, mean_r = total(window.flux, blue) / size_b, total(window.flux, red) / size_r
        middle_b, middle_r = sum(bands[0]) / 2, sum(bands[2]) / 2
        core = _where(feature)
        a = (middle_r - window.rest[..., core]) / (middle_r - middle_b)
        continuum = mean_r[:, None] + (mean_b - mean_r)[:, None] * a
        per_pixel = window.good[:, core] * feature[..., core] / (continuum * size_f[:, None])
        share = per_pixel * window.flux[:, core]
        mean = share.sum(-1)
        per_both = share / continuum
        per_b = total(per_both, a)
        per_r = per_both.sum(-1) - per_b
        slope = spread((-per_b / size_b, -per_r / size_r), (blue, red))
        slope[:, core] += per_pixel
        variance = total(window.variance, slope.square_())
        # C is a straight line: positive at both ends of the feature, positive between.
        ends = [(middle_r - end) / (middle_r - middle_b) for end in bands[1]]
        sound = torch.stack([mean_r + (mean_b - mean_r) * end > 0 for end in ends]).all(0)
        if self.units == "mag":
            return (
                -2.5 * torch.log10(mean),
                (2.5 / np.log(10) / mean) ** 2 * variance,
                sound & (mean > 0),
            )
        width = bands[1][1] - bands[1][0]
        return width * (1.0 - mean), width**2 * variance, sound


def _where(overlap: Tensor) -> slice:
    """The pixels that any spectrum has in a band."""
    hit = (overlap if overlap.ndim == 1 else overlap.amax(0)).nonzero()
    return slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 1)
