"""Engines that are broken on purpose: a harness that lets them pass sees nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from pipeline import blocks
from pipeline.block import Block, Target
from storage.lease import Lease
from storage.writer import Writer

ENGINES = ("skips", "repeats", "drifts", "hoards", "forgets", "mixes")
"Skips a block; does one twice; makes another thing of a row the second time; keeps its lease; \
writes only some columns of a block; and those of another's rows."


@contextmanager
def engine(wrong: str) -> Iterator[None]:
    """The engine, broken in one way; sound when empty. `drifts` is in the worker."""
    with {
        "skips": lambda: mock.patch("pipeline.blocks.pending", _skipping),
        "repeats": lambda: mock.patch("pipeline.blocks.pending", _repeating),
        "hoards": lambda: mock.patch.object(Lease, "release", lambda _: None),
        "forgets": lambda: mock.patch.object(Writer, "write_columns", _forgetting),
        "mixes": lambda: mock.patch.object(Writer, "write_columns", _mixing),
    }.get(wrong, lambda: mock.patch.object(blocks, "logger", blocks.logger))():
        yield


_pending, _write = blocks.pending, Writer.write_columns


def _skipping(target: Target) -> list[Block]:
    return [block for block in _pending(target) if block.first != 4 * target.chunk_rows]


def _repeating(target: Target) -> list[Block]:
    found = _pending(target)
    again = Block(first=0, last=target.chunk_rows, groups=frozenset(target.groups))
    return found if not found or found[0].first == 0 else [again, *found]


def _forgetting(writer: Writer, group: str, first: int, columns: Any) -> None:
    kept = {name: values for name, values in columns.items() if name != "scale" or first}
    _write(writer, group, first, kept)


def _mixing(writer: Writer, group: str, first: int, columns: Any) -> None:
    turned = {n: np.roll(v, 1) if n == "scale" else v for n, v in columns.items()}
    _write(writer, group, first, turned)


