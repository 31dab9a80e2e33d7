"""The lease: one coordinator writes; a dead one does not block the next."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from storage.lease import Holder, Lease, LeaseError


def _take_and_die(store: str) -> None:
    Lease(store, "doomed")
    os._exit(9)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "survey.icechunk")


def test_a_second_coordinator_is_refused_and_told_who_writes(store: str) -> None:
    lease = Lease(store, "denoise")
    with pytest.raises(LeaseError, match=rf"denoise \(pid {os.getpid()} on"):
        Lease(store, "measure")
    lease.release()
    Lease(store, "measure").release()


def test_the_lease_of_a_dead_process_is_taken_over(store: str) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_take_and_die, args=(store,))
    process.start()
    process.join()
    assert Path(f"{store}.lease").exists()
    lease = Lease(store, "next")
    lease.check()
    lease.release()
    assert not list(Path(store).parent.iterdir())


def test_a_pid_that_was_given_to_another_process_does_not_count_as_alive(store: str) -> None:
    stale = Holder(
        host=socket.gethostname(), pid=os.getpid(), started=1.0, job="old", nonce="x", renewed="t"
    )
    Path(f"{store}.lease").write_text(json.dumps(stale.__dict__))
    Lease(store, "next").release()


def test_a_lease_of_another_host_is_never_taken(store: str) -> None:
    far = Holder(host="elsewhere", pid=1, started=1.0, job="far", nonce="x", renewed="t")
    Path(f"{store}.lease").write_text(json.dumps(far.__dict__))
    with pytest.raises(LeaseError, match="pid 1 on elsewhere"):
        Lease(store, "next")


def test_a_stolen_lease_is_noticed_and_not_removed_by_its_former_holder(store: str) -> None:
    lease = Lease(store, "first")
    thief = Holder(host="elsewhere", pid=1, started=1.0, job="thief", nonce="x", renewed="t")
    Path(f"{store}.lease").write_text(json.dumps(thief.__dict__))
    for step in (lease.check, lease.renew):
        with pytest.raises(LeaseError, match="taken over by thief"):
            step()
    lease.release()
    assert Path(f"{store}.lease").exists()


def test_a_file_that_is_no_lease_is_an_error(store: str) -> None:
    Path(f"{store}.lease").write_text("{}")
    with pytest.raises(LeaseError, match="not a lease"):
        Lease(store, "next")


def test_renewing_keeps_the_lease(store: str) -> None:
    lease = Lease(store, "first")
    lease.renew()
    lease.check()
    lease.release()
