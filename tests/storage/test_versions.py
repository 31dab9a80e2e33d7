"""Expiry frees old versions, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import numpy as np
import pytest

from storage.lease import LeaseError
from storage.store import Survey, location
from storage.versions import expire, tag, untag
from storage.writer import writing
from tests.storage.stores import GROUP, flux, made, pixels, written


@pytest.fixture
def path(tmp_path: Path) -> str:
    return made(tmp_path / "survey.icechunk")


def files(path: str, folder: str = "") -> dict[str, int]:
    return {
        str(file): file.stat().st_size for file in Path(path, folder).rglob("*") if file.is_file()
    }


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def test_expiry_leaves_the_newest_and_the_tagged_versions_whole(path: str) -> None:
    snapshots = [written(path, value) for value in range(4)]
    tag(path, "dr1", snapshots[1])
    before = sum(files(path).values())
    freed = expire(path, later())
    # Three chunks of flux each, of two versions; three versions: these and the empty room.
    assert freed.chunks == 6
    assert freed.bytes > 6 * pixels(0).nbytes / 3 * 0.7
    assert before - sum(files(path).values()) == pytest.approx(freed.bytes, rel=0.05)
    np.testing.assert_array_equal(flux(path), pixels(3))
    np.testing.assert_array_equal(flux(path, "dr1"), pixels(1))
    history = Survey.open(path).history()
    assert [version.message for version in history][:2] == ["flux 3", "flux 1"]
    assert history[1].tags == ("dr1",)
    assert freed.kept == len(history)
    with pytest.raises(
        ValueError, match=rf"no snapshot or tag '{snapshots[2]}', or it was expired"
    ):
        Survey.open(path, snapshot=snapshots[2])


def test_a_dry_run_counts_what_expiry_then_frees_and_deletes_nothing(path: str) -> None:
    snapshots = [written(path, value) for value in range(4)]
    tag(path, "dr1", snapshots[1])
    before = files(path)
    told = expire(path, later(), dry_run=True)
    assert files(path) == before
    np.testing.assert_array_equal(flux(path, snapshots[0]), pixels(0))
    freed = expire(path, later())
    assert (told.snapshots, told.chunks, told.kept) == (freed.snapshots, freed.chunks, freed.kept)
    assert told.bytes == pytest.approx(freed.bytes, rel=0.02)
    assert (told.dry_run, freed.dry_run) == (True, False)


def test_younger_versions_are_kept(path: str) -> None:
    first = written(path, 1)
    between = Survey.open(path).history()[0].written + timedelta(microseconds=1)
    second, third = written(path, 2), written(path, 3)
    expire(path, between)
    for snapshot, value in ((second, 2), (third, 3)):
        np.testing.assert_array_equal(flux(path, snapshot), pixels(value))
    with pytest.raises(ValueError, match=r"or it was expired"):
        Survey.open(path, snapshot=first)


def test_chunks_that_a_killed_writer_left_are_freed(path: str) -> None:
    written(path, 1)
    with writing(path, "test") as writer:
        writer.fork().write_block(GROUP, 0, {"flux": pixels(7)})
    assert len(files(path, "chunks")) >= 6
    freed = expire(path, datetime(2000, 1, 1, tzinfo=UTC))
    assert (freed.chunks, freed.snapshots) == (3, 0)
    np.testing.assert_array_equal(flux(path), pixels(1))


def test_what_products_were_made_from_is_kept_until_nothing_names_it(path: str) -> None:
    snapshots = [written(path, value) for value in range(3)]
    with writing(path, "test") as writer:
        writer.set_attrs(GROUP, {"input_snapshot": snapshots[1]})
        tagged = writer.commit("product")
    tag(path, "dr1", tagged)
    with writing(path, "test") as writer:
        writer.set_attrs(GROUP, {"input_snapshot": snapshots[2]})
        writer.commit("product again")
    told = expire(path, later(), dry_run=True)
    freed = expire(path, later())
    assert (told.chunks, told.kept) == (freed.chunks, freed.kept) == (3, 5)
    for value in (1, 2):
        np.testing.assert_array_equal(flux(path, snapshots[value]), pixels(value))
    with pytest.raises(ValueError, match=r"or it was expired"):
        Survey.open(path, snapshot=snapshots[0])
    assert [version.message for version in Survey.open(path).history()] == [
        "product again",
        "product",
        "flux 2",
        "flux 1",
        "Repository initialized",
    ]
    # Both stay in an expiry of later, too.
    written(path, 3)
    expire(path, later())
    np.testing.assert_array_equal(flux(path, snapshots[1]), pixels(1))
    untag(path, "dr1")
    assert expire(path, later()).chunks == 3
    np.testing.assert_array_equal(flux(path, snapshots[2]), pixels(2))
    with pytest.raises(ValueError, match=r"or it was expired"):
        Survey.open(path, snapshot=snapshots[1])


def test_the_version_that_changed_a_group_last_is_kept(path: str) -> None:
    """By it training and measuring know whether what they have is of today."""
    written(path, 0)
    with writing(path, "test") as writer:
        writer.set_attrs(GROUP, {"colour": "blue"})
        last = writer.commit("rows", {"group": GROUP})
    written(path, 1)
    written(path, 2)
    expire(path, later())
    told = {version.snapshot: version.metadata for version in Survey.open(path).history()}
    assert told[last] == {"group": GROUP}
    np.testing.assert_array_equal(flux(path, last), pixels(0))


def test_a_product_of_a_version_that_is_lost_already_does_not_hinder_expiry(path: str) -> None:
    lost = written(path, 1)
    written(path, 2)
    expire(path, later())
    with writing(path, "test") as writer:
        writer.set_attrs(GROUP, {"input_snapshot": lost})
        writer.commit("product")
    written(path, 3)
    assert expire(path, later()).chunks == 3
    np.testing.assert_array_equal(flux(path), pixels(3))


def test_nothing_is_freed_while_somebody_writes(path: str) -> None:
    with writing(path, "ingest") as writer:
        fork = writer.fork()
        fork.write_block(GROUP, 0, {"flux": pixels(1)})
        for dry_run in (True, False):
            with pytest.raises(LeaseError, match=r"ingest \(pid"):
                expire(path, later(), dry_run=dry_run)
        writer.absorb([fork])
        writer.commit("flux 1")
    np.testing.assert_array_equal(flux(path), pixels(1))


def test_a_store_can_be_written_on_after_expiry(path: str) -> None:
    written(path, 1)
    expire(path, later())
    written(path, 2)
    np.testing.assert_array_equal(flux(path), pixels(2))
    assert expire(path, later()).chunks == 3


def test_a_time_without_a_zone_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"in which time zone"):
        expire(path, datetime(2026, 1, 1))


def test_an_expiry_that_was_killed_half_way_is_finished_by_the_next(path: str) -> None:
    snapshots = [written(path, value) for value in range(3)]
    tag(path, "dr1", snapshots[0])
    # The history is cut first, the garbage collected then.
    icechunk.Repository.open(location(path)).expire_snapshots(later())
    np.testing.assert_array_equal(flux(path, "dr1"), pixels(0))
    freed = expire(path, later())
    assert (freed.chunks, freed.kept) == (3, 3)
    np.testing.assert_array_equal(flux(path, "dr1"), pixels(0))
    np.testing.assert_array_equal(flux(path), pixels(2))
