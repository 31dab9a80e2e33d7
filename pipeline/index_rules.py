"""Rules: what a card asks to be measured, resolved, so that it travels to workers."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipeline import index, user_indices
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
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the indices, in order."""
        return tuple(each.name for each in self.indices)

    @property
    def units(self) -> dict[str, str]:
        """Units of the indices, by name."""
        return {each.name: each.units for each in self.indices}

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes values stale when it changes, as JSON; what is as ever is left out."""
        found: dict[str, Any] = {"indices": list(self.names)}
        defined = user_indices.definitions(self.indices)
        found |= {"definitions": defined} if defined else {}
        found |= {"missing": self.missing} if self.missing != MISSING else {}
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
