"""A trial: a run that is disturbed at a moment, then started again as an operator would."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from tests.faults import ground, processes
from tests.faults.coordinator import coordinate
from tests.faults.ground import BLOCKS, CHUNK, Sound
from tests.faults.judge import Problem, Result, problems
from tests.faults.processes import Running, start
from tests.faults.trouble import PROGRESS, Trouble

LONGEST_S = 120.0
"More than this is a hang."
LEAVE_S = 15.0
"In this time everybody has left when a run is over."
STARTS = 3
"More starts than that, after what was wrong is mended, and an operator gives up."
FINISHED = (0, 1)
"Exit statuses of a run that is done; 1 names what is quarantined, three rows of the survey always."
REFUSED, INTERRUPTED = 3, 4
"Exit statuses of a run that says why it cannot go on, and of one that was asked to end."
PASS = ("map", "card.toml")
Rows = tuple[Collection[int], Collection[int]]
"Rows that must be quarantined, and those that were made once more."
NONE: Rows = ((), ())
RETRY = ("reprocess", "card.toml", "--retry")


@dataclass
class Trial:
    """What a kind of fault works with."""

    folder: Path
    random: np.random.Generator
    sound: Sound
    trouble: Trouble
    result: Result
    long: bool = False
    "Whether it may take minutes."
    wrong: list[Problem] = field(default_factory=list)
    words: tuple[str, ...] = PASS
    "The command."
    late: bool = False
    "Whether the fault came when all was over."

    def start(
        self,
        *words: str,
        trouble: Trouble | None = None,
        skew: tuple[int, int] | None = None,
    ) -> Running:
        """Start the command, or another, in a process of its own."""
        given = trouble or self.trouble
        return start(coordinate, words or self.words, given, skew)

    def note(self, words: str) -> None:
        """Say what was done."""
        self.result.words.append(words)

    def blame(self, outcome: str, words: str) -> None:
        """Say what is wrong."""
        self.wrong.append(Problem(outcome=outcome, words=words))

    def begun(self) -> list[tuple[int, int, int]]:
        """(pid, first, last) of every block that somebody began to compute."""
        path = self.folder / PROGRESS
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(a), int(b), int(c)) for a, b, c in map(str.split, lines)]

    def moment(self, running: Running) -> bool:
        """Wait for a moment between the first block and the last; False when it is too late."""
        blocks = int(self.random.integers(1, int(0.8 * BLOCKS)))
        self.note(f"after {blocks} blocks were begun")
        end = time.monotonic() + LONGEST_S
        while len(self.begun()) < blocks and running.is_running() and time.monotonic() < end:
            time.sleep(0.004)
        time.sleep(float(self.random.uniform(0, 2 * self.trouble.pace_s)))
        self.late = not running.is_running()
        return not self.late

    def worker(self) -> int:
        """The pid of a worker that lives, by lot."""
        for pid in map(int, self.random.permutation(sorted({pid for pid, *_ in self.begun()}))):
            if is_alive(pid):
                return pid
        self.late = True
        return 0

    def pause(self, most: float) -> None:
        """Wait for up to a time that is not counted as the run's."""
        seconds = most if most >= 60 else float(self.random.uniform(0.1, most))
        self.note(f"for {seconds:.1f} s")
        time.sleep(seconds)
        self.result.seconds -= seconds

    def inputs(self) -> list[Path]:
        """The files of the ground's pixel chunks: those of the spectra and their truth."""
        there = (self.folder / ground.STORE / "chunks").rglob("*")
        return sorted(path for path in there if path.is_file() and path.stat().st_size > 20_000)

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, to nobody when there is nobody."""
        if pid and is_alive(pid):
            os.kill(pid, number)

    def end(self, running: Running, statuses: Collection[int] = FINISHED, words: str = "") -> int:
        """Wait for the end of a process: such a status, and such words where it is REFUSED."""
        status = running.wait(LONGEST_S)
        self.result.seconds += time.monotonic() - running.begun
        if status is None:
            self.blame("HANG", f"no end in {LONGEST_S:g} s: {last(running.said)}")
            self.kill(running.pid)
            running.wait(10)
            return -signal.SIGKILL
        if status not in statuses:
            self.blame("CRASH", f"status {status}, expected {statuses}: {last(running.said)}")
        elif status == REFUSED and words not in told(running.said):
            self.blame("WORDLESS", f"status {status} without {words!r}: {last(running.said)}")
        elif status not in FINISHED and "Traceback" in running.said:
            self.blame("WORDLESS", f"status {status} with a traceback: {last(running.said)}")
        return status

    def again(self, *words: str) -> None:
        """Start the command until it is done."""
        for _ in range(STARTS):
            self.result.starts += 1
            running = self.start(*words)
            status = running.wait(LONGEST_S)
            self.result.seconds += time.monotonic() - running.begun
            if status in FINISHED:
                return
            self.note(f"started again: status {status}")
            self.kill(running.pid)
            words = ()
        self.blame("REFUSED", f"not done after {STARTS} starts: {last(running.said)}")

    def close(self, bad: Collection[int] = (), retried: Collection[int] = ()) -> None:
        """Look at everything that is left."""
        begun = self.begun()
        self.result.computed = sum(last - first for _, first, last in begun)
        end = time.monotonic() + LEAVE_S
        while (left := processes.children()) and time.monotonic() < end:
            time.sleep(0.02)
        for process in left:
            self.blame("LEFTOVER", f"{process.pid} {process.status()}")
            process.kill()
        self.wrong += problems(self.folder, self.sound, bad=bad, retried=retried)
        if self.wrong:
            # What is wrong with the rows goes before what is wrong with the words.
            self.wrong.sort(key=lambda problem: problem.outcome == "WORDLESS")
            self.result.outcome = self.wrong[0].outcome
            self.result.words += [f"{each.outcome}: {each.words}" for each in self.wrong]
        elif bad:
            self.result.outcome = "named"
        elif self.late:
            self.result.outcome = "too late"


def undisturbed(base: Path, wrong: str = "") -> Sound:
    """What a run makes of the ground when nothing happens to it."""
    folder = laid(base)
    try:
        running = start(coordinate, PASS, Trouble(folder=str(folder), wrong=wrong), None)
        status = running.wait(LONGEST_S)
        seconds = time.monotonic() - running.begun
        if status not in FINISHED:
            raise RuntimeError(f"the undisturbed run ends with status {status}: {running.said}")
        return Sound(groups=ground.products(folder), seconds=seconds)
    finally:
        shutil.rmtree(folder)


def laid(base: Path) -> Path:
    """A copy of the ground, for one trial."""
    folder = Path(tempfile.mkdtemp(prefix="trial-", dir=base.parent))
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return folder


def rows_of(block: int) -> range:
    """The rows of a block."""
    return range(block * CHUNK, (block + 1) * CHUNK)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def told(said: str) -> str:
    """What a command says when it ends."""
    return "\n".join(line for line in said.splitlines() if line.startswith("specmill: "))


def last(said: str) -> str:
    """The end of what was said."""
    return said[-600:]


def changed(trouble: Trouble, **values: object) -> Trouble:
    """A trouble with other values."""
    return replace(trouble, **values)  # type: ignore[arg-type]  # as the fields have them
