"""The [sample] table of a card, and the sample cards that it may name.

A sample is cuts by name, one after another; strata, that level a distribution; and a cap.
"""

from itertools import pairwise
from typing import Any, Self

import numpy as np
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pipeline.card_table import Table


class Strata(Table):
    """[sample.strata]: so many objects at most in each bin of something; the rest is left out.

    Examples
    --------
    >>> Strata(by="mpa.h_alpha_flux", log10=(0, 2), bins=2, each=1000).bounds
    (1.0, 10.0, 100.0)
    """

    by: str
    "A column, or an expression that gives a number."
    edges: tuple[float, ...] = ()
    "Of the bins, ascending, in the unit of the column; or else log10 and bins."
    log10: tuple[float, float] | None = None
    "Decimal logarithms of the first edge and the last."
    bins: NonNegativeInt = 0
    "Number of equal bins between them."
    each: PositiveInt
    "Spectra in a bin, at most."

    @model_validator(mode="after")
    def _has_edges(self) -> Self:
        if bool(self.edges) == (self.log10 is not None) or (self.log10 is None) != (not self.bins):
            raise ValueError("give edges = [...], or log10 = [first, last] with bins = N")
        bounds = self.bounds
        ascending = all(low < high for low, high in pairwise(bounds))
        if len(bounds) < 2 or not np.isfinite(bounds).all() or not ascending:
            raise ValueError(f"edges are {list(bounds)}, expected two or more, finite, ascending")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """Edges of the bins; a bin holds its lower one."""
        if self.log10 is None:
            return self.edges
        return tuple(float(edge) for edge in np.logspace(*self.log10, self.bins + 1))


class Sample(Table):
    """[sample]: which spectra train a model."""

    card: str = ""
    "A card of deploy/cards/samples, or the path of one, whose cuts come first."
    where: str = "class == 'GALAXY' and zwarn == 0"
    """Expression over the columns; sky fibres and quarantined rows never train. With a card it is
    empty unless given."""
    steps: dict[str, str] = Field(default_factory=dict)
    "More cuts, by name, one after another: of what an expression leaves, the next one."
    strata: Strata | None = None
    "Levels a distribution; in place of that of the sample card."
    cap: NonNegativeInt = 0
    "Most spectra, on all sides together; 0 is no limit. That of the sample card, unless given."
    seed: NonNegativeInt = 1
    "Of the choice that strata and cap make."

    @model_validator(mode="before")
    @classmethod
    def _a_card_brings_its_own(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("card") and "where" not in given:
            return {**given, "where": ""}
        return given

    # What is not asked for leaves no trace in a digest: a card of where alone keeps its own.
    @model_serializer(mode="wrap")
    def _only_what_is_asked_for(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {
            name
            for name, field in type(self).model_fields.items()
            if name != "where"
            and getattr(self, name) == field.get_default(call_default_factory=True)
        }
        return {name: value for name, value in plain(self).items() if name not in unused}


class Catalogue(Table):
    """[catalogues.<prefix>]: where columns are from that a survey's own files have not."""

    what: str
    "Name and release, in words."
    file: str
    "The file that is joined, as a person would name it."
    on: str
    "What it shares with the survey, as `specmill join --on` takes it."
    columns: tuple[str, ...] = Field(min_length=1)
    "What the cuts use, or a paper's figures need."


class SampleCard(Table):
    """A card of deploy/cards/samples: the sample of a paper."""

    about: str = ""
    "In words: the paper, and what it chose."
    steps: dict[str, str] = Field(default_factory=dict)
    "Cuts by name."
    strata: Strata | None = None
    "Levels a distribution."
    cap: NonNegativeInt = 0
    "Most spectra; 0 is no limit."
    catalogues: dict[str, Catalogue] = Field(default_factory=dict)
    "By the prefix that they are joined with."
