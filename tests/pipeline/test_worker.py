"""A worker's task: what it leaves is whole, whatever fails behind or ahead of a block."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

from pipeline.block import Block
from pipeline.worker import Task, work
from storage.fork import Fork

GROUP = "spectra/x"
BLOCKS = tuple(Block(first=n, last=n + 4, groups=frozenset([GROUP])) for n in (0, 4, 8))


@dataclass
class Paper:
    """Stands for a fork; refuses to write some rows."""

    refuses: int = -1
    written: list[int] = field(default_factory=list)

    def again(self) -> "Paper":
        return self

    def write_block(self, group: str, first: int, arrays: Any) -> None:
        if first == self.refuses:
            raise OSError(28, "No space left on device")
        self.written.append(first)


def task(refuses: int = -1, fails: int = -1) -> tuple[Task, Paper]:
    paper = Paper(refuses)

    def make(block: Block) -> xr.Dataset:
        if block.first == fails:
            raise ValueError("bad")
        pixels = (("spectrum", "wavelength"), np.ones((4, 3), "f4"))
        codes = {name: ("spectrum", np.ones(4, "u1")) for name in ("status", "reason_code")}
        return xr.Dataset({"flux": pixels, **codes})

    return work(make, BLOCKS, cast(Fork, paper)), paper


def test_blocks_are_made_and_written_in_order() -> None:
    done, paper = task()
    assert [piece.block for piece in done.pieces] == list(BLOCKS)
    assert paper.written == [0, 4, 8]
    assert done.failed is None


@pytest.mark.parametrize("fails", [-1, 4, 8])
@pytest.mark.parametrize("refuses", [0, 4, 8])
def test_a_block_counts_as_made_only_when_it_is_written(refuses: int, fails: int) -> None:
    done, paper = task(refuses, fails)
    assert {piece.block.first for piece in done.pieces} <= set(paper.written)
    assert done.failed is not None
    if refuses < fails or fails < 0:
        assert done.failure is not None
        assert done.failed.first == refuses
        assert done.failure.phase == "write"
        assert done.failure.fatal


def test_what_came_before_a_bad_block_is_kept() -> None:
    done, paper = task(fails=8)
    assert [piece.block for piece in done.pieces] == list(BLOCKS[:2])
    assert paper.written == [0, 4]
    assert done.failed == BLOCKS[2]
    assert done.failure is not None
    assert not done.failure.fatal
