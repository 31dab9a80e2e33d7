"""Commits of several processes: one goes on, the other is refused, no version is lost."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.place import StoreError
from storage.store import Survey
from storage.writer import WriteError, writing
from tests.faults import clock
from tests.storage import coordinators, s3
from tests.storage.stores import GROUP, made, written


@pytest.fixture
def path(tmp_path: Path) -> str:
    return made(tmp_path / "survey.icechunk")


def by(path: str) -> tuple[object, int]:
    """Who committed last, and how many versions there are."""
    survey = Survey.open(path)
    return survey.attrs(GROUP).get("by"), len(survey.history())


def test_a_coordinator_that_slept_while_another_took_its_lease_commits_nothing(path: str) -> None:
    with coordinators.coordinator(path) as (first, orders):
        assert first.pid is not None
        os.kill(first.pid, signal.SIGSTOP)
        coordinators.stopped(first)
        Path(f"{path}.lease").unlink()
        with writing(path, "the second") as writer:
            writer.set_attrs(GROUP, {"by": "the second"})
            writer.commit("by the second")
            before = by(path)
            os.kill(first.pid, signal.SIGCONT)
            orders.send("commit")
            said = orders.recv()
            assert said.startswith("LeaseError")
            assert "taken over by the second" in said
            first.join()
            # What it leaves behind is the other's lease.
            writer.lease.check()
        assert by(path) == before == ("the second", 4)


def test_of_two_coordinators_inside_a_commit_one_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.place.LOCK_S", 0.2)
    with coordinators.coordinator(path, halt=True) as (first, orders):
        assert first.pid is not None
        orders.send("commit")
        coordinators.stopped(first)
        Path(f"{path}.lease").unlink()
        with writing(path, "the second") as writer:
            writer.set_attrs(GROUP, {"by": "the second"})
            with pytest.raises(StoreError, match=r"inside a commit for 0.2 s; if it is stopped"):
                writer.commit("by the second")
            os.kill(first.pid, signal.SIGCONT)
            assert "no more is committed" in orders.recv()
            with pytest.raises(WriteError, match=r"committed by another writer after"):
                writer.commit("by the second")
    assert by(path) == ("the first", 4)


def test_a_killed_coordinator_leaves_the_last_version_and_the_next_goes_on(path: str) -> None:
    with coordinators.coordinator(path, halt=True) as (first, orders):
        orders.send("commit")
        coordinators.stopped(first)
        first.kill()
        first.join()
        assert by(path) == (None, 3)
        written(path, 1)
    assert [version.message for version in Survey.open(path).history()][:2] == ["flux 1", "room"]


BACK = """
import sys
from storage.writer import writing
from tests.faults import clock
from tests.storage.stores import made
path = made(sys.argv[1])
clock.skew(-2)
with writing(path, "test") as writer:
    writer.set_attrs("spectra/sdss", {"by": "the late"})
    writer.commit("late")
"""


def test_a_clock_that_is_put_back_by_seconds_is_waited_for(tmp_path: Path) -> None:
    wrong = clock.built(tmp_path)
    if not wrong:
        pytest.skip("no C compiler, and without one the clock of a store cannot be put wrong")
    path = str(tmp_path / "survey.icechunk")
    words = [sys.executable, "-c", BACK, path]
    done = subprocess.run(words, env=os.environ | wrong, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stderr
    assert by(path) == ("the late", 4)


def test_of_processes_that_make_one_store_at_once_one_makes_it_and_all_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(tmp_path / f"{number}.icechunk") for number in range(6)]
    if importlib.util.find_spec("obstore"):
        root = s3.bucket(monkeypatch)
        paths += [f"{root}/{number}.icechunk" for number in range(2)]
    opened = coordinators.together(coordinators.create, paths, count=2)
    survey = [Survey.open(path) for path in paths]
    assert sorted(opened) == sorted(2 * [one.snapshot for one in survey])
    assert [len(one.history()) for one in survey] == [2] * len(paths)
