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
from dataclasses import dataclass, field

import numpy as np
from distributed import Client

from pipeline.block import Block, Make, Target
from pipeline.block import BlockError as BlockError
from pipeline.commits import Commits
from pipeline.flow import Flow
from pipeline.isolate import isolate
from storage.schema import Reason, Status
from storage.writer import Writer

logger = logging.getLogger(__name__)


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
    spent: float = 0.0
    "Seconds of workers that the group took; 0 where that is not known apart from others."

    def __add__(self, other: "Tally") -> "Tally":
        """Work done one after the other; the ledger is the later one's."""
        return Tally(
            rows=other.rows,
            reasons=other.reasons,
            computed=self.computed + other.computed,
            seconds=self.seconds + other.seconds,
            spent=self.spent + other.spent,
        )

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{n} {status.name.lower().replace('_', ' ')}" for status, n in self.rows.items()]
        if not self.computed:
            return f"nothing to do ({', '.join(parts)})"
        rate = self.computed / max(self.seconds, 1e-9)
        each = f", {self.spent / self.computed * 1e6:.0f} us each" if self.spent else ""
        said = f"{self.computed} now in {self.seconds:.1f} s ({rate:.0f}/s{each})"
        return f"{', '.join(parts)}; {said}"


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
    begin = time.monotonic()
    blocks = pending(target)
    computed, spent = Counter[str](), Counter[str]()
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
        computed, spent = commits.computed, commits.spent
    seconds = time.monotonic() - begin
    return {
        group: Tally(computed=computed[group], seconds=seconds, spent=spent[group])
        + tally(target.writer, group)
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
