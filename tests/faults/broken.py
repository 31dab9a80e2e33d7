"""Engines that are broken on purpose: a harness that lets them pass sees nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np

from pipeline import blocks
from pipeline.block import Block, Target
from pipeline.commits import Commits
from storage.lease import Lease
from storage.writer import Writer

ENGINES = {
    "skips": "nothing",
    "repeats": "nothing",
    "drifts": "worker-killed",
    "forgets": "nothing",
    "mixes": "nothing",
    "hoards": "nothing",
    "shares": "coordinator-stopped",
}
"""What is wrong, and the fault by which it shows: a block is never done; blocks are committed
twice; rows that are made again come out different; a column of some blocks is not written, or gets
its neighbours' rows; the lease is kept; the lease is given to whoever asks."""


@contextmanager
def engine(wrong: str) -> Iterator[None]:
    """The engine, broken in one way; sound when empty. `drifts` is in the worker."""
    broken: dict[str, Callable[[], Any]] = {
        "skips": lambda: mock.patch("pipeline.blocks.pending", _skipping),
        "repeats": lambda: mock.patch.object(Commits, "flush", _repeating),
        "forgets": lambda: mock.patch.object(Writer, "write_columns", _forgetting),
        "mixes": lambda: mock.patch.object(Writer, "write_columns", _mixing),
        "hoards": lambda: mock.patch.object(Lease, "release"),
        "shares": lambda: mock.patch("storage.holder.Holder.is_dead", return_value=True),
    }
    with broken.get(wrong, nullcontext)():
        yield


_pending, _flush, _write = blocks.pending, Commits.flush, Writer.write_columns


def _skipping(target: Target) -> list[Block]:
    return [block for block in _pending(target) if block.first != 4 * target.chunk_rows]


def _repeating(commits: Commits) -> None:
    pieces, target = list(commits._pieces), commits._target
    _flush(commits)
    for piece in pieces:
        for group, columns in piece.columns.items():
            target.writer.write_columns(group, piece.block.first, columns)
        rows = f"rows {piece.block.first}:{piece.block.last}"
        target.writer.commit(f"{target.name}: {rows}", {"groups": sorted(piece.columns)})


def _forgetting(writer: Writer, group: str, first: int, columns: Any) -> None:
    kept = {name: values for name, values in columns.items() if name != "scale" or first}
    _write(writer, group, first, kept)


def _mixing(writer: Writer, group: str, first: int, columns: Any) -> None:
    turned = {n: np.roll(v, 1) if n == "scale" else v for n, v in columns.items()}
    _write(writer, group, first, turned)
