"""A scheduler and its workers as an operator starts them, each a process of its own."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.faults.coordinator import scheduler, worker
from tests.faults.ground import MEMORY_MIB
from tests.faults.processes import Running, start
from tests.faults.trial import PASS, Trial

WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes."""

    scheduler: Running
    workers: list[Running]
    "Nannies."


@contextmanager
def cluster(trial: Trial) -> Iterator[Cluster]:
    """Start it, and have the command of the trial use it; it is ended here, not by the command."""
    port = _free()
    first = start(scheduler, port, str(trial.folder))
    _await(port)
    scratch = str(trial.folder)
    there = Cluster(
        scheduler=first,
        workers=[start(worker, port, MEMORY_MIB, scratch) for _ in range(WORKERS)],
    )
    address = f"cluster.address=tcp://127.0.0.1:{port}"
    trial.words = (*PASS, "--set", "cluster.backend=scheduler", "--set", address)
    try:
        yield there
    finally:
        for each in (*there.workers, first):
            each.process.terminate()
        for each in (*there.workers, first):
            if each.wait(10) is None:
                trial.note("a process of the cluster had to be killed")
                each.process.kill()
                each.wait(10)


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await(port: int) -> None:
    for _ in range(2000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"no scheduler on port {port}")
