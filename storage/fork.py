"""A worker's part of a transaction: blocks of whole chunks.

Two forks in one chunk would merge without an error and lose rows, so they are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import icechunk
import numpy as np
import zarr

from storage.place import reaching


class WriteError(ValueError):
    """A write that would lose rows."""


@dataclass
class Fork:
    """A worker's part of a transaction: pickled to it, written by it, returned by it."""

    session: icechunk.ForkSession
    "What Icechunk merges."
    base: str
    "Snapshot that it started from."
    claims: set[tuple[str, int]] = field(default_factory=set)
    "Chunks written: (array, number of the chunk)."
    path: str = ""
    "The store, for messages."

    def again(self) -> Self:
        """A fork of its own for the next block of a worker that keeps this one."""
        return type(self)(self.session.fork(), self.base, path=self.path)

    def write_block(self, group: str, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write rows from `first` on of (spectrum, ...) arrays: whole chunks, or up to the end.

        Raises
        ------
        WriteError
            When the rows begin or end inside a chunk, or a chunk was written before.
        """
        target = zarr.open_group(self.session.store, path=group, mode="r+")
        for name, values in arrays.items():
            array = target[name]
            assert isinstance(array, zarr.Array)
            rows, last = array.chunks[0], first + len(values)
            if first % rows or (last % rows and last != array.shape[0]):
                raise WriteError(
                    f"{group}/{name}: rows {first}:{last} are not whole chunks of {rows} "
                    f"(of {array.shape[0]}); a block begins and ends where chunks do"
                )
            self._claim(f"{group}/{name}", range(first // rows, -(-last // rows)))
            with reaching(self.path or group):
                array[first:last] = values

    def _claim(self, array: str, chunks: Iterable[int]) -> None:
        wanted = {(array, chunk) for chunk in chunks}
        refuse_overlap(self.claims, wanted)
        self.claims |= wanted


def refuse_overlap(taken: set[tuple[str, int]], wanted: set[tuple[str, int]]) -> None:
    """Raise WriteError when a chunk is wanted that is taken."""
    twice = sorted(taken & wanted)
    if twice:
        array, chunk = twice[0]
        raise WriteError(
            f"{array}: chunk {chunk} is written twice in one transaction "
            f"({len(twice)} such chunks); give every block to one worker only"
        )
