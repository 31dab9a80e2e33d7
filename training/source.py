"""Sources: where the spectra that a model learns from are, in a store or in memory."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

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


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """Spectra that are in memory."""

    grid: Grid
    "Wavelength axis."
    arrays: Arrays
    "flux and ivar (N, L), z and ebv (N,)."
    chunk: int = 512
    "Rows that are read together."

    @property
    def identity(self) -> str:
        """Digest of the arrays."""
        found = hashlib.blake2b(digest_size=8)
        for name in NAMES:
            found.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return found.hexdigest()

    def read(self, first: int, last: int) -> Arrays:
        """Rows first:last."""
        return {name: self.arrays[name][first:last] for name in NAMES}


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

    def _dataset(self) -> xr.Dataset:
        return _opened(self.path, f"spectra/{self.config}", self.snapshot)


@lru_cache(maxsize=8)
def _opened(path: str, group: str, snapshot: str | None) -> xr.Dataset:
    # Once a process: opening costs 7 ms, reading a chunk 100.
    dataset: xr.Dataset = Survey.open(path, snapshot=snapshot).dataset(group)
    return dataset
