"""The composite: a mean of equivalent widths, or the root of a product of two means."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from pipeline.definition import Atomic
from pipeline.index_line import Below, width_of, with_variance
from pipeline.index_names import find
from pipeline.window import Band, Window


@dataclass(frozen=True, kw_only=True)
class Composite:
    """Made of atomic indices in A: sum_k a_k I_k, or sqrt(sum_k a_k I_k x sum_k b_k I_k).

    The parts are measured in one window, and the derivative by each pixel's flux is summed over
    them before it is squared: pixels that two parts share (the red side band of Fe5270 and the blue
    one of Fe5335 do) count as what they are, and so does their correlation.
    """

    name: str
    "As cards write it."
    parts: tuple[str, ...]
    "Names of atomic indices on the shelf, in A."
    first: tuple[float, ...]
    "Of each part, a."
    second: tuple[float, ...] = ()
    "Of each part, b; empty: a mean, without the root."
    units: Literal["Angstrom"] = "Angstrom"
    "Rest-frame equivalent width."
    reference: str
    "The paper that defines it."

    @property
    def bands(self) -> tuple[Band, ...]:
        """Blue, feature, red of each part."""
        return tuple(band for part in self.parts for band in find(part).bands)

    def slope(self, window: Window, bands: tuple[Band, ...]) -> Below:
        """The value, and its derivative by each pixel's flux."""
        found = [
            width_of(cast(Atomic, find(part)), window, bands, 3 * number)
            for number, part in enumerate(self.parts)
        ]
        sound = torch.stack([part.sound for part in found]).all(0)
        one = _mean(self.first, found)
        if not self.second:
            return Below(*one, sound)
        other = _mean(self.second, found)
        # Two negative factors have a root, too, but it means nothing.
        sound = sound & (one[0] > 0) & (other[0] > 0)
        root = (one[0] * other[0]).sqrt()
        slope = one[1] * other[0][:, None] + other[1] * one[0][:, None]
        return Below(root, slope / (2 * root[:, None]), sound)

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """The value; a root is sound where both of its factors are positive."""
        return with_variance(window, self.slope(window, bands))


def _mean(factors: tuple[float, ...], parts: list[Below]) -> tuple[Tensor, Tensor]:
    """Weighted sum of parts: (N,) and (N, K)."""
    pairs = list(zip(factors, parts, strict=True))
    # Term by term: a product of matrices rounds by how many rows there are.
    value = torch.stack([factor * part.value for factor, part in pairs]).sum(0)
    return value, torch.stack([factor * part.slope for factor, part in pairs]).sum(0)
