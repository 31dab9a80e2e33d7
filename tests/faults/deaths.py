"""Faults of processes: workers, coordinators, schedulers and nodes that are killed or stopped."""

import signal
import time

from tests.faults.cluster import Cluster, cluster
from tests.faults.processes import Running
from tests.faults.trial import FINISHED, INTERRUPTED, NONE, REFUSED, Rows, Trial, changed


def worker_killed(trial: Trial) -> Rows:
    """kill -9 of one worker, or of one and then another: the run goes on."""
    running = trial.start()
    for _ in range(int(trial.random.integers(1, 3))):
        if trial.moment(running):
            trial.kill(trial.worker())
    trial.end(running)
    return NONE


def worker_stopped(trial: Trial) -> Rows:
    """SIGSTOP of a worker for a while: the run waits, or goes on with the other."""
    running = trial.start()
    if trial.moment(running):
        pid = trial.worker()
        trial.kill(pid, signal.SIGSTOP)
        trial.pause(60 if trial.long and trial.random.random() < 0.1 else 2)
        trial.kill(pid, signal.SIGCONT)
    trial.end(running)
    return NONE


def worker_preempted(trial: Trial) -> Rows:
    """SIGTERM of a worker, as a cluster takes one away: its nanny starts another."""
    running = trial.start()
    if trial.moment(running):
        trial.kill(trial.worker(), signal.SIGTERM)
    trial.end(running)
    return NONE


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


def two_coordinators(trial: Trial) -> Rows:
    """A second command on the store, at once or later: one of them is refused, and says why."""
    slow = changed(trial.trouble, pace_s=3 * trial.trouble.pace_s)
    first = trial.start(trouble=slow)
    if trial.random.random() < 0.5:
        trial.moment(first)
    second = trial.start(trouble=slow)
    statuses = {trial.end(each, (REFUSED, *FINISHED)) for each in (first, second)}
    words = [each.said for each in (first, second) if "writes to this store" in each.said]
    if statuses == {REFUSED}:
        trial.blame("REFUSED", f"both: {first.said}\n{second.said}")
    if not words and REFUSED in statuses:
        trial.blame("CRASH", f"one ended, but not by the lease: {first.said}\n{second.said}")
    # The first may be over when the second gets to the lease.
    trial.late = not words
    return NONE


def scheduler_killed(trial: Trial) -> Rows:
    """kill -9 of a scheduler of its own process: the command ends, and starts again."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            there.scheduler.process.kill()
        trial.end(running, (REFUSED, *FINISHED))
    with cluster(trial):
        trial.again(*trial.words)
    return NONE


def node_preempted(trial: Trial) -> Rows:
    """SIGTERM of a worker and its nanny, which do not come back: the other one does the rest."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            _one(trial, there).process.terminate()
        trial.end(running)
    return NONE


def node_killed(trial: Trial) -> Rows:
    """kill -9 of a nanny, and with it of its worker: the other one does the rest."""
    with cluster(trial) as there:
        running = trial.start()
        if trial.moment(running):
            _one(trial, there).process.kill()
        trial.end(running)
    return NONE


def refused(trial: Trial, other: Running) -> None:
    """See that a second command is not let in."""
    status = trial.end(other, (REFUSED, *FINISHED))
    if status in FINISHED or "took over" in other.said:
        trial.blame("ACCEPTED", f"a second command ended with status {status}: {other.said}")
    elif "writes to this store" not in other.said:
        trial.blame("CRASH", f"refused, but not by the lease: {other.said}")


def _one(trial: Trial, there: Cluster) -> Running:
    return there.workers[int(trial.random.integers(len(there.workers)))]


KINDS = (
    worker_killed,
    worker_stopped,
    worker_preempted,
    coordinator_killed,
    coordinator_interrupted,
    coordinator_stopped,
    two_coordinators,
    scheduler_killed,
    node_preempted,
    node_killed,
)
