"""Sources: where the spectra that a model learns from are, in a store or in memory."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage.grid import Grid
from storage.store import Survey

Arrays = dict[str, NDArray[Any]]
NAMES = ("flux", "ivar", "z", "ebv")
"What a frame needs of a spectrum."


class SpectraSource(Protocol):
    """Where rows come from: a store, or arrays. It travels to worker processes."""

    @property
    def grid(self) -> Grid:
        """Wavelength axis of all rows."""
        ...

    @property
    def chunk(self) -> int:
        """Rows that are read together."""
        ...

    @property
    def identity(self) -> str:
        """What tells these spectra from others: a run is continued only on the same ones."""
        ...

    def read(self, first: int, last: int) -> Arrays:
        """Rows first:last: flux and ivar (n, L) float32, z and ebv (n,)."""
        ...

    def pick(self, rows: NDArray[np.int64]) -> Arrays:
        """Flux and ivar (n, L) float32 of single rows, in their order."""
        ...

    def exact(self, name: Literal["truth", "model"], first: int, last: int) -> NDArray[np.float32]:
        """Flux without noise of rows first:last, (n, L): 0 where it is not known.

        Raises
        ------
        ValueError
            When the source has none.
        """
        ...

    def objects(self) -> NDArray[np.uint64]:
        """The sky object of each row, (N,); 0 where it is not known.

        Raises
        ------
        ValueError
            When the source does not say.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """Spectra that are in memory."""

    grid: Grid
    "Wavelength axis."
    arrays: Arrays
    "flux and ivar (N, L), z and ebv (N,); where a target needs it truth, model (N, L), object_id."
    chunk: int = 512
    "Rows that are read together."

    @property
    def identity(self) -> str:
        """Digest of the arrays."""
        found = hashlib.blake2b(digest_size=8)
        for name in (*NAMES, *sorted(self.arrays.keys() - set(NAMES))):
            found.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return found.hexdigest()

    def read(self, first: int, last: int) -> Arrays:
        """Rows first:last."""
        return {name: self.arrays[name][first:last] for name in NAMES}

    def pick(self, rows: NDArray[np.int64]) -> Arrays:
        """Single rows."""
        return {name: self.arrays[name][rows] for name in ("flux", "ivar")}

    def exact(self, name: Literal["truth", "model"], first: int, last: int) -> NDArray[np.float32]:
        """The array of that name."""
        return self._array(name, f"target {name!r}")[first:last]

    def objects(self) -> NDArray[np.uint64]:
        """The array object_id."""
        return self._array("object_id", "target 'repeat'")

    def _array(self, name: str, purpose: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise ValueError(
                f"{purpose} of [augment] needs an array {name!r}, and there is none among "
                f"{', '.join(self.arrays)}; give it, or use another target"
            )
        return self.arrays[name]


@dataclass(frozen=True, kw_only=True)
class StoreSource:
    """Spectra of one configuration of a survey, at one snapshot."""

    path: str
    "The repository."
    config: str
    "Instrument configuration: the group is spectra/<config>."
    snapshot: str | None = None
    "Snapshot id; None is the newest."
    chunk: int = 512
    "Rows of a chunk of the store."

    @property
    def grid(self) -> Grid:
        """Wavelength axis of the configuration."""
        return Grid(**self._dataset().attrs["grid"])

    @property
    def identity(self) -> str:
        """Configuration and snapshot."""
        return f"{self.config}@{self.snapshot}"

    def read(self, first: int, last: int) -> Arrays:
        """Rows first:last."""
        rows = self._dataset().isel(spectrum=slice(first, last))
        return {name: rows[name].to_numpy() for name in NAMES}

    def pick(self, rows: NDArray[np.int64]) -> Arrays:
        """Single rows; every chunk that holds one is read once."""
        once, place = np.unique(rows, return_inverse=True)
        found = self._dataset().isel(spectrum=once)
        return {name: found[name].to_numpy()[place] for name in ("flux", "ivar")}

    def exact(self, name: Literal["truth", "model"], first: int, last: int) -> NDArray[np.float32]:
        """The truth that stands beside a mock survey, or the best fit of the survey's pipeline."""
        ds = self._truth() if name == "truth" else self._dataset()
        variable = "flux" if name == "truth" else "model"
        if variable not in ds:
            raise ValueError(
                f"{self.path}: spectra/{self.config} has no variable 'model', which target 'model' "
                "of [augment] is; use another target"
            )
        return ds[variable].isel(spectrum=slice(first, last)).to_numpy()

    def objects(self) -> NDArray[np.uint64]:
        """The column object_id."""
        return self._dataset()["object_id"].to_numpy()

    def _dataset(self) -> xr.Dataset:
        return _opened(self.path, f"spectra/{self.config}", self.snapshot)

    def _truth(self) -> xr.Dataset:
        # It is written after the spectra, once and for all, so their snapshot may not hold it yet.
        try:
            return _opened(self.path, f"truth/{self.config}", None)
        except KeyError as error:
            raise ValueError(
                f"{self.path}: no group 'truth/{self.config}', which target 'truth' of [augment] "
                "is; only a mock survey has one (`specmill simulate`, then `specmill ingest`): "
                "use target 'model', or 'input' with noise 'split'"
            ) from error


@lru_cache(maxsize=8)
def _opened(path: str, group: str, snapshot: str | None) -> xr.Dataset:
    # Once a process: opening costs 7 ms, reading a chunk 100.
    dataset: xr.Dataset = Survey.open(path, snapshot=snapshot).dataset(group)
    return dataset
