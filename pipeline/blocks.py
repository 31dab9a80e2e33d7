"""The engine of every stage: map one pure function over the pending blocks of some groups.

A block is some whole chunks of rows. Workers compute it and write its pixel arrays; the coordinator
writes its columns and the ledger, and commits. A stage that died is started again: blocks that are
done are skipped, and a block that was lost half-way was never committed. A spectrum that fails, or
kills, whoever computes it is found and quarantined, and the others go on.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from storage.schema import Reason, Status
from storage.writer import Writer

logger = logging.getLogger(__name__)


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


@dataclass
class Tally:
    """What became of the rows of a group."""

    rows: Counter[Status] = field(default_factory=Counter)
    "Rows by status, of the whole group."
    reasons: Counter[Reason] = field(default_factory=Counter)
    "Rows by reason, of the whole group, without NONE."
    computed: int = 0
    "Rows computed now; the others were done before."
    seconds: float = 0.0
    "Wall time."

    def __add__(self, other: "Tally") -> "Tally":
        """Work done one after the other; the ledger is the later one's."""
        return Tally(
            rows=other.rows,
            reasons=other.reasons,
            computed=self.computed + other.computed,
            seconds=self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{n} {status.name.lower().replace('_', ' ')}" for status, n in self.rows.items()]
        if not self.computed:
            return f"nothing to do ({', '.join(parts)})"
        rate = self.computed / max(self.seconds, 1e-9)
        return f"{', '.join(parts)}; {self.computed} now in {self.seconds:.1f} s ({rate:.0f}/s)"


def block_chunks(rows: int, chunk_rows: int, row_bytes: int, memory: int, workers: int) -> int:
    """Chunks of a block, a power of two: at most an eighth of a worker's memory and half its share.

    Parameters
    ----------
    rows, chunk_rows : int
        Of the group.
    row_bytes : int
        Bytes of one row, inputs and outputs together.
    memory : int
        Bytes a worker may use.
    workers : int
        Number of them.

    Raises
    ------
    MemoryError
        When one chunk does not fit; shows the arithmetic.

    Examples
    --------
    >>> block_chunks(3000, 512, 100_000, 2 << 30, 2)
    2
    """
    fit = memory // 8 // (chunk_rows * row_bytes)
    if fit < 1:
        need = 8 * chunk_rows * row_bytes
        raise MemoryError(
            f"a chunk of {chunk_rows} rows x {row_bytes} bytes needs 8 x that = {need} bytes in a "
            f"worker, which has {memory}; give cluster.memory more"
        )
    wanted = min(fit, math.ceil(math.ceil(rows / chunk_rows) / (2 * workers)))
    # A power of two: the steps of ingest, and stores that grow by them, are whole blocks then.
    return 1 << (max(1, wanted).bit_length() - 1)


def pending(target: Target) -> list[Block]:
    """Blocks with a pending row, in order, each with the groups that lack it."""
    waiting = {
        group: target.writer.read_column(group, "status") == Status.PENDING
        for group in target.groups
    }
    rows, step = len(waiting[target.groups[0]]), target.chunk_rows * target.block_chunks
    found = []
    for first in range(0, rows, step):
        last = min(first + step, rows)
        lacking = frozenset(group for group, rows in waiting.items() if rows[first:last].any())
        if lacking:
            found.append(Block(first=first, last=last, groups=lacking))
    return found


def run(make: Make, *, target: Target, client: Client) -> dict[str, Tally]:
    """Map a function over the pending blocks of some groups; a tally of each.

    Rows that fail alone are quarantined, with the reason in `reason` where the group has one.

    Raises
    ------
    BlockError
        When the store refuses, when what was made has not the group's shape, or when so much fails
        that it is not the spectra's fault; what was finished before is committed.
    """
    from pipeline.commits import Commits
    from pipeline.flow import Flow
    from pipeline.isolate import isolate

    begin = time.monotonic()
    blocks = pending(target)
    computed: Counter[str] = Counter()
    if blocks:
        flow = Flow(client=client, make=make, target=target, fork=target.writer.fork())
        commits = Commits(target, len(blocks))
        try:
            for done in flow.run(blocks):
                commits.take(done)
            for block, failure in list(flow.failed):
                logger.warning("%s: rows %d:%d: %s", target.name, block.first, block.last, failure)
                commits.take(flow.one(isolate(flow, block, failure)))
        finally:
            commits.flush()
        computed = commits.computed
    seconds = time.monotonic() - begin
    return {
        group: Tally(computed=computed[group], seconds=seconds) + tally(target.writer, group)
        for group in target.groups
    }


def tally(writer: Writer, group: str) -> Tally:
    """The ledger of a group, counted."""
    status, codes = (writer.read_column(group, name) for name in ("status", "reason_code"))
    return Tally(
        rows=Counter({Status(value): count for value, count in _count(status)}),
        reasons=Counter({Reason(value): count for value, count in _count(codes) if value}),
    )


def _count(values: np.ndarray) -> list[tuple[int, int]]:
    found, counts = np.unique(values, return_counts=True)
    return [(int(value), int(count)) for value, count in zip(found, counts, strict=True)]
