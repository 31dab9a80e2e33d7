"""A wall clock that is wrong, in one process: as NTP, a person or a paused machine leave it.

Where there is a C compiler, `clock.c` is laid below Python and Icechunk alike; elsewhere
`time.time` alone is wrong. Clocks that cannot be stepped (CLOCK_MONOTONIC) stay right in both.
"""

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

LIBRARY = "SPECMILL_FAULTS_CLOCK"
"Variable with the path of the built library, where there is one."


def built(folder: Path) -> dict[str, str]:
    """Variables of a process whose clock can be put wrong whole; none without a compiler."""
    compiler, library = shutil.which("cc"), folder / "clock.so"
    if compiler is None:
        return {}
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), LIBRARY: str(library)}


def skew(seconds: int) -> None:
    """Put the clock of this process forward, or back when negative."""
    library = os.environ.get(LIBRARY)
    if library:
        ctypes.c_long.in_dll(ctypes.CDLL(library), "skew_s").value = seconds
        return
    right = time.time
    time.time = lambda: right() + seconds
