"""Isolate: which rows of a block fail, or kill, the worker that computes it.

Rows are left out of the block, never cut from it: batches keep their size and place, so that what
is made of the others does not change by a bit.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from distributed import Client

from pipeline.block import Bad, Block, BlockError
from pipeline.flow import Flow
from pipeline.worker import Failure
from storage.schema import Reason

logger = logging.getLogger(__name__)

PARTS = 8
"A chunk is first cut in so many; when more than half fail, it is not some spectra's fault."


def isolate(flow: Flow, block: Block, failure: Failure) -> Block:
    """The block with its bad rows named.

    Raises
    ------
    BlockError
        When most of it fails, or it fails together but no row alone.
    """
    with _strict(flow.client):
        search = _Search(flow, block)
        # Nothing is found where workers were taken away, and killed by nobody.
        said = search.tried(block, range(block.first, block.last))
        bad = search.all(said) if said else {}
    for text, rows in _told(bad).items():
        logger.warning("%s: rows %s quarantined: %s", flow.target.name, rows, text)
    return replace(block, bad=tuple(bad[row] for row in sorted(bad)))


class _Search:
    def __init__(self, flow: Flow, block: Block) -> None:
        self._flow, self._block = flow, block

    def all(self, failure: Failure) -> dict[int, Bad]:
        """The bad rows of the block, chunk by chunk: a chunk that cannot be read is bad whole."""
        rows, found = range(self._block.first, self._block.last), dict[int, Bad]()
        for chunk, said in list(self._failing(_pieces(rows, self._flow.target.chunk_rows))):
            if said.phase == "read":
                found |= {row: _bad(row, Reason.STORE_DAMAGED, said) for row in chunk}
            else:
                found |= self.rows(chunk, failure)
        if not found:
            raise BlockError(
                f"{self._flow.target.name}: rows {self._block.first}:{self._block.last} fail "
                f"together, but not apart: {failure.text}; give cluster.memory more"
            )
        return found

    def rows(self, left: Sequence[int], failure: Failure) -> dict[int, Bad]:
        """The rows of a chunk that fail by themselves."""
        parts = list(self._failing(_cut(left, PARTS)))
        if len(parts) > PARTS // 2 and len(left) >= 2 * PARTS:
            raise self._flow.error(self._block, failure)
        found: dict[int, Bad] = {}
        while parts:
            part, said = parts.pop()
            if len(part) == 1:
                found[part[0]] = _bad(part[0], Reason.FAILED, said)
            else:
                parts += self._failing(_cut(part, 2))
        return found

    def tried(self, block: Block, rows: Sequence[int]) -> Failure | None:
        """Why the block cannot be made with only these rows; None when it can."""
        kept = set(rows)
        out = [row for row in range(block.first, block.last) if row not in kept]
        bad = tuple(Bad(row=row, code=Reason.FAILED, text="left out") for row in out)
        failed = self._flow.one(replace(block, bad=bad), keep=False).failure
        if failed is not None and failed.fatal:
            raise self._flow.error(block, failed)
        return failed

    def _failing(self, parts: list[Sequence[int]]) -> Iterator[tuple[Sequence[int], Failure]]:
        for part in parts:
            if said := self.tried(self._block, part):
                yield part, said


def _told(bad: dict[int, Bad]) -> dict[str, str]:
    """Rows of each reason, neighbours as one range."""
    found: dict[str, list[list[int]]] = {}
    for row in sorted(bad):
        ranges = found.setdefault(bad[row].text, [])
        if ranges and ranges[-1][1] == row:
            ranges[-1][1] = row + 1
        else:
            ranges.append([row, row + 1])
    return {text: ", ".join(f"{a}:{b}" for a, b in ranges) for text, ranges in found.items()}


def _bad(row: int, code: Reason, failure: Failure) -> Bad:
    return Bad(row=row, code=code, text=failure.text)


def _cut(rows: Sequence[int], parts: int) -> list[Sequence[int]]:
    return _pieces(rows, -(-len(rows) // parts))


def _pieces(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


@contextmanager
def _strict(client: Client) -> Iterator[None]:
    """One death is enough of an answer while rows are looked for."""
    before = client.run_on_scheduler(_allow, failures=0)
    try:
        yield
    finally:
        client.run_on_scheduler(_allow, failures=before)


def _allow(failures: int, dask_scheduler: Any = None) -> int:
    before = int(dask_scheduler.allowed_failures)
    dask_scheduler.allowed_failures = failures
    return before
