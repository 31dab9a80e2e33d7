"""The lease: one coordinator writes; a dead one does not block the next, a living one does."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from storage.holder import INITIAL, Holder
from storage.lease import Lease, LeaseError
from tests.storage import coordinators, s3

FAR = Holder(
    host="elsewhere",
    machine="m",
    boot="b",
    space="s",
    pid=1,
    started="1",
    job="far",
    nonce="x",
    renewed="t",
)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "survey.icechunk")
    pytest.importorskip("obstore")
    return f"{s3.bucket(monkeypatch)}/survey.icechunk"


@pytest.fixture
def local(tmp_path: Path) -> str:
    return str(tmp_path / "survey.icechunk")


def lay(store: str, holder: Holder) -> None:
    """Leave the lease of a holder at a store, as if it had been taken or written over."""
    lease = Lease(store, "layer")
    found = lease._slot.read()
    assert found is not None
    assert lease._slot.renew(found, json.dumps(asdict(holder)))


def gone(**changes: object) -> Holder:
    """A holder on this machine whose process is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Holder.me("gone"), **{"pid": process.pid, **changes})


def test_a_second_coordinator_is_refused_and_told_who_writes(store: str) -> None:
    lease = Lease(store, "denoise")
    with pytest.raises(LeaseError, match=rf"denoise \(pid {os.getpid()} on"):
        Lease(store, "measure")
    lease.release()
    Lease(store, "measure").release()


def test_renewing_keeps_the_lease_and_says_when(store: str) -> None:
    lease = Lease(store, "first")
    lease.holder = replace(lease.holder, renewed="long ago")
    lease.renew()
    lease.check()
    assert lease.holder.renewed.startswith("20")
    with pytest.raises(LeaseError, match=rf"last seen {lease.holder.renewed[:13]}"):
        Lease(store, "second")
    lease.release()
    Lease(store, "second").release()


def test_the_lease_of_a_process_that_was_killed_is_taken_over(local: str) -> None:
    with coordinators.holder(local) as process:
        with pytest.raises(LeaseError, match=rf"of the other \(pid {process.pid} on"):
            Lease(local, "next")
        process.kill()
        process.wait()
        lease = Lease(local, "next")
        lease.check()
        lease.release()
    assert list(Path(local).parent.iterdir()) == []


def test_a_zombie_does_not_hold_a_lease(local: str) -> None:
    with coordinators.holder(local) as process:
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        Lease(local, "next").release()


def test_a_dead_holder_is_evicted_wherever_the_store_lies(store: str) -> None:
    lay(store, gone())
    lease = Lease(store, "next")
    lease.check()
    lease.release()


def test_a_pid_that_was_given_to_another_process_does_not_count_as_alive(local: str) -> None:
    lay(local, replace(Holder.me("old"), started="1"))
    Lease(local, "next").release()


def test_no_clock_makes_a_living_process_look_dead(
    local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coordinators.holder(local):
        # A clock stepped by a day moves the time of boot, from which psutil counts.
        boot = psutil.boot_time()
        for name in ("psutil.boot_time", "psutil._pslinux.boot_time"):
            monkeypatch.setattr(name, lambda: boot + 86_400, raising=False)
        monkeypatch.setattr("time.time", lambda: 4e9)
        file = Path(f"{local}.lease")
        for renewed in ("1999-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", "?"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "renewed": renewed}))
            with pytest.raises(LeaseError, match=r"of the other \(pid"):
                Lease(local, "next")


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, True),
        ({"host": "elsewhere"}, False),
        ({"machine": "another of the same name"}, False),
        ({"space": "pid:[1]"}, False),
        ({"boot": "earlier", "pid": os.getpid()}, True),
        ({"boot": "earlier", "machine": ""}, False),
        ({"boot": "earlier", "space": "pid:[1]"}, False),
        ({"boot": ""}, False),
    ],
    ids=[
        "here",
        "another host",
        "another machine",
        "another container",
        "before a reboot",
        "a reboot of which machine",
        "an earlier container",
        "no boot known",
    ],
)
def test_only_a_process_of_this_machine_is_provably_dead(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], dead: bool
) -> None:
    # The machine on which the test runs may be a container itself.
    found = {"host": "h", "machine": "m", "boot": "now", "space": INITIAL}
    monkeypatch.setattr("storage.holder._here", lambda: found)
    assert gone(**{**found, **changes}).is_dead() is dead


def test_two_containers_without_a_machine_id_share_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"host": "h", "machine": "", "boot": "now", "space": "pid:[1]"}
    monkeypatch.setattr("storage.holder._here", lambda: found)
    assert gone(**found).is_dead()
    assert not Holder.me("alive").is_dead()


def test_a_lease_of_another_host_is_never_taken(store: str) -> None:
    lay(store, FAR)
    with pytest.raises(LeaseError, match=r"pid 1 on elsewhere.* remove the file"):
        Lease(store, "next")


def test_a_stolen_lease_is_noticed_and_not_removed_by_its_former_holder(store: str) -> None:
    lease = Lease(store, "first")
    found = lease._slot.read()
    assert found is not None
    assert lease._slot.remove(found)
    lay(store, replace(FAR, job="thief"))
    for step in (lease.check, lease.renew):
        with pytest.raises(LeaseError, match=r"taken over by thief"):
            step()
    lease.release()
    with pytest.raises(LeaseError, match=r"thief \(pid 1 on elsewhere"):
        Lease(store, "next")


def test_a_lease_that_was_removed_by_hand_is_noticed(store: str) -> None:
    lease = Lease(store, "first")
    found = lease._slot.read()
    assert found is not None
    lease._slot.remove(found)
    with pytest.raises(LeaseError, match=r"taken over by nobody; nothing is committed"):
        lease.check()
    lease.release()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"host": "h"', "\x00\xff", json.dumps({**asdict(FAR), "pid": 0})],
)
def test_a_file_that_is_no_lease_is_an_error(local: str, text: str) -> None:
    file = Path(f"{local}.lease")
    file.write_text(text)
    with pytest.raises(LeaseError, match=r"\.lease: not a lease .* remove it if nobody writes"):
        Lease(local, "next")
    assert file.read_text() == text


def test_of_processes_that_want_a_lease_at_once_exactly_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [str(tmp_path / f"{number}.icechunk") for number in range(24)]
    if importlib.util.find_spec("obstore"):
        root = s3.bucket(monkeypatch)
        stores += [f"{root}/{number}.icechunk" for number in range(4)]
    # Every other one was left by a dead process, which all of them want to evict.
    dead = gone()
    for store in stores[::2]:
        lay(store, dead)
    assert sorted(coordinators.together(coordinators.race, stores)) == sorted(stores)


@pytest.mark.parametrize(
    ("job", "restart", "dead"),
    [("7", "1", True), ("7", "0", False), ("8", "1", False), ("", "1", False)],
    ids=["started again", "the same start", "another job", "no job"],
)
def test_a_job_that_slurm_started_again_takes_over_from_its_former_self(
    store: str, monkeypatch: pytest.MonkeyPatch, job: str, restart: str, dead: bool
) -> None:
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    # On a node that was lost: nothing of it can be seen from here.
    before = replace(Holder.me("before"), host="lost", machine="lost")
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    assert before.is_dead() is dead
