"""The generic index: several features below one line fitted to several bands of continuum."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.index_line import Below, below, fitted, mean_weight, with_variance
from pipeline.window import Band, Window


@dataclass(frozen=True, kw_only=True)
class Generic:
    """Sum of the equivalent widths of several features, each times a factor.

    Notes
    -----
    Cenarro et al. (2001), MNRAS 326, 959, appendix A: the continuum is the straight line that fits
    all pixels of the continuum bands best, each weighted by its inverse variance and the share of
    it that lies inside; the index is sum_n factor_n x integral of (1 - F/C) over feature n. Without
    errors all pixels weigh alike. The error holds that of the line and, so, what the features have
    in common.
    """

    name: str
    "As cards write it."
    continuum: tuple[Band, ...]
    "Air A."
    features: tuple[Band, ...]
    "Air A."
    factors: tuple[float, ...]
    "Of each feature."
    weighted: bool = True
    "Whether the line is fitted by inverse variance."
    units: Literal["Angstrom"] = "Angstrom"
    "Rest-frame equivalent width."
    reference: str
    "The paper that defines it."

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands of the continuum, then the features."""
        return *self.continuum, *self.features

    def slope(self, window: Window, bands: tuple[Band, ...]) -> Below:
        """Equivalent width, and its derivative by each pixel's flux."""
        sides, features = bands[: len(self.continuum)], bands[len(self.continuum) :]
        line = fitted(window, sides, self.weighted)
        scaled = [f * (b[1] - b[0]) for f, b in zip(self.factors, features, strict=True)]
        means = [mean_weight(window, len(sides) + n) for n in range(len(features))]
        weight = torch.stack([s * mean for s, mean in zip(scaled, means, strict=True)]).sum(0)
        ends = min(band[0] for band in features), max(band[1] for band in features)
        found = below(window, line, weight, ends)
        return Below(sum(scaled) - found.value, -found.slope, found.sound)

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Equivalent width; the variance holds that of the fitted line."""
        return with_variance(window, self.slope(window, bands))
