"""Rules: what a card asks to be measured, resolved, so that it travels to workers."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipeline import index, user_indices
from pipeline.card import digest8
from pipeline.card_measure import Measure
from pipeline.index import MISSING, Index, Matrix, Measured


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Indices, and the rules that they are measured by."""

    indices: tuple[Index, ...]
    "Of the shelf and of tables: a worker needs no file."
    missing: float = MISSING
    "Largest share of a band without data."
    lick: bool = False
    "Whether at the resolution of Lick/IDS."
    without_lines: tuple[str, ...] = ()
    "Inputs, by the names of the card, that fitted emission lines are taken out of first."

    @classmethod
    def of(cls, table: Measure) -> Self:
        """As the [measure] table of a card says.

        Raises
        ------
        FileNotFoundError, CardError, ValueError
            As `user_indices.chosen`.
        """
        return cls(
            indices=user_indices.chosen(table.indices, table.tables),
            missing=table.missing,
            lick=table.resolution == "lick",
            without_lines=table.lines if table.emission == "subtract" else (),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the indices, in order."""
        return tuple(each.name for each in self.indices)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the indices in tables of errors: measured by other rules, it is another index.

        The plain name where it means what the shelf says, by the rules of a card that says none;
        else with a digest of what differs.
        """
        defined = user_indices.definitions(self.indices)
        rules = self._unusual | ({"emission": "subtract"} if self.products_lose_lines else {})
        return tuple(_key(name, rules, defined.get(name)) for name in self.names)

    @property
    def units(self) -> dict[str, str]:
        """Units of the indices, by name."""
        return {each.name: each.units for each in self.indices}

    @property
    def products_lose_lines(self) -> bool:
        """Whether emission lines are taken out of denoised spectra."""
        return "denoised" in self.without_lines

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes values stale when it changes, as JSON; what is as ever is left out."""
        found: dict[str, Any] = {"indices": list(self.names)}
        defined = user_indices.definitions(self.indices)
        found |= {"definitions": defined} if defined else {}
        return found | self._unusual

    @property
    def _unusual(self) -> dict[str, Any]:
        """The rules that are not as ever."""
        found: dict[str, Any] = {"missing": self.missing} if self.missing != MISSING else {}
        return found | ({"resolution": "lick"} if self.lick else {})

    def __call__(
        self,
        wavelength: ArrayLike,
        flux: Matrix,
        ivar: Matrix | None,
        z: Matrix | None = None,
        lsf: Matrix | None = None,
    ) -> Measured:
        """`index.measure` by these rules.

        lsf : (N, L) pixels; looked at where the resolution is that of Lick/IDS. Without, it is not
        known, and indices are NaN and flagged.
        """
        if not self.lick:
            return index.measure(wavelength, flux, ivar, self.indices, z=z, missing=self.missing)
        if lsf is None:
            lsf = torch.zeros_like(flux) if isinstance(flux, torch.Tensor) else np.zeros(flux.shape)
        return index.measure(
            wavelength, flux, ivar, self.indices, z=z, missing=self.missing, lsf=lsf
        )


def _key(name: str, rules: dict[str, Any], definition: Any) -> str:
    said = rules | ({"definition": definition} if definition else {})
    return f"{name}@{digest8(said)}" if said else name
