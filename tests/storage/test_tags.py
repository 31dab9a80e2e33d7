"""Tags: names of versions, given while others write, and never of what is being freed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest

from storage import versions
from storage.lease import Lease, LeaseError
from storage.store import Survey, location
from storage.versions import tag, tags, untag
from storage.writer import writing
from tests.storage.stores import GROUP, flux, made, pixels, written


@pytest.fixture
def path(tmp_path: Path) -> str:
    return made(tmp_path / "survey.icechunk")


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


def test_a_tag_is_given_while_a_coordinator_commits_and_means_one_version(path: str) -> None:
    first = written(path, 1)
    with writing(path, "ingest") as writer:
        writer.set_attrs(GROUP, {"colour": "blue"})
        assert tag(path, "before") == first
        second = writer.commit("blue")
        assert tag(path, "after") == second
        writer.set_attrs(GROUP, {"colour": "green"})
        writer.commit("green")
    assert tags(path) == {"after": second, "before": first}
    assert Survey.open(path, snapshot="after").attrs(GROUP)["colour"] == "blue"


def test_of_two_that_give_one_name_at_once_one_is_told_whose_it_is(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = written(path, 1), written(path, 2)
    look = versions.lookup

    def theirs_in_between(*given: Any) -> str:
        found = look(*given)
        monkeypatch.setattr(versions, "lookup", look)
        tag(path, "dr1", first)
        return found

    monkeypatch.setattr(versions, "lookup", theirs_in_between)
    with pytest.raises(ValueError, match=rf"tag 'dr1' is of version {first}; take another name"):
        tag(path, "dr1", second)
    assert tags(path) == {"dr1": first}


def test_no_tag_is_given_while_versions_are_freed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(path, 1)
    lease = Lease(path, "expire")
    with pytest.raises(LeaseError, match=r"expire \(pid.*it frees versions: tag again when it is"):
        tag(path, "dr1", first)
    assert tags(path) == {}
    # One that begins just after the tag has looked.
    monkeypatch.setattr(versions, "WAIT_S", 0.1)
    looks = iter([None, *[lease.holder] * 1000])
    monkeypatch.setattr(versions, "held", lambda _: next(looks))
    with pytest.raises(LeaseError, match=r"may not have seen it.*verify .* --snapshot dr1"):
        tag(path, "dr1", first)
    lease.release()


def test_a_version_that_is_freed_while_it_is_named_gets_no_name(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = written(path, 1), written(path, 2)
    create = versions._create_tag

    def late(repository: icechunk.Repository, *given: str) -> None:
        create(repository, *given)
        # As if the expiry had listed the tags just before.
        for file in Path(path, "snapshots").glob(first):
            file.unlink()

    monkeypatch.setattr(versions, "_create_tag", late)
    with pytest.raises(ValueError, match=r"no snapshot or tag .*, or it was expired"):
        tag(path, "dr1", first)
    assert tags(path) == {}


def test_a_version_that_a_killed_expiry_cut_off_gets_no_name(path: str) -> None:
    first, _ = written(path, 1), written(path, 2)
    icechunk.Repository.open(location(path)).expire_snapshots(
        datetime.now(UTC) + timedelta(seconds=1)
    )
    with pytest.raises(ValueError, match=r"or it was expired"):
        tag(path, "dr1", first)
