"""What happens inside a worker: the pass of the engine, with a trouble of its own."""

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from pipeline.block import Block
from pipeline.held import Held
from pipeline.passes import Pass
from tests.faults import clock

PROGRESS = "progress"
"File of the trial's folder: a line (pid, first, last) for each block that somebody begins."


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What goes wrong where rows are computed."""

    folder: str
    "Of the trial."
    pace_s: float = 0.04
    "Time that every block takes more, so that there are moments between."
    kill_row: int = -1
    "Whoever touches this row dies, always."
    hog_row: int = -1
    "Whoever touches this row takes more memory than it may."
    hog_times: int = 1 << 30
    "How often."
    hog_all: bool = False
    "Every block takes more memory than a worker may."
    skew_row: int = -1
    "Whoever touches this row has a wrong clock from then on."
    skew_s: int = 0
    "How wrong."
    wrong: str = ""
    "How a broken engine computes; see `tests.faults.broken`."


@dataclass(frozen=True, kw_only=True)
class Faulty(Pass):
    """The engine's pass; blocks are noted, and some hurt."""

    trouble: Trouble

    def __call__(self, block: Block, held: Held) -> dict[str, xr.Dataset]:
        """Make a block, if it can be."""
        trouble, rows = self.trouble, np.arange(block.first, block.last)
        again = _note(trouble, block)
        time.sleep(trouble.pace_s)
        touched = set(rows[~block.is_bad].tolist())
        if trouble.kill_row in touched:
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble.hog_all or (trouble.hog_row in touched and _again(trouble)):
            _hog()
        if trouble.skew_row in touched:
            clock.skew(trouble.skew_s)
        made = super().__call__(block, held)
        if trouble.wrong == "drifts" and again:
            for ds in made.values():
                for name in {"flux", "value"} & set(map(str, ds.data_vars)):
                    ds[name].values[:] += 1
        return made


def _note(trouble: Trouble, block: Block) -> bool:
    """Write down that a block is begun; gives whether it was before."""
    path, span = Path(trouble.folder) / PROGRESS, f" {block.first} {block.last}\n"
    before = path.read_text() if path.exists() else ""
    with path.open("a") as file:
        file.write(f"{os.getpid()}{span}")
    return span in before


def _again(trouble: Trouble) -> bool:
    path = Path(trouble.folder) / "hogged"
    times = path.stat().st_size if path.exists() else 0
    if times >= trouble.hog_times:
        return False
    with path.open("a") as file:
        file.write("x")
    return True


def _hog() -> None:
    """Take memory until somebody ends us; a bound, should nobody do so."""
    taken = []
    end = time.monotonic() + 30
    # The limit of a worker is counted by its nanny, ten times a second.
    while time.monotonic() < end:
        if len(taken) < 16:
            taken.append(np.ones(8 << 20))
        time.sleep(0.01)


def limit_files(pid: int, size: int) -> None:
    """No file of a process grows beyond that many bytes: writes fail as on a full disk."""
    if pid:
        # Of process 0 is said: this one.
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
