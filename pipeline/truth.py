"""The truth of a mock survey: left beside its files, carried row-aligned into the store."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client

from pipeline import blocks
from pipeline.block import Block
from pipeline.card import Card
from pipeline.stage import config_of, everywhere, origin, reader, target
from storage import schema
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import Writer

TRUTH = "truth.zarr"
"Where simulate leaves it, below the survey's root."


def is_there(card: Card) -> bool:
    """Whether the survey of a card has its truth beside it."""
    return (Path(card.survey.root) / TRUTH).is_dir()


def is_done(card: Card, survey: Survey) -> bool:
    """Whether the store has the truth of its card, or the card has none."""
    group = f"truth/{config_of(card)}"
    if not is_there(card):
        return True
    return group in survey and not (survey.dataset(group)["status"] == Status.PENDING).any()


@dataclass(frozen=True)
class CopyTruth:
    """Rows of the truth, aligned with the spectra by the name of the observation."""

    folder: str
    store: str
    snapshot: str
    config: str

    def __call__(self, block: Block) -> xr.Dataset:
        """Copy a block."""
        truth, row_of = _truth(self.folder)
        survey = Survey.open(self.store, snapshot=self.snapshot)
        names = survey.dataset(f"spectra/{self.config}")["observation"][block.rows].to_numpy()
        rows = np.array([row_of.get(str(name), -1) for name in names])
        found = truth.isel(spectrum=np.maximum(rows, 0)).drop_vars("wavelength").load()
        missing = rows < 0
        for variable in found.data_vars.values():
            lacking = np.nan if variable.dtype.kind == "f" and variable.ndim == 1 else 0
            variable.to_numpy()[missing] = np.array(lacking, dtype=variable.dtype)
        found["status"] = ("spectrum", _code(missing, Status.NOT_APPLICABLE, Status.DONE, "u1"))
        found["reason_code"] = (
            "spectrum",
            _code(missing, Reason.UPSTREAM_NOT_APPLICABLE, Reason.NONE, "u2"),
        )
        return found.drop_vars("observation")


def ingest(card: Card, writer: Writer, client: Client) -> blocks.Tally:
    """Copy the truth into /truth/<config>, aligned with the spectra that are there."""
    config = config_of(card)
    grid = reader(card).configs[config]
    group = f"truth/{config}"
    if group not in writer:
        truth, _ = _truth(str(Path(card.survey.root) / TRUTH))
        rows = writer.rows(f"spectra/{config}")
        shape = {
            str(name): schema.Field(
                dtype=variable.dtype.str[1:] if variable.dtype.kind != "T" else "str",
                units=variable.attrs["units"],
                description=variable.attrs["long_name"],
                dims=tuple(str(dim) for dim in variable.dims),
            )
            for name, variable in truth.data_vars.items()
            if name != "observation"
        }
        template = schema.template(rows, grid, {**shape, **schema.LEDGER})
        writer.create_group(group, template, {**origin(card), **truth.attrs})
        writer.commit(f"{group}: room for {rows} rows", {"group": group})
    make = CopyTruth(
        folder=str(Path(card.survey.root) / TRUTH),
        store=everywhere(card.store),
        snapshot=Survey.open(card.store).snapshot,
        config=config,
    )
    where = target(card, writer, [group], grid.size)
    return blocks.run(make, target=where, client=client)[group]


@cache
def _truth(folder: str) -> tuple[xr.Dataset, dict[str, int]]:
    """The truth that simulate left, and the row of each observation; once per process."""
    truth = xr.open_zarr(folder, consolidated=False, zarr_format=3, chunks=None)
    names = truth["observation"].to_numpy()
    return truth, {str(name): row for row, name in enumerate(names)}


def _code(condition: np.ndarray, yes: int, no: int, dtype: str) -> np.ndarray:
    return np.where(condition, int(yes), int(no)).astype(dtype)
