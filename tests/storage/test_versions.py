"""Versions: a tag keeps one for ever; expiry frees the others, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import icechunk
import numpy as np
import pytest

from storage.lease import LeaseError
from storage.store import Survey, location
from storage.versions import expire, tag, tags, untag
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


def test_a_tag_names_a_version_and_is_opened_like_one(path: str) -> None:
    first, second = written(path, 1), written(path, 2)
    assert tag(path, "dr1", first) == first
    assert tag(path, "dr2") == second
    assert tag(path, "also-dr1", "dr1") == first
    assert tags(path) == {"also-dr1": first, "dr1": first, "dr2": second}
    np.testing.assert_array_equal(flux(path, "dr1"), pixels(1))
    history = {version.message: version.tags for version in Survey.open(path).history()}
    assert history["flux 1"] == ("also-dr1", "dr1")
    assert history["flux 2"] == ("dr2",)
    assert history["room"] == ()


def test_a_name_is_given_once(path: str) -> None:
    first = tag(path, "dr1")
    with pytest.raises(ValueError, match=rf"tag 'dr1' is of version {first}; take another name"):
        tag(path, "dr1")
    untag(path, "dr1")
    assert tags(path) == {}
    with pytest.raises(ValueError, match=r"a name is used once"):
        tag(path, "dr1")
    with pytest.raises(KeyError, match=r"no tag 'dr1' \(there: none\)"):
        untag(path, "dr1")


@pytest.mark.parametrize("name", ["", "a/b", "..", "ü", "x" * 101, "two words"])
def test_a_name_that_is_no_file_name_is_refused(path: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"a tag is 1-100 letters"):
        tag(path, name)


def test_a_tag_of_no_version_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"no snapshot or tag 'ZZZZ'"):
        tag(path, "dr1", "ZZZZ")
    with pytest.raises(FileNotFoundError, match=r"no survey store here"):
        tag(f"{path[: -len('.icechunk')]}2.icechunk", "dr1")


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
