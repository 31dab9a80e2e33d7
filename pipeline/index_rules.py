"""Rules: what a card asks to be measured, resolved, so that it travels to workers."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipeline import index, index_dispersion, user_indices
from pipeline.card import digest8
from pipeline.card_measure import Measure
from pipeline.index import MISSING, Index, Matrix, Measured
from pipeline.index_dispersion import Correction
from pipeline.line_templates import LineTemplates, line_templates
from storage.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Indices, and the rules that they are measured by."""

    indices: tuple[Index, ...]
    "Of the shelf and of tables: a worker needs no file."
    missing: float = MISSING
    "Largest share of a band without data."
    lick: bool = False
    "Whether at the resolution of Lick/IDS."
    dispersion: LineTemplates | None = None
    "Templates that velocity dispersions are corrected by; None: indices are left as they are."
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
            dispersion=line_templates(table) if table.dispersion == "correct" else None,
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
        else with a digest of what differs. The dispersion is not in it: tables are of indices as
        they are before they are corrected for it.
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
        return found | self._unusual | ({"dispersion": self._corrected} if self.dispersion else {})

    @property
    def as_seen(self) -> Self:
        """These rules without the correction for velocity dispersion."""
        return replace(self, dispersion=None)

    @property
    def wants_spread(self) -> bool:
        """Whether line spreads are looked at."""
        return self.lick or self.dispersion is not None

    def correction(
        self,
        wavelength: ArrayLike,
        rows: int,
        z: Matrix | None,
        lsf: Matrix | None,
        vdisp: Matrix | None,
    ) -> Correction | None:
        """How spectra are corrected for their velocity dispersion, where they are.

        Arguments as they measure by; of dispersions and line spreads that are not given none is
        known.
        """
        if self.dispersion is None:
            return None
        axis = Grid.infer(np.asarray(wavelength, np.float64))
        sigma = torch.full((rows,), torch.nan) if vdisp is None else torch.as_tensor(vdisp)
        spread = torch.zeros(rows, axis.size) if lsf is None else torch.as_tensor(lsf)
        return index_dispersion.correction(
            index_dispersion.table(self.dispersion, self.indices, self.lick),
            axis,
            sigma.cpu(),
            None if z is None else torch.as_tensor(z).cpu(),
            None if self.lick else spread.cpu(),
        )

    @property
    def _corrected(self) -> dict[str, Any]:
        """What the correction for velocity dispersion depends on, and how each index has it."""
        assert self.dispersion is not None
        ways = index_dispersion.table(self.dispersion, self.indices, self.lick).ways
        return {
            "templates": self.dispersion.recipe,
            "version": index_dispersion.VERSION,
            "ways": dict(zip(self.names, ways, strict=True)),
        }

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
        vdisp: Matrix | None = None,
    ) -> Measured:
        """`index.measure` by these rules.

        lsf : (N, L) pixels; looked at where the resolution is that of Lick/IDS, or the dispersion
        is corrected for. vdisp : (N,) km/s, of the stars; looked at where it is corrected for.
        Without, they are not known, and indices are NaN and flagged.
        """
        found = self._measured(wavelength, flux, ivar, z, lsf)
        change = self.correction(wavelength, flux.shape[0], z, lsf, vdisp)
        return found if change is None else change.of(found)

    def _measured(
        self,
        wavelength: ArrayLike,
        flux: Matrix,
        ivar: Matrix | None,
        z: Matrix | None,
        lsf: Matrix | None,
    ) -> Measured:
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
