"""Denoise: what a checkpoint makes of a block of a survey, for the rows that routes give it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr

from pipeline import route
from pipeline.held import Held
from pipeline.product import ABOVE_CEILING, EXTRAPOLATED, MISFIT, loaded, product
from pipeline.trust import LIMIT, misfit
from storage.schema import COLUMNS, Reason, Status
from training.apply import Precision
from training.batch import Batch
from training.device import download
from training.footprint import Footprint
from training.model import Output
from training.precision import Asked

VERSION = 1
"Raised when the same spectra and checkpoint give other values: products are stale then."

_LOOKED_AT = ("status", "object_type")


class Columns(Protocol):
    """Where columns are read: a survey, or a transaction on it."""

    def __contains__(self, group: str) -> bool: ...

    def attrs(self, group: str) -> dict[str, Any]:
        """Attributes of a group."""
        ...

    def rows(self, group: str) -> int:
        """Rows of a group."""
        ...

    def read_column(self, group: str, name: str) -> np.ndarray:
        """A column, as an array."""
        ...


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Rows of a product from the spectra."""

    config: str
    plan: route.Plan
    chosen: route.Chosen
    outside: str
    asked: Asked = "float32"
    "Precision, as the card asks for it."
    precision: Precision = "float32"
    "As it was chosen."

    @property
    def group(self) -> str:
        """The product."""
        return group_of(self.config, self.chosen)

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What it always reads: (group, variable)."""
        return tuple((f"spectra/{self.config}", name) for name in ("flux", "ivar", "z", "ebv"))

    def ledger(self, held: Held) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status, reason and route of the rows of a block, by the rules alone."""
        n = held.block.last - held.block.first
        return self._ruled(lambda name: held.values(held.spectra, name), n)

    def routed(self, there: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status, reason and route of all rows, by the rules alone."""
        spectra = f"spectra/{self.config}"
        return self._ruled(lambda name: there.read_column(spectra, name), there.rows(spectra))

    def _ruled(
        self, column: Callable[[str], np.ndarray], n: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Text decodes slowly: only what the rules look at is read.
        wanted = {*_LOOKED_AT, *self.plan.columns(COLUMNS)}
        columns = {name: column(name) for name in sorted(wanted)}
        return self.plan.ledger(columns, n, self.chosen)

    def __call__(self, held: Held) -> xr.Dataset:
        """Denoise a block."""
        model = loaded(self.chosen.path)
        status, code, number = self.ledger(held)
        made = product(len(status), model, block=True)
        made["route"].values[:] = number
        made["reason"].values[:] = self.plan.words(number, code)
        if (status == Status.DONE).any():
            batch = held.batch(model.frame)
            judge(made, model.footprint, held.footprint(), batch, (status, code), self.outside)
            fill(made, model.run(batch, self.precision), batch, status == Status.DONE)
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made


def group_of(config: str, chosen: route.Chosen) -> str:
    """The group of a checkpoint's product."""
    return f"denoised/{config}/{chosen.name}"


def judge(
    made: xr.Dataset,
    footprint: Footprint | None,
    columns: xr.Dataset,
    batch: Batch,
    ledger: tuple[np.ndarray, np.ndarray],
    outside: str,
) -> None:
    """Footprint and ceiling of the model, row by row; takes rows out, or flags them.

    made : flag and reason are changed; columns : what a footprint looks at; ledger : status and
    reason code (N,) of the rows, changed; outside : 'skip' or 'flag', as a card has it.

    Raises
    ------
    ValueError
        When the checkpoint has no footprint.
    """
    status, code = ledger
    if footprint is None:
        raise ValueError("the checkpoint has no footprint; train the model again")
    missing = download(batch.missing)
    inside, words = footprint.judge(columns, missing)
    mine = status == Status.DONE
    # A row that the frame cannot hold has nothing to extrapolate from.
    hopeless = mine & ~download(batch.ok)
    out = mine & (~inside | hopeless)
    flag, reason = made["flag"].to_numpy(), made["reason"].to_numpy()
    reason[out] = words[out]
    reason[hopeless & inside] = "the frame's normalisation window has no usable flux"
    skipped = out if outside == "skip" else hopeless
    status[skipped], code[skipped] = Status.NOT_APPLICABLE, Reason.OUTSIDE_FOOTPRINT
    flag[out & ~skipped] |= EXTRAPOLATED
    flag[mine & ~skipped & footprint.above_ceiling(columns)] |= ABOVE_CEILING


def fill(made: xr.Dataset, said: Output, batch: Batch, done: np.ndarray) -> None:
    """Put what the model said into the product, in the survey's unit, where rows are done."""
    left = misfit(batch.x, batch.weight, said.flux)
    made["misfit"].values[done] = left[done]
    made["flag"].values[done & (left > LIMIT)] |= MISFIT
    scale = batch.scale[:, None]
    values = {
        "flux": said.flux * scale,
        "sigma": None if said.sigma is None else said.sigma * scale,
        "latent": said.latent,
        "latent_cov": said.latent_cov,
        "scale": batch.scale,
    }
    for name, value in values.items():
        if name in made and value is not None:
            made[name].values[done] = download(value)[done]
