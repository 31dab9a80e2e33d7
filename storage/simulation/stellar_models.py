"""Which models of stars, and what range of their parameters: what mocks and fits of stars share."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

Physics = Literal["toy", "bosz", "phoenix", "table"]
Range = tuple[float, float]


class StellarModels(BaseModel):
    """Where models come from, and their ranges, which are those of Pal & Dobos (2024)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranged: ClassVar[tuple[str, ...]] = ("teff", "logg", "feh", "alpha_m")
    "Fields that are ranges; subclasses have more."

    physics: Physics = "toy"
    "The toy, or files of the user's."
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

    @model_validator(mode="after")
    def _there_are_such_models(self) -> Self:
        for name in self.ranged:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = ({low:g}, {high:g}): the first is the lower end")
        if (self.physics == "toy") != (not self.models):
            raise ValueError(
                f"physics = {self.physics!r} with models = {self.models!r}: the toy has no files, "
                "the others need them"
            )
        return self
