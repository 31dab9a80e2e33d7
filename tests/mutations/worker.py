"""Trials in a process of its own: one that dies, or takes too long, is ended and counted."""

import multiprocessing
import resource
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.mutations import bases
from tests.mutations.damage import FORMS
from tests.mutations.judge import Result
from tests.mutations.trial import KINDS, MEMORY, removed, trial

SECONDS = 10.0
"More than this is a hang: a trial takes some hundredths."
_START = 240.0
"Seconds for imports and the sound survey, on a busy machine."
_ADDRESSES = MEMORY + (1 << 30)
"Address space that a worker may take above what it begins with, bytes: beyond is a MemoryError."

_STATE = Path("/proc/self/statm")

Numbered = tuple[str, int]


def _work(pipe: Connection, seed: int, folder: str) -> None:
    tempfile.tempdir = folder
    known = set[str]()
    while True:
        name, number = pipe.recv()
        if name not in known:
            _unlimited()
            pipe.send(_prepared(name))
            known.add(name)
            _limited()
        pipe.send(trial(name, number, seed))


def _prepared(name: str) -> str:
    """Make the sound surveys of a reader; why it cannot."""
    try:
        for form in FORMS:
            bases.survey(name, form)
    except Exception as error:
        return f"the sound survey is not read: {type(error).__name__}: {error}"
    return ""


def _unlimited() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _limited() -> None:
    if not _STATE.exists():
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + _ADDRESSES, hard))


def _addresses() -> int:
    return int(_STATE.read_text().split()[0]) * resource.getpagesize()


class Worker:
    """A process that runs trials one after the other, and is started again when it must."""

    def __init__(self, seed: int, seconds: float = SECONDS):
        self.seed, self.seconds = seed, seconds
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.mutations.trial"])
        self._process: Any = None
        self._folder = ""
        self._hopeless: dict[str, str] = {}

    def run(self, name: str, number: int) -> Result:
        """The result of a trial, whatever becomes of the process."""
        kind = KINDS[number % len(KINDS)]
        if name in self._hopeless:
            return Result(outcome="CRASH", words=self._hopeless[name], kind=kind)
        if self._process is None:
            self._start()
        try:
            self._pipe.send((name, number))
            if name not in self._known:
                if words := str(self._answer(_START)):
                    self._hopeless[name] = words
                    self.close()
                    return Result(outcome="CRASH", words=words, kind=kind)
                self._known.add(name)
            result = self._answer(self.seconds)
            assert isinstance(result, Result)
            return result
        except TimeoutError:
            self.close()
            words = f"no answer within {self.seconds:g} s"
            return Result(outcome="HANG", words=words, kind=kind)
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            return Result(outcome="CRASH", words=f"the process died, status {code}", kind=kind)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None
            removed(Path(self._folder))

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        # What a process leaves that is ended goes with this folder.
        self._folder = tempfile.mkdtemp(prefix="mutations-")
        given = (other, self.seed, self._folder)
        self._process = self._context.Process(target=_work, args=given, daemon=True)
        self._process.start()
        other.close()
        self._known = set[str]()

    def _answer(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            raise TimeoutError
        return self._pipe.recv()


def run(
    trials: Iterable[Numbered], seed: int, seconds: float = SECONDS, jobs: int = 1
) -> Iterator[tuple[str, int, Result]]:
    """Results of trials, in some order, from that many processes."""
    listed = [*trials]

    def some(first: int) -> list[tuple[str, int, Result]]:
        worker = Worker(seed, seconds)
        try:
            return [(*each, worker.run(*each)) for each in listed[first::jobs]]
        finally:
            worker.close()

    with ThreadPoolExecutor(jobs) as pool:
        for results in pool.map(some, range(jobs)):
            yield from results
