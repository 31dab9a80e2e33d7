"""Processes that want to write to one store, for the tests of the lease."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from storage.lease import Lease, LeaseError
from storage.place import StoreError
from storage.store import Survey
from storage.writer import WriteError, Writer, writing
from tests.storage.stores import GROUP

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def holder(store: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease of a store until it is killed."""
    program = (
        "import sys, time; from storage.lease import Lease;"
        "lease = Lease(sys.argv[1], 'of the other'); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, store]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def race(stores: list[str], barrier: Any, won: Any) -> None:
    """Want the lease of one store after the other, at the same moment as the others do."""
    for store in stores:
        barrier.wait()
        try:
            lease = Lease(store, "race")
            won.put(store)
        except LeaseError:
            lease = None
        barrier.wait()
        if lease is not None:
            lease.check()
    barrier.wait()


def together(target: Any, *args: Any, count: int = 3) -> list[str]:
    """What several processes put into a queue that run a function at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, said = context.Barrier(count, timeout=20), context.Queue()
    processes = [
        context.Process(target=target, args=(*args, barrier, said), daemon=True)
        for _ in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = []
    while not said.empty():
        found.append(said.get())
    return found


def coordinate(path: str, orders: Connection, halt: bool) -> None:
    """Write to a store on order; halt: stop ourselves inside the commit, after its checks."""
    if halt:
        _stop_after_the_checks()
    with writing(path, "the first") as writer:
        orders.send("ready")
        orders.recv()
        writer.set_attrs(GROUP, {"by": "the first"})
        try:
            writer.commit("by the first")
            orders.send("committed")
        except (LeaseError, WriteError, StoreError) as error:
            orders.send(f"{type(error).__name__}: {error}")


def _stop_after_the_checks() -> None:
    check = Writer._check_tip

    def stopping(writer: Writer, expected: str) -> None:
        check(writer, expected)
        Writer._check_tip = check
        os.kill(os.getpid(), signal.SIGSTOP)

    Writer._check_tip = stopping


def create(paths: list[str], barrier: Any, made: Any) -> None:
    """Make one store after the other, at the same moment as the others do."""
    for path in paths:
        barrier.wait()
        made.put(Survey.create(path).snapshot)
    barrier.wait()


@contextmanager
def coordinator(path: str, *, halt: bool = False) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that has the lease and commits when it is told to."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=coordinate, args=(path, there, halt), daemon=True)
    process.start()
    try:
        assert here.recv() == "ready"
        yield process, here
    finally:
        process.kill()
        process.join()


def stopped(process: BaseProcess) -> None:
    """Wait until a process has stopped."""
    for _ in range(500):
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return
        time.sleep(0.01)
    raise AssertionError("it did not stop")
