"""Batches give every row once, in an order that the seed alone decides."""

import gc
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage import schema
from storage.grid import Grid
from storage.store import Survey
from storage.writer import writing
from training.batches import Batches
from training.frame import Frame
from training.readers import readers
from training.source import ArraySource, StoreSource

GRID = Grid(kind="linear", start=4000, step=2, size=100)
FRAME = Frame(
    name="t", grid=Grid(kind="linear", start=4002, step=2, size=90), window=(4010, 4100), dust=None
)


def spectra(n: int) -> dict[str, np.ndarray[Any, Any]]:
    """Flat spectra of flux row + 1: the scale of a batch tells which row it is."""
    flux = (np.arange(n, dtype="f4") + 1)[:, None] * np.ones(GRID.size, "f4")
    return {"flux": flux, "ivar": np.ones_like(flux), "z": np.zeros(n), "ebv": np.zeros(n)}


@dataclass(frozen=True, kw_only=True)
class Counted(ArraySource):
    reads: Counter[tuple[int, int]] = field(default_factory=Counter)

    def read(self, first: int, last: int) -> dict[str, np.ndarray[Any, Any]]:
        self.reads[first, last] += 1
        return super().read(first, last)


def batches(n: int = 100, **options: Any) -> Batches:
    said = {"rows": np.arange(n), "batch_size": 16, "frame": FRAME} | options
    return Batches(source=Counted(grid=GRID, arrays=spectra(n), chunk=10), **said)


def rows(given: Batches, epoch: int) -> list[int]:
    return [round(float(s)) - 1 for batch in given.epoch(epoch) for s in batch.scale]


def test_every_row_comes_once_an_epoch() -> None:
    wanted = np.array([3, 17, 18, 55, 99, 60, 61, 62])
    given = batches(rows=wanted, batch_size=3)
    assert sorted(rows(given, 0)) == sorted(wanted)
    assert [len(batch.x) for batch in given.epoch(0)] == [3, 3, 2]
    assert len(given) == 3


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert rows(batches(seed=1), 4) == rows(batches(seed=1), 4)
    assert rows(batches(seed=1), 4) != rows(batches(seed=1), 5)
    assert rows(batches(seed=1), 4) != rows(batches(seed=2), 4)
    # Not chunk by chunk: rows of several are mixed.
    assert len({row // 10 for row in rows(batches(seed=1), 0)[:16]}) > 2


def test_unshuffled_rows_ascend() -> None:
    assert rows(batches(shuffle=False), 3) == list(range(100))


def test_whole_chunks_are_read() -> None:
    given = batches()
    rows(given, 0), rows(given, 1)
    assert given.source.reads == Counter({(i, i + 10): 2 for i in range(0, 100, 10)})


def test_more_readers_change_nothing() -> None:
    one, four = batches(), batches(readers=4)
    for a, b in zip(one.epoch(1), four.epoch(1), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.scale, b.scale)


def test_a_reader_has_one_core_and_leaves_those_of_others_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with readers(2) as pool:
            assert [pool.submit(torch.get_num_threads).result() for _ in range(8)] == [1] * 8
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as new:
            assert new.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_a_batch_is_what_the_frame_makes_of_the_rows() -> None:
    batch = next(batches(shuffle=False).epoch(0))
    arrays = spectra(16)
    expected = FRAME.on(GRID).to(arrays["flux"], arrays["ivar"], arrays["z"], arrays["ebv"])
    assert torch.equal(batch.x, expected.x)
    assert torch.equal(batch.weight, expected.weight)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no rows to train on; check \[sample\]"):
        batches(rows=np.array([], dtype=int))


def test_a_failing_source_is_heard() -> None:
    with pytest.raises(KeyError, match="ivar"):
        next(
            Batches(
                source=ArraySource(grid=GRID, arrays={"flux": np.ones((5, 100))}),
                rows=np.arange(5),
                frame=FRAME,
                batch_size=2,
            ).epoch(0)
        )


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_goes_on_at_any_batch(world: int, shuffle: bool) -> None:
    given = batches(n=97, rank=world - 1, world=world, batch_size=7, shuffle=shuffle)
    complete = list(given.epoch(2))
    for first in range(len(complete) + 2):
        rest = list(given.epoch(2, first))
        assert len(rest) == max(len(complete) - first, 0)
        for actual, expected in zip(rest, complete[first:], strict=True):
            assert torch.equal(actual.scale, expected.scale)
            assert torch.equal(actual.x, expected.x)


def test_chunks_that_only_earlier_batches_need_are_not_read() -> None:
    given = batches()
    # Windows of 4 chunks of 10 rows: batch 5 begins at row 80, in the third.
    assert len(rows(given, 0)[80:]) == sum(len(batch.x) for batch in given.epoch(0, 5))
    once = batches()
    rest = [round(float(s)) - 1 for batch in once.epoch(0, 5) for s in batch.scale]
    assert rest == rows(given, 0)[80:]
    assert {first // 10 for first, _ in once.source.reads} == {row // 10 for row in rest}
    assert sum(once.source.reads.values()) == 2
    assert list(once.epoch(0, 7)) == []


def held() -> float:
    """Chunks in memory: tensors of 10 or 20 rows of the frame, each of two a chunk."""
    row, found = FRAME.grid.size * 4, {}
    for thing in gc.get_objects():
        # Not isinstance: it asks what other libraries keep for its class, and they warn.
        if type(thing) is torch.Tensor and thing.ndim == 2:
            storage = thing.untyped_storage()
            if storage.nbytes() in (10 * row, 20 * row):
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values()) / (2 * 10 * row)


def test_a_few_chunks_are_in_memory_and_never_the_survey() -> None:
    given = batches(2000, window=2, batch_size=5)
    before, most, ahead, seen = held(), 0.0, 0, 0
    for number, batch in enumerate(given.epoch(0)):
        seen += len(batch.x)
        ahead = max(ahead, 10 * given.source.reads.total() - seen)
        if number % 80 == 3:
            most = max(most, held() - before)
    # Three windows of two chunks of 200, and the chunk that is being read.
    assert 2 <= most <= 7
    # What is read ahead is the window after the one that is given.
    assert ahead <= 4 * 10


def test_the_next_window_is_read_before_it_is_asked_for() -> None:
    given = batches(window=2)
    running = given.epoch(0)
    next(running)
    for _ in range(1000):
        if given.source.reads.total() == 4:
            break
        time.sleep(0.01)
    assert given.source.reads.total() == 4


def test_a_store_is_read_at_its_snapshot(tmp_path: Path) -> None:
    path, arrays = str(tmp_path / "survey.icechunk"), spectra(30)
    Survey.create(path)
    with writing(path, job="test") as writer:
        writer.create_group("spectra/toy", schema.template(30, GRID), {"grid": GRID.model_dump()})
        writer.commit("make")
        fork = writer.fork()
        fork.write_block("spectra/toy", 0, {name: arrays[name] for name in ("flux", "ivar")})
        writer.absorb([fork])
        columns = {"z": arrays["z"], "ebv": arrays["ebv"].astype("f4")}
        writer.write_columns("spectra/toy", 0, columns)
        first = writer.commit("ingest")
        fork = writer.fork()
        fork.write_block("spectra/toy", 0, {"flux": 5 * arrays["flux"]})
        writer.absorb([fork])
        writer.commit("change")
    source = StoreSource(path=path, config="toy", snapshot=first)
    assert source.grid == GRID
    given = Batches(source=source, rows=np.arange(30), frame=FRAME, batch_size=8)
    assert sorted(rows(given, 0)) == list(range(30))
    newest = StoreSource(path=path, config="toy").read(4, 5)
    assert newest["flux"][0, 0] == 25
    assert source.identity != StoreSource(path=path, config="toy").identity
