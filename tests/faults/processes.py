"""Processes of a trial: forked from one server that has imported everything, and all accounted for.

Importing takes seconds and a trial has some ten processes, workers among them; forked, they begin
in hundredths. Whoever is left when a trial is over is a child of the server.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tests.faults import clock

_context: Any = multiprocessing.get_context("forkserver")
_server: Any = forkserver._forkserver  # type: ignore[attr-defined]


def serve(folder: Path) -> None:
    """Start the server; what its children print that nobody hears goes to a file there."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    _context.set_forkserver_preload(["tests.faults.preload"])
    with _environment(threads | clock.built(folder)), _silent(folder / "strays"):
        _server.ensure_running()


def children() -> list[psutil.Process]:
    """Processes of the trials that live."""
    found = []
    for process in psutil.Process(_server._forkserver_pid).children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def end() -> None:
    """Kill what is left of the trials; the server ends with the last of them."""
    for process in children():
        with suppress(psutil.NoSuchProcess):
            process.kill()


@dataclass
class Running:
    """A process, and what it says."""

    process: Any
    begun: float = field(default_factory=time.monotonic)
    _said: list[bytes] = field(default_factory=list)
    _reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self.process.pid)

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return b"".join(self._said).decode(errors="replace")

    def is_running(self) -> bool:
        """Whether it lives."""
        return bool(self.process.is_alive())

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None when it has not ended by then."""
        self.process.join(seconds)
        status = self.process.exitcode
        if status is not None and self._reader is not None:
            # Workers do not hold its pipe: it ends with the process.
            self._reader.join(5)
        return None if status is None else int(status)

    def listen(self, pipe: Connection) -> None:
        """Keep what comes through a pipe."""

        def read() -> None:
            while piece := os.read(pipe.fileno(), 65536):
                self._said.append(piece)
            pipe.close()

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()


def start(target: Callable[..., None], *args: Any) -> Running:
    """Run a function in a process whose own processes are the server's children too."""
    reader, writer = _context.Pipe(duplex=False)
    given = (target, writer, _server._forkserver_address, args)
    process = _context.Process(target=_begin, args=given)
    process.start()
    writer.close()
    running = Running(process)
    running.listen(reader)
    return running


def _begin(
    target: Callable[..., None], writer: Connection, address: str, args: tuple[Any, ...]
) -> None:
    for number in (1, 2):
        os.dup2(writer.fileno(), number)
    writer.close()
    _server._forkserver_address = address
    _server.ensure_running = lambda: None
    target(*args)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _silent(path: Path) -> Iterator[None]:
    kept = [os.dup(number) for number in (1, 2)]
    with path.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
