"""Read: rows of a survey's files, for a block: what a worker does in an ingest."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from pipeline import arrivals
from pipeline.arrivals import Folder
from pipeline.block import Block
from pipeline.stage import reading
from storage import schema
from storage.precision import Precision, rounded
from storage.reader import Reader
from storage.schema import Status

FROM_MAP = 2
"`ebv_known` of a row whose E(B-V) is from a map."


@dataclass(frozen=True)
class Read:
    """Pending rows of a group from their files, the others as they are: what a worker does."""

    reader: Reader
    config: str
    root: str
    store: str
    snapshot: str
    "A version in which the rows have their places."
    dust_map: str = ""
    "Folder of reddening maps."
    precision: Precision = "lossless"
    "Which bits are kept."

    def __call__(self, block: Block) -> xr.Dataset:
        """Read a block."""
        group = f"spectra/{self.config}"
        there = reading(self.store, self.snapshot).dataset(group).isel(spectrum=block.rows)
        ledger = there[["status", "source", "source_row"]].load()
        pending = ledger["status"].to_numpy() == Status.PENDING
        fresh = np.flatnonzero(pending & ~block.is_bad)
        found = self._read(ledger.isel(spectrum=fresh)) if len(fresh) else None
        if found is not None and len(fresh) == block.last - block.first:
            return found
        kept = there.drop_vars("wavelength").load()
        if found is not None:
            for name in kept.data_vars:
                kept[name].to_numpy()[fresh] = found[name].to_numpy()
        self._note(kept, np.flatnonzero(pending & block.is_bad))
        return kept

    def _note(self, kept: xr.Dataset, rows: np.ndarray) -> None:
        """Which files bad rows are from: when they are others one day, the rows are read again."""
        folder = Folder(self.reader, self.root, self.config)
        names = [f"{self.root}/{name}" for name in kept["source"].to_numpy()[rows]]
        for row, name, (size, time) in zip(rows, names, folder.facts(names), strict=True):
            kept["source_size"].to_numpy()[row] = size
            kept["source_time"].to_numpy()[row] = time
            kept["digest"].to_numpy()[row] = folder.digest(name)

    def _read(self, rows: xr.Dataset) -> xr.Dataset:
        names = [f"{self.root}/{name}" for name in rows["source"].to_numpy()]
        facts = Folder(self.reader, self.root, self.config).facts(names)
        places = rows["source_row"].to_numpy().astype(np.int64)
        parts = [
            self.reader.read(source, self.root, self.config)
            for source in arrivals.sources(names, places)
        ]
        ds = parts[0] if len(parts) == 1 else xr.concat(parts, "spectrum", combine_attrs="override")
        for name, values in {
            "source": rows["source"].to_numpy(),
            "source_row": rows["source_row"].to_numpy(),
            "source_size": facts[:, 0],
            "source_time": facts[:, 1],
        }.items():
            ds[name] = ("spectrum", values, ds[name].attrs)
        if self.dust_map:
            _redden(ds, self.dust_map)
        ds = rounded(ds, self.precision)
        return schema.check(ds.drop_vars("wavelength"), f"{self.root}: {names[0]} and following")


def _redden(ds: xr.Dataset, folder: str) -> None:
    """E(B-V) from a map, for good rows whose files give none."""
    from storage import dust_map

    lacking = (ds["status"].to_numpy() == Status.DONE) & (ds["ebv_known"].to_numpy() == 0)
    if lacking.any():
        place = (ds[name].to_numpy()[lacking] for name in ("ra", "dec"))
        ds["ebv"].to_numpy()[lacking] = dust_map.ebv(folder, *place)
        ds["ebv_known"].to_numpy()[lacking] = FROM_MAP
