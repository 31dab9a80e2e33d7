"""Block: rows that are made at once, of which groups, and where they go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage.schema import Reason
from storage.writer import Writer


class BlockError(RuntimeError):
    """A block that could not be computed."""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A row that is not to be touched."""

    row: int
    "Its number in the survey."
    code: Reason
    "Why."
    text: str
    "Why, in words."


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows first:last of every group of one configuration."""

    first: int
    last: int
    groups: frozenset[str] = frozenset()
    "Those that lack rows of it; the others are there."
    bad: tuple[Bad, ...] = ()
    "Rows that are known to fail: they are not read, computed or measured."

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.first, self.last)

    @property
    def is_bad(self) -> NDArray[np.bool_]:
        """(rows,) which are bad."""
        found = np.zeros(self.last - self.first, bool)
        found[[bad.row - self.first for bad in self.bad]] = True
        return found


Made = xr.Dataset | Mapping[str, xr.Dataset]
"All variables of a group, `status` and `reason_code` among them; or those of each of some groups."
Make = Callable[..., Made]
"Gives them for a block. Pure: the same for the same block on any worker, any number of times."


@runtime_checkable
class Ahead(Protocol):
    """A function that can read for a block before its turn, in another thread."""

    def read(self, block: Block) -> Any:
        """What it needs of the store."""
        ...

    def __call__(self, block: Block, held: Any) -> Made:
        """Make the block of what was read."""
        ...

    def spent(self, held: Any) -> dict[str, float]:
        """Seconds that each group took; nothing where that is not known."""
        ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """Groups to be filled, and how."""

    writer: Writer
    "The right to write."
    groups: tuple[str, ...]
    "Paths of the groups, which exist and have the same rows."
    chunk_rows: int
    "Rows of one chunk."
    block_chunks: int = 1
    "Chunks of a block; see `block_chunks`."
    commit_blocks: int = 8
    "Blocks between two commits, at most."
    commit_s: float = 120.0
    "Seconds between two commits, at most."
    task_s: float = 20.0
    "Seconds that a worker is given work for at a time, about."
    metadata: dict[str, Any] = field(default_factory=dict)
    "Kept with every commit."

    @property
    def name(self) -> str:
        """For messages."""
        return self.groups[0] if len(self.groups) == 1 else f"{self.groups[0]} and others"
