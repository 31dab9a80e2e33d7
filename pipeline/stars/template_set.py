"""Which models stars are compared with, and how they are seen: what a card or a caller may say."""

from itertools import pairwise
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from storage.grid import Float
from storage.simulation.stellar_models import StellarModels

Curve = tuple[tuple[PositiveFloat, PositiveFloat], ...]


def _ascending(spread: float | Curve) -> float | Curve:
    if isinstance(spread, float):
        return spread
    if not spread or any(a[0] >= b[0] for a, b in pairwise(spread)):
        raise ValueError("a curve is pairs (A, km/s), one at least, with ascending wavelengths")
    return spread


LineSpread = Annotated[PositiveFloat | Curve, AfterValidator(_ascending)]
"Sigma of a line as it is observed, pixel included, km/s; or a curve of it, (A, km/s)."


class StarModels(StellarModels):
    """Which models, and what of them is compared; the ranges are those of star-v1."""

    ranged: ClassVar[tuple[str, ...]] = (*StellarModels.ranged, "wavelength")

    nodes: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (7, 6, 7, 3)
    "Nodes of each parameter at most, ends of its range among them; 1 holds it at the middle one."
    wavelength: tuple[PositiveFloat, PositiveFloat] = (7100.0, 8850.0)
    "What is fitted: observed vacuum A; pixels outside are not looked at."
    reach_kms: PositiveFloat = 1500.0
    "Largest velocity, either way, that can be measured; km/s."
    degree: int = Field(default=3, ge=0, le=6)
    "Of the polynomial in wavelength that multiplies a template: dust, calibration, brightness."

    @model_validator(mode="after")
    def _something_is_fitted(self) -> Self:
        if self.wavelength[0] == self.wavelength[1]:
            low, high = self.wavelength
            raise ValueError(f"wavelength = ({low:g}, {high:g}): the first is the lower end")
        return self


class TemplateSet(StarModels):
    """Which models, and how an instrument shows them.

    Examples
    --------
    >>> TemplateSet(line_spread=65.0).nodes
    (7, 6, 7, 3)
    """

    line_spread: LineSpread
    "Sigma of a line as it is observed, pixel included, km/s; or a curve of it, (A, km/s)."

    def sigma(self, wavelength: Float) -> Float:
        """Sigma of a line, km/s, (M,)."""
        if isinstance(self.line_spread, float):
            return np.full(wavelength.shape, self.line_spread)
        return np.asarray(np.interp(wavelength, *np.array(self.line_spread).T))
