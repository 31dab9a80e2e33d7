"""Commits: what workers finished becomes a version of the store, every few blocks or minutes."""

import logging
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from pipeline import signals
from pipeline.block import Target
from pipeline.worker import Columns, Piece, Task
from storage.fork import Fork

logger = logging.getLogger(__name__)


class Commits:
    """Collects finished blocks; the coordinator's part of them is written when they are enough."""

    def __init__(self, target: Target, blocks: int) -> None:
        """target: where they go; blocks: how many there will be."""
        self.computed: Counter[str] = Counter()
        "Rows made, by group."
        self.spent: Counter[str] = Counter()
        "Seconds of workers, by group, where they are known."
        self._target, self._blocks = target, blocks
        self._pieces: list[Piece] = []
        self._forks: list[Fork] = []
        self._finished = 0
        self._last = time.monotonic()

    def take(self, done: Task) -> None:
        """Keep a task's blocks, and commit when it is time."""
        if done.pieces:
            self._forks.append(done.fork)
        for piece in done.pieces:
            self._note(piece)
        waited = time.monotonic() - self._last
        if len(self._pieces) >= self._target.commit_blocks or waited >= self._target.commit_s:
            self.flush()

    def flush(self) -> None:
        """Commit what there is."""
        pieces, forks = sorted(self._pieces, key=lambda piece: piece.block.first), self._forks
        self._pieces, self._forks = [], []
        if not pieces:
            return
        # What a signal would break off here is finished, and would be lost.
        with signals.later():
            self._commit(pieces, forks)
        self._last = time.monotonic()

    def _commit(self, pieces: list[Piece], forks: list[Fork]) -> None:
        target = self._target
        target.writer.absorb(forks)
        for group in target.groups:
            for first, columns in _joined(pieces, group):
                target.writer.write_columns(group, first, columns)
        rows = ", ".join(f"{piece.block.first}:{piece.block.last}" for piece in pieces)
        groups = sorted({group for piece in pieces for group in piece.columns})
        target.writer.commit(f"{target.name}: rows {rows}", {**target.metadata, "groups": groups})

    def _note(self, piece: Piece) -> None:
        block = piece.block
        self._pieces.append(piece)
        self._finished += 1
        self.spent.update(piece.spent)
        for group in piece.columns:
            self.computed[group] += block.last - block.first
        logger.info(
            "%s: block %d of %d, rows %d:%d, %.0f spectra/s",
            self._target.name,
            self._finished,
            self._blocks,
            block.first,
            block.last,
            (block.last - block.first) / max(piece.seconds, 1e-9),
        )


def _joined(pieces: list[Piece], group: str) -> Iterator[tuple[int, Columns]]:
    """Columns of neighbouring blocks as one: a chunk of a column is then written once."""
    run: list[Piece] = []
    for piece in [piece for piece in pieces if group in piece.columns]:
        if run and run[-1].block.last != piece.block.first:
            yield run[0].block.first, _stacked(run, group)
            run = []
        run.append(piece)
    if run:
        yield run[0].block.first, _stacked(run, group)


def _stacked(run: list[Piece], group: str) -> Columns:
    names = run[0].columns[group]
    return {name: np.concatenate([piece.columns[group][name] for piece in run]) for name in names}
