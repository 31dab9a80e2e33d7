"""The [outside] table of a card: where a trained model is tried beyond its footprint."""

from itertools import pairwise
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from pipeline.card_table import Table


class OtherSurvey(Table):
    """[[outside.survey]]: another telescope that looks at the same sky."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    "What it is called in figures."
    mock: str
    "A card of deploy/cards/mocks, by name, or the path of one."
    reader: str
    "A name on storage.readers: its wavelengths are the survey's."
    config: str = ""
    "Instrument configuration; the reader's first when empty."


class Outside(Table):
    """[outside]: edges of the bins, and how well each is known."""

    z: tuple[float, ...] = (0.005, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25)
    "Of redshift."
    sigma_v: tuple[float, ...] = (40, 60, 100, 150, 200, 250, 300, 350, 400)
    "Of the stellar velocity dispersion, km/s."
    snr: tuple[float, ...] = (1, 2, 3, 5, 7, 10, 15, 25, 40)
    "Of S/N per pixel in g."
    at: tuple[float, float] = (5.0, 6.0)
    "S/N of the bins of redshift and dispersion."
    n: PositiveInt = 300
    "Objects in each bin."
    reference: PositiveInt = 2000
    "Noiseless objects of the bin that its linear reference is learnt from."
    survey: tuple[OtherSurvey, ...] = ()
    "Others on which it is tried."

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name in ("z", "sigma_v", "snr", "at"):
            edges = getattr(self, name)
            if len(edges) < 2 or not all(low < high for low, high in pairwise(edges)):
                raise ValueError(f"{name} = {list(edges)}: expected two or more edges, ascending")
        return self
