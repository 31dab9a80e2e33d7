"""Which models stars are compared with, and how they are seen: what a card or a caller may say."""

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from storage.grid import Float

Range = tuple[float, float]
Curve = tuple[tuple[PositiveFloat, PositiveFloat], ...]

_RANGES = ("teff", "logg", "feh", "alpha_m", "wavelength")


def _ascending(spread: float | Curve) -> float | Curve:
    if isinstance(spread, float):
        return spread
    if not spread or any(a[0] >= b[0] for a, b in pairwise(spread)):
        raise ValueError("a curve is pairs (A, km/s), one at least, with ascending wavelengths")
    return spread


LineSpread = Annotated[PositiveFloat | Curve, AfterValidator(_ascending)]
"Sigma of a line as it is observed, pixel included, km/s; or a curve of it, (A, km/s)."


class StarModels(BaseModel):
    """Which models, and what of them is compared; the ranges are those of star-v1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # As storage.simulation has them; its splines would cost every command a tenth of its start.
    physics: Literal["toy", "bosz", "phoenix", "table"] = "toy"
    "Where models come from: the toy of mocks, or files of the user's."
    models: str = ""
    "Folder of BOSZ or PHOENIX files, or the path of a table of models; none for the toy."
    teff: Range = (3500.0, 5000.0)
    "Range of effective temperature; K."
    logg: Range = (0.0, 5.0)
    "Range of log10 of the surface gravity; cm s-2."
    feh: Range = (-2.5, 0.75)
    "Range of [Fe/H]."
    alpha_m: Range = (-0.25, 0.5)
    "Range of [alpha/M]."
    nodes: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (7, 6, 7, 3)
    "Nodes of each parameter at most, ends of its range among them; 1 holds it at the middle one."
    wavelength: tuple[PositiveFloat, PositiveFloat] = (7100.0, 8850.0)
    "What is fitted: observed vacuum A; pixels outside are not looked at."
    reach_kms: PositiveFloat = 1500.0
    "Largest velocity, either way, that can be measured; km/s."
    degree: int = Field(default=3, ge=0, le=6)
    "Of the polynomial in wavelength that multiplies a template: dust, calibration, brightness."

    @model_validator(mode="after")
    def _there_is_something(self) -> Self:
        for name in _RANGES:
            low, high = getattr(self, name)
            if low > high or (name == "wavelength" and low == high):
                raise ValueError(f"{name} = ({low:g}, {high:g}): the first is the lower end")
        if (self.physics == "toy") != (not self.models):
            raise ValueError(
                f"physics = {self.physics!r} with models = {self.models!r}: the toy has no files, "
                "the others need them"
            )
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
