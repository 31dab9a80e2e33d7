"""Kinds of fault: each disturbs a run and sees that it ends as is promised.

What a kind gives back are the rows that must be quarantined, and those that were made once more.
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tests.faults.cluster import Cluster, cluster
from tests.faults.ground import BLOCKS, CHUNK, ROWS, STORE
from tests.faults.judge import problems, quarantined
from tests.faults.processes import Running
from tests.faults.trial import FINISHED, INTERRUPTED, REFUSED, RETRY, Trial, changed
from tests.faults.trouble import limit_files

Rows = tuple[Collection[int], Collection[int]]
Kind = Callable[[Trial], Rows]
NONE: Rows = ((), ())
KINDS: dict[str, Kind] = {}


def nothing(trial: Trial) -> Rows:
    """No fault: what a broken engine shows by itself."""
    trial.end(trial.start())
    return NONE


def kind(do: Kind) -> Kind:
    """Put a kind of fault into the list, under the name of its function."""
    KINDS[do.__name__.replace("_", "-")] = do
    return do


@kind
def worker_killed(trial: Trial) -> Rows:
    """kill -9 of one worker, or of one and then another: the run goes on."""
    running = trial.start()
    for _ in range(int(trial.random.integers(1, 3))):
        if trial.moment(running):
            trial.kill(trial.worker())
    trial.end(running)
    return NONE


@kind
def worker_stopped(trial: Trial) -> Rows:
    """SIGSTOP of a worker for a while: the run waits, or goes on with the other."""
    running = trial.start()
    if trial.moment(running):
        pid = trial.worker()
        trial.kill(pid, signal.SIGSTOP)
        trial.pause(60 if trial.long and trial.random.random() < 0.1 else 4)
        trial.kill(pid, signal.SIGCONT)
    trial.end(running)
    return NONE


@kind
def worker_preempted(trial: Trial) -> Rows:
    """SIGTERM of a worker, as a cluster takes one away: its nanny starts another."""
    running = trial.start()
    if trial.moment(running):
        trial.kill(trial.worker(), signal.SIGTERM)
    trial.end(running)
    return NONE


@kind
def coordinator_killed(trial: Trial) -> Rows:
    """kill -9 of the command, and of the scheduler in it, at any moment: started again, it ends."""
    running = trial.start()
    if trial.random.random() < 0.5:
        wait = float(trial.random.uniform(0, trial.sound.seconds))
        trial.note(f"after {wait:.2f} s")
        time.sleep(wait)
    else:
        trial.moment(running)
    trial.late = not running.is_running()
    trial.kill(running.pid)
    trial.end(running, (-signal.SIGKILL, *FINISHED))
    trial.again()
    return NONE


@kind
def coordinator_interrupted(trial: Trial) -> Rows:
    """Ctrl-C, `kill`, the end of a walltime or of a terminal: what is finished is kept."""
    running = trial.start()
    if trial.moment(running):
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
        trial.kill(running.pid, number := numbers[int(trial.random.integers(4))])
        trial.note(number.name)
    trial.end(running, (INTERRUPTED, *FINISHED))
    trial.again()
    return NONE


@kind
def coordinator_stopped(trial: Trial) -> Rows:
    """SIGSTOP of the command: another is refused, as it lives; killed, the next takes over."""
    running = trial.start()
    stopped = trial.moment(running)
    if stopped:
        trial.kill(running.pid, signal.SIGSTOP)
        trial.pause(60 if trial.long and trial.random.random() < 0.1 else 0.5)
        refused(trial, trial.start())
    if trial.random.random() < 0.5:
        trial.kill(running.pid, signal.SIGCONT)
        trial.note("then continued")
        trial.end(running)
        return NONE
    trial.kill(running.pid)
    trial.end(running, (-signal.SIGKILL, *FINISHED))
    trial.again()
    return NONE


@kind
def two_coordinators(trial: Trial) -> Rows:
    """A second command on the store, at once or later: one of them is refused, and says why."""
    slow = changed(trial.trouble, pace_s=3 * trial.trouble.pace_s)
    first = trial.start(trouble=slow)
    if trial.random.random() < 0.5:
        trial.moment(first)
    second = trial.start(trouble=slow)
    statuses = {trial.end(each, (REFUSED, *FINISHED)) for each in (first, second)}
    told = [each.said for each in (first, second) if "writes to this store" in each.said]
    if statuses == {REFUSED}:
        trial.blame("REFUSED", f"both: {first.said}\n{second.said}")
    if len(told) == 0 and REFUSED in statuses:
        trial.blame("CRASH", f"one ended, but not by the lease: {first.said}\n{second.said}")
    # The first may be over when the second gets to the lease.
    trial.late = not told
    return NONE


@kind
def scheduler_killed(trial: Trial) -> Rows:
    """kill -9 of a scheduler of its own process: the command ends, and is started with a new one."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            there.scheduler.process.kill()
        trial.end(running, (REFUSED, *FINISHED))
    with cluster(trial):
        trial.again(*trial.words)
    return NONE


@kind
def node_preempted(trial: Trial) -> Rows:
    """SIGTERM of a worker and its nanny, which do not come back: the other one does the rest."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            _one(trial, there).process.terminate()
        trial.end(running)
    return NONE


@kind
def node_killed(trial: Trial) -> Rows:
    """kill -9 of a nanny, and with it of its worker: the other one does the rest."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            _one(trial, there).process.kill()
        trial.end(running)
    return NONE


@kind
def memory_once(trial: Trial) -> Rows:
    """One block takes more memory than a worker has, once: it is done by the next one."""
    trial.trouble = changed(trial.trouble, hog_row=_row(trial), hog_times=1)
    trial.end(trial.start())
    return NONE


@kind
def memory_row(trial: Trial) -> Rows:
    """A spectrum with which any worker takes too much memory: quarantined, the others done."""
    row = _row(trial)
    trial.trouble = changed(trial.trouble, hog_row=row)
    trial.end(trial.start())
    return {row}, ()


@kind
def memory_always(trial: Trial) -> Rows:
    """No worker has memory enough for any block: refused, and done when it has."""
    sound = trial.trouble
    trial.trouble = changed(sound, hog_all=True)
    trial.end(trial.start(), (REFUSED,), "out of memory perhaps")
    trial.trouble = sound
    trial.again()
    return NONE


@kind
def killer_spectrum(trial: Trial) -> Rows:
    """A spectrum that always kills its worker: quarantined, the others done."""
    row = _row(trial)
    trial.trouble = changed(trial.trouble, kill_row=row)
    trial.end(trial.start())
    return {row}, ()


@kind
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


@kind
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


@kind
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


@kind
def clock_skewed(trial: Trial) -> Rows:
    """The clock of the command, or of a worker, jumps seconds, an hour or two days.

    Icechunk commits nothing ten minutes or more off the clock of the store: refused in words.
    """
    seconds = int(trial.random.choice([-172_800, -3600, -5, 5, 3600, 172_800]))
    mine = trial.random.random() < 0.6
    trial.note(f"{'command' if mine else 'worker'}: {seconds:+d} s")
    if mine:
        running = trial.start(skew=(int(trial.random.integers(1, BLOCKS - 4)), seconds))
    else:
        slow = changed(trial.trouble, skew_row=_row(trial), skew_s=seconds)
        running = trial.start(trouble=slow)
    wrong = mine and abs(seconds) > 600
    trial.end(running, (REFUSED, *FINISHED) if wrong else FINISHED, "clock")
    trial.again()
    return NONE


def refused(trial: Trial, other: Running) -> None:
    """See that a second command is not let in."""
    status = trial.end(other, (REFUSED, *FINISHED))
    if status in FINISHED:
        trial.blame("ACCEPTED", f"a second command ended with status {status}: {other.said}")
    elif "writes to this store" not in other.said:
        trial.blame("CRASH", f"refused, but not by the lease: {other.said}")


def _row(trial: Trial) -> int:
    row = int(trial.random.integers(ROWS))
    trial.note(f"row {row}")
    return row


def _one(trial: Trial, there: Cluster) -> Running:
    return there.workers[int(trial.random.integers(len(there.workers)))]


def _put(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _allow(paths: list[Path], mode: int) -> None:
    for path in paths:
        if path.exists():
            os.chmod(path, mode if path.is_dir() else mode & 0o666)  # noqa: PTH101
