"""What is kept of an epoch gives the next one to the bit, and costs no more room than it may."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.training.course import task
from tests.training.test_batches import batches, rows
from training.batch import Batch
from training.batches import Batches
from training.kept import FOLDER, Kept, room

CHUNK = 10 * 90 * 2 * 4
"Bytes of the flux and ivar of a chunk; scale, z and ok come to less than 2 % of it."


def all_of(given: Batches, epoch: int) -> list[Batch]:
    return list(given.epoch(epoch))


def assert_same(actual: list[Batch], expected: list[Batch]) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        for name, value in vars(other).items():
            found = getattr(one, name)
            assert found is None if value is None else torch.equal(found, value), name


def test_a_chunk_is_read_once(tmp_path: Path) -> None:
    given, forgetful = batches(kept=Kept(tmp_path / "kept", 1 << 20)), batches()
    for epoch in range(3):
        assert_same(all_of(given, epoch), all_of(forgetful, epoch))
    assert given.source.reads == Counter({(i, i + 10): 1 for i in range(0, 100, 10)})
    assert set(forgetful.source.reads.values()) == {3}


@pytest.mark.parametrize(
    "augment",
    [
        {"noise": "split", "redshift": 300.0},
        {"target": "truth", "noise": "fresh"},
        {"target": "truth", "sigma": 0.1, "masks": 0.2},
    ],
    ids=str,
)
def test_draws_are_those_of_the_epoch(tmp_path: Path, augment: dict[str, Any]) -> None:
    work = task()
    arrays = work.source.arrays
    truth = {**arrays, "truth": arrays["flux"] + np.float32(0.01)}
    card = work.card.model_copy(
        update={"augment": work.card.augment.model_validate(augment), "options": {}}
    )
    work = replace(work, card=card, source=replace(work.source, arrays=truth))
    kept = Kept(tmp_path / "kept", 1 << 30)
    for which in ("train", "val"):
        given, forgetful = work.batches(which, kept=kept), work.batches(which)
        for epoch in (0, 1):
            assert_same(all_of(given, epoch), all_of(forgetful, epoch))
    assert len(list(kept.folder.iterdir())) == 300 // GRID_CHUNK + 1


GRID_CHUNK = 50
"Rows of a chunk of the task: the last has rows of both sides of the split."


def test_ranks_share_what_is_kept(tmp_path: Path) -> None:
    shares = [
        batches(rank=rank, world=2, kept=Kept(tmp_path / "kept", 1 << 20)) for rank in range(2)
    ]
    for epoch in range(4):
        found = [row for share in shares for row in rows(share, epoch)]
        assert sorted(found) == list(range(100))
    assert sum((share.source.reads for share in shares), Counter()).total() == 10


def test_no_more_is_kept_than_may_be(tmp_path: Path) -> None:
    given = batches(kept=Kept(tmp_path / "kept", int(3.2 * CHUNK)))
    rows(given, 0), rows(given, 1)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert sorted(given.source.reads.values()) == [1] * 3 + [2] * 7


class Disk(NamedTuple):
    total: int
    used: int
    free: int


def test_half_of_what_is_free_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, free = tmp_path / "kept", 8 * CHUNK

    def usage(path: Path) -> Disk:
        used = sum(file.stat().st_size for file in folder.iterdir())
        return Disk(free, used, free - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    rows(batches(kept=Kept(folder, 1 << 30)), 0)
    assert 3 <= len(list(folder.iterdir())) <= 4


def test_where_nothing_can_be_written_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("in the way")
    given = batches(kept=Kept(tmp_path / "kept", 1 << 20))
    assert sorted(rows(given, 0)) == list(range(100))
    assert sorted(rows(given, 1)) == list(range(100))
    (said,) = caplog.records
    assert "no more is kept for the next epoch" in said.message


def test_a_damaged_file_is_read_again_from_the_survey(tmp_path: Path) -> None:
    given, other = batches(kept=Kept(tmp_path / "kept", 1 << 20)), batches()
    rows(given, 0)
    first, second = sorted((tmp_path / "kept").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:-100])
    second.unlink()
    assert_same(all_of(given, 1), all_of(other, 1))


def test_the_room_is_empty_before_and_gone_after(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "of a killed run").touch()
    with room(tmp_path):
        assert not (tmp_path / FOLDER).exists()
        rows(batches(kept=Kept(tmp_path / FOLDER, 1 << 20)), 0)
        assert (tmp_path / FOLDER).exists()
    assert not (tmp_path / FOLDER).exists()


def test_the_room_is_gone_after_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with room(tmp_path):
            rows(batches(kept=Kept(tmp_path / FOLDER, 1 << 20)), 0)
            raise KeyError("training")

    with pytest.raises(KeyError, match="training"):
        fail()
    assert not (tmp_path / FOLDER).exists()
