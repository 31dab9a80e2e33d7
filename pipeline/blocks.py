"""The engine of every stage: map one pure function over the pending blocks of a group.

A block is some whole chunks of rows. Workers compute it and write its pixel arrays; the coordinator
writes its columns and the ledger, and commits. A stage that died is started again: blocks that are
done are skipped, and a block that was lost half-way was never committed.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, Future, KilledWorker, as_completed

from storage.schema import Reason, Status
from storage.writer import WORKER_DIMS, Fork, Writer

logger = logging.getLogger(__name__)


class BlockError(RuntimeError):
    """A block that could not be computed."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows first:last of every group of one configuration."""

    first: int
    last: int

    @property
    def rows(self) -> slice:
        """As an index."""
        return slice(self.first, self.last)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A group to be filled, and how."""

    writer: Writer
    "The right to write."
    group: str
    "Path of the group, which exists."
    chunk_rows: int
    "Rows of one chunk."
    block_chunks: int = 1
    "Chunks of a block; see `block_chunks`."
    commit_blocks: int = 8
    "Blocks between two commits, at most."
    commit_s: float = 120.0
    "Seconds between two commits, at most."
    metadata: dict[str, Any] = field(default_factory=dict)
    "Kept with every commit."


@dataclass
class Tally:
    """What became of the rows of a run."""

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


@dataclass(frozen=True, kw_only=True)
class _Done:
    block: Block
    fork: Fork
    columns: dict[str, np.ndarray]
    seconds: float


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


def pending(writer: Writer, group: str, chunk_rows: int, chunks: int) -> list[Block]:
    """Blocks with a pending row, in order."""
    status = writer.read_column(group, "status")
    step = chunk_rows * chunks
    blocks = (
        Block(first=first, last=min(first + step, len(status)))
        for first in range(0, len(status), step)
    )
    return [block for block in blocks if (status[block.rows] == Status.PENDING).any()]


def run(make: Callable[[Block], xr.Dataset], *, target: Target, client: Client) -> Tally:
    """Map a function over the pending blocks of a group.

    Parameters
    ----------
    make : callable
        Gives all variables of the group for a block, `status` and `reason_code` among them. Pure:
        the same block gives the same values on any worker, any number of times.

    Raises
    ------
    BlockError
        When `make` raised, which is the cause; what was finished before is committed.
    KilledWorker
        When a block killed its worker again and again; likewise.
    """
    begin = time.monotonic()
    blocks = pending(target.writer, target.group, target.chunk_rows, target.block_chunks)
    computed = 0
    if blocks:
        fork = target.writer.fork()
        commits = _Commits(target, len(blocks))
        try:
            for result in _stream(client, blocks, make, target.group, fork):
                commits.take(result)
                computed += result.block.last - result.block.first
        finally:
            commits.flush()
    done = Tally(computed=computed, seconds=time.monotonic() - begin)
    return done + tally(target.writer, target.group)


def _stream(
    client: Client,
    blocks: list[Block],
    make: Callable[[Block], xr.Dataset],
    group: str,
    fork: Fork,
) -> Iterator[_Done]:
    """Results as they finish, with few blocks under way, so that memory stays bounded."""
    waiting = iter(blocks)

    def submit(block: Block) -> Future:
        # A key of its own: the result of another run must never be taken for this one's.
        key = f"{group}-{block.first}-{time.monotonic_ns()}"
        return client.submit(_work, make, block, group, fork, key=key, pure=False)

    ahead = 2 * max(1, len(client.nthreads()))
    under_way = {submit(block): block for block in islice(waiting, ahead)}
    running = as_completed(list(under_way))
    try:
        for future in running:
            done = under_way.pop(future)
            try:
                yield future.result()
            except KilledWorker:
                raise
            except Exception as error:
                raise BlockError(f"{group}: rows {done.first}:{done.last}: {error}") from error
            for block in islice(waiting, 1):
                under_way[added := submit(block)] = block
                running.add(added)
    finally:
        client.cancel(list(running.futures))


def _work(make: Callable[[Block], xr.Dataset], block: Block, group: str, fork: Fork) -> _Done:
    begin = time.monotonic()
    made = make(block)
    if made.sizes["spectrum"] != block.last - block.first:
        raise ValueError(f"{group}: {block} gave {made.sizes['spectrum']} rows")
    lost = [str(name) for name, axis in made.coords.items() if "spectrum" in axis.dims]
    if lost:
        # xarray makes a coordinate of a variable that is named like its axis.
        raise ValueError(f"{group}: {', '.join(lost)} would not be written; reset_coords() first")
    # Tasks of one process may share the object that came with them.
    own = fork.again()
    pixels = {str(n): v.to_numpy() for n, v in made.data_vars.items() if WORKER_DIMS & set(v.dims)}
    own.write_block(group, block.first, pixels)
    columns = {str(n): v.to_numpy() for n, v in made.data_vars.items() if n not in pixels}
    return _Done(block=block, fork=own, columns=columns, seconds=time.monotonic() - begin)


class _Commits:
    """Collects finished blocks and commits them every few blocks or minutes."""

    def __init__(self, target: Target, blocks: int) -> None:
        self._target, self._blocks = target, blocks
        self._held: list[_Done] = []
        self._finished = 0
        self._last = time.monotonic()

    def take(self, done: _Done) -> None:
        self._held.append(done)
        self._finished += 1
        rows = done.block.last - done.block.first
        logger.info(
            "%s: block %d of %d, rows %d:%d, %.0f spectra/s",
            self._target.group,
            self._finished,
            self._blocks,
            done.block.first,
            done.block.last,
            rows / done.seconds,
        )
        waited = time.monotonic() - self._last
        if len(self._held) >= self._target.commit_blocks or waited >= self._target.commit_s:
            self.flush()

    def flush(self) -> None:
        if not self._held:
            return
        target, held = self._target, self._held
        self._held = []
        target.writer.absorb(done.fork for done in held)
        for done in held:
            target.writer.write_columns(target.group, done.block.first, done.columns)
        rows = ", ".join(f"{done.block.first}:{done.block.last}" for done in held)
        target.writer.commit(f"{target.group}: rows {rows}", target.metadata)
        self._last = time.monotonic()


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
