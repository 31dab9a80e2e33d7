"""Faults of what a run needs: memory, disk, a sound store, a clock; and a spectrum that kills."""

import os
from pathlib import Path

from tests.faults.ground import BLOCKS, CHUNK, ROWS, STORE
from tests.faults.judge import problems, quarantined
from tests.faults.trial import FINISHED, NONE, REFUSED, RETRY, Rows, Trial, changed
from tests.faults.trouble import limit_files


def memory_once(trial: Trial) -> Rows:
    """One block takes more memory than a worker has, once: it is done by the next one."""
    trial.trouble = changed(trial.trouble, hog_row=_row(trial), hog_times=1)
    trial.end(trial.start())
    return NONE


def memory_row(trial: Trial) -> Rows:
    """A spectrum with which any worker takes too much memory: quarantined, the others done."""
    row = _row(trial)
    trial.trouble = changed(trial.trouble, hog_row=row)
    trial.end(trial.start())
    return {row}, ()


def memory_always(trial: Trial) -> Rows:
    """No worker has memory enough for any block: refused, and done when it has."""
    sound = trial.trouble
    trial.trouble = changed(sound, hog_all=True)
    trial.end(trial.start(), (REFUSED,), "out of memory perhaps")
    trial.trouble = sound
    trial.again()
    return NONE


def killer_spectrum(trial: Trial) -> Rows:
    """A spectrum that always kills its worker: quarantined, the others done."""
    row = _row(trial)
    trial.trouble = changed(trial.trouble, kill_row=row)
    trial.end(trial.start())
    return {row}, ()


def disk_full(trial: Trial) -> Rows:
    """No file of a worker, or of the command, may grow: refused in words, done when there is room.

    Simulated by RLIMIT_FSIZE: EFBIG in the place of ENOSPC.
    """
    running = trial.start()
    if trial.moment(running):
        mine = trial.random.random() < 0.5
        size = int(trial.random.choice([0, 2000, 20_000])) if mine else 4000
        limit_files(running.pid if mine else trial.worker(), size)
        trial.note(f"{'command' if mine else 'worker'}: {size} bytes")
    trial.end(running, (REFUSED, *FINISHED), "raise it")
    trial.again()
    return NONE


def read_only(trial: Trial) -> Rows:
    """The store, or the run's folder with it, is read-only from some moment on."""
    running, store = trial.start(), trial.folder / STORE
    top = store if trial.random.random() < 0.7 else store.parent
    there = [top, *top.rglob("*")]
    if trial.moment(running):
        trial.note(top.name)
        there = [top, *top.rglob("*")]
        _allow(there, 0o555)
    trial.end(running, (REFUSED, *FINISHED), "not permitted")
    _allow(there, 0o755)
    trial.again()
    return NONE


def chunk_corrupted(trial: Trial) -> Rows:
    """A bit of a chunk flips under way: its rows are quarantined; mended, they are tried again."""
    running = trial.start()
    inputs = trial.inputs()
    path = inputs[int(trial.random.integers(len(inputs)))]
    content = path.read_bytes()
    if trial.moment(running):
        at = int(trial.random.integers(len(content)))
        wrong = bytes([content[at] ^ 1 << int(trial.random.integers(8))])
        _put(path, content[:at] + wrong + content[at + 1 :])
        trial.note(f"byte {at} of {len(content)} in {path.name}")
    status = trial.end(running, (REFUSED, *FINISHED))
    bad = quarantined(trial.folder)
    if status in FINISHED:
        trial.wrong += problems(trial.folder, trial.sound, bad=bad)
        if len({row // CHUNK for row in bad}) > 1:
            trial.blame("DIFFERENT", f"one chunk takes rows {sorted(bad)}")
    _put(path, content)
    if bad or status == REFUSED:
        trial.again(*RETRY)
    trial.again()
    again = {row // CHUNK for row in bad}
    return (), [row for row in range(ROWS) if row // CHUNK in again]


def clock_skewed(trial: Trial) -> Rows:
    """The clock of the command, or of a worker, jumps seconds, an hour or two days.

    A few seconds back are waited for. Icechunk commits nothing ten minutes or more off the clock of
    the store: refused in words.
    """
    seconds = int(trial.random.choice([-172_800, -3600, -5, 5, 3600, 172_800]))
    mine = trial.random.random() < 0.6
    trial.note(f"{'command' if mine else 'worker'}: {seconds:+d} s")
    if mine:
        running = trial.start(skew=(int(trial.random.integers(1, BLOCKS - 2)), seconds))
    else:
        slow = changed(trial.trouble, skew_row=_row(trial), skew_s=seconds)
        running = trial.start(trouble=slow)
    wrong = mine and abs(seconds) > 600
    trial.end(running, (REFUSED, *FINISHED) if wrong else FINISHED, "clock")
    trial.again()
    return NONE


def _row(trial: Trial) -> int:
    row = int(trial.random.integers(ROWS))
    trial.note(f"row {row}")
    return row


def _put(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _allow(paths: list[Path], mode: int) -> None:
    for path in paths:
        if path.exists():
            os.chmod(path, mode if path.is_dir() else mode & 0o666)  # noqa: PTH101


KINDS = (
    memory_once,
    memory_row,
    memory_always,
    killer_spectrum,
    disk_full,
    read_only,
    chunk_corrupted,
    clock_skewed,
)
