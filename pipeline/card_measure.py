"""The [measure] table of a card: what is measured on what, and by which rules."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.card_table import Table
from pipeline.index_aliases import canonical
from pipeline.stars.template_set import LineSpread, StarModels


class StarTable(StarModels):
    """[measure.star_templates]: models of stars, as the survey's instrument shows them."""

    line_spread: LineSpread | None = None
    "Sigma of a line as observed, km/s, or a curve of it, (A, km/s); None: the survey's own."


class Measure(Table):
    """[measure]: what is measured on what."""

    inputs: tuple[str, ...] = ("raw", "raw@frame", "truth@frame", "model@frame", "denoised")
    "raw, raw@frame, truth@frame, model@frame, and denoised: every product of this card."
    indices: tuple[str, ...] = ("Dn4000", "HdeltaF", "Mgb")
    "Names on pipeline.indices, or of the tables; `specmill list indices` shows them."
    tables: tuple[str, ...] = ()
    "TOML or ECSV files of indices of one's own; docs/indices.md says what is in one."
    missing: float = Field(default=0.10, ge=0, lt=1)
    "Largest share of a band without data; with more the index is NaN, and flagged."
    resolution: Literal["native", "lick"] = "native"
    "As the spectra are, or smoothed to that of the Lick/IDS spectrograph where they are sharper."
    dispersion: Literal["keep", "correct"] = "keep"
    "As the stars' velocities leave an index, or without them, by templates and the vdisp column."
    emission: Literal["keep", "subtract"] = "keep"
    "Whether fitted emission lines are taken out first; the group's attributes say which was done."
    lines: tuple[str, ...] = ()
    "Inputs that emission lines are fitted on, by the same names."
    templates: str = ""
    "Files of stellar templates for lines and dispersion, such as ssp/*.fits; computed when empty."
    template_medium: Literal["air", "vacuum"] = "air"
    "What the wavelengths of such files are in."
    template_fwhm: float = Field(default=0.0, ge=0)
    "Their resolution, A."
    stars: tuple[Literal["raw", "denoised"], ...] = ()
    "What fits of stars start from; denoised: every product of this card on observed wavelengths."
    star_templates: StarTable = StarTable()
    "What stars are fitted with: the models of mocks, or files of the user's."
    draws: int = Field(default=16, ge=16)
    "Draws of the posterior that give the error of an index on a denoised spectrum."

    @field_validator("indices")
    @classmethod
    def _by_one_name(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Columns are called by the name on the shelf, however the card writes it."""
        found = tuple(canonical(name) for name in names)
        twice = sorted({name for name in found if found.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is there twice")
        return found

    @model_validator(mode="after")
    def _subtracts_what_is_fitted(self) -> Self:
        if self.emission == "subtract" and not self.lines:
            raise ValueError(
                "emission = 'subtract' without fitted lines; name inputs in lines, such as ['raw']"
            )
        return self
