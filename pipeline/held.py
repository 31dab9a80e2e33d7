"""Held: what the stages of one pass have of a block, each array read once, each frame made once."""

from functools import lru_cache

import numpy as np
import xarray as xr

from pipeline.block import Block
from pipeline.stage import footprint_columns, grid_of, reading
from storage.grid import Grid
from storage.schema import Status
from storage.store import Survey
from storage.writer import COLUMN_ROWS
from training.batch import Batch
from training.device import worker_device
from training.frame import Frame, Mapper


class ChunkError(RuntimeError):
    """A chunk of the store that cannot be read."""


class Held:
    """Rows of a survey at one version, and what was made of them already."""

    def __init__(self, store: str, snapshot: str, config: str, block: Block) -> None:
        """Nothing is read yet."""
        self.block = block
        self.spectra = f"spectra/{config}"
        self.made: dict[str, xr.Dataset] = {}
        "Groups of this block that this pass has made."
        self.spent: dict[str, float] = {}
        "Seconds that each of them took."
        self._store, self._snapshot = store, snapshot
        self._values: dict[tuple[str, str], np.ndarray] = {}
        self._batches: dict[str, Batch] = {}

    @property
    def survey(self) -> Survey:
        """The survey."""
        return reading(self._store, self._snapshot)

    def values(self, group: str, name: str) -> np.ndarray:
        """A variable of a group; rows that are bad are not read, hold 0 and are quarantined."""
        if group in self.made:
            return self.made[group][name].to_numpy()
        if (group, name) not in self._values:
            self._values[group, name] = self._read(group, name)
        return self._values[group, name]

    def has(self, group: str, name: str) -> bool:
        """Whether a group has a variable."""
        return name in (self.made[group] if group in self.made else self._dataset(group))

    def batch(self, frame: Frame) -> Batch:
        """The observed spectra on a frame."""
        key = f"frame {frame.digest8}"
        if key not in self._batches:
            flux, ivar = (self.values(self.spectra, name) for name in ("flux", "ivar"))
            self._batches[key] = self.framed(frame, flux, ivar)
        return self._batches[key]

    def framed(self, frame: Frame, flux: np.ndarray, ivar: np.ndarray) -> Batch:
        """Spectra of the observed ones' wavelengths and redshifts on a frame."""
        z, ebv = (self.values(self.spectra, name) for name in ("z", "ebv"))
        return _mapper(self._store, self._snapshot, self.spectra, frame).to(
            flux, ivar, z, ebv, device=worker_device()
        )

    def footprint(self) -> xr.Dataset:
        """What a footprint looks at."""
        spectra = self._dataset(self.spectra)
        grid = Grid(**spectra.attrs["grid"])
        return footprint_columns(spectra, grid, lambda name: self.values(self.spectra, name))

    def _dataset(self, group: str) -> xr.Dataset:
        return _opened(self._store, self._snapshot, group)

    def _read(self, group: str, name: str) -> np.ndarray:
        try:
            return self._without_bad(group, name)
        except MemoryError:
            # Ours, not the chunk's.
            raise
        except Exception as error:
            raise ChunkError(
                f"{self._store}: {group}/{name} cannot be read ({error}); `specmill verify` names "
                "the rows"
            ) from error

    def _without_bad(self, group: str, name: str) -> np.ndarray:
        array = self._dataset(group)[name]
        if array.dims == ("spectrum",):
            found = self._from_column(group, name)
        else:
            found = self._from_chunks(array, int(self.survey.attrs(group)["chunk_rows"]))
        bad = self.block.is_bad
        if bad.any():
            found = found.copy()
            if name == "status":
                found[bad] = Status.QUARANTINED
            elif found.ndim > 1:
                # The redshift stays: by the largest of a batch pixels are taken in or left out.
                found[bad] = 0
        return found

    def _from_column(self, group: str, name: str) -> np.ndarray:
        first, last = self.block.first, self.block.last
        parts = [
            _column_chunk(self._store, self._snapshot, group, name, number)[
                max(first - number * COLUMN_ROWS, 0) : last - number * COLUMN_ROWS
            ]
            for number in range(first // COLUMN_ROWS, -(-last // COLUMN_ROWS))
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _from_chunks(self, array: xr.DataArray, rows: int) -> np.ndarray:
        bad, begin = self.block.is_bad, self.block.first
        if not bad.any():
            return array[self.block.rows].to_numpy()
        found = np.zeros((len(bad), *array.shape[1:]), array.dtype)
        for first in range(0, len(bad), rows):
            part = slice(first, min(first + rows, len(bad)))
            if not bad[part].all():
                # A chunk that cannot be read is one whose rows are all bad.
                found[part] = array[begin + part.start : begin + part.stop].to_numpy()
        return found


@lru_cache(maxsize=64)
def _column_chunk(store: str, snapshot: str, group: str, name: str, number: int) -> np.ndarray:
    """One chunk of a column, for all blocks in it: text is slow to decode."""
    rows = slice(number * COLUMN_ROWS, (number + 1) * COLUMN_ROWS)
    return _opened(store, snapshot, group)[name][rows].to_numpy()


@lru_cache(maxsize=32)
def _opened(store: str, snapshot: str, group: str) -> xr.Dataset:
    """A group, opened once: nothing of it may be loaded in place."""
    return reading(store, snapshot).dataset(group)


@lru_cache(maxsize=8)
def _mapper(store: str, snapshot: str, spectra: str, frame: Frame) -> Mapper:
    return frame.on(grid_of(reading(store, snapshot), spectra))
