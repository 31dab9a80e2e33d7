"""The jobs of a run: what was handed to a cluster, what became of it, what may be done about it.

They are kept in <run.dir>/jobs/jobs.json. How a job ended is said by its queue and by the record
that its script leaves, <run.dir>/jobs/<name>-<id>.exit: the exit status, and the signal if any.
"""

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from deploy.backend import Queue, Seen
from storage import whole
from storage.names import resolve

logger = logging.getLogger(__name__)

FILE = "jobs.json"
FRESH_S = 30.0
"The queue is asked again when its last answer is older."

WAITING, RUNNING, DONE = "PENDING", "RUNNING", "COMPLETED"
WRONG, MEMORY, STUCK, GONE = "FAILED(2)", "OUT_OF_MEMORY", "DependencyNeverSatisfied", "GONE"

_WAITS = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
_RUNS = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_TOLD = {"CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", MEMORY}
"Ends that the queue knows better than the script."

CURES = {
    DONE: "",
    WRONG: "the card, or what it names, is wrong: mend it and save it, then submit again",
    "FAILED(3)": "its log says why; submit again to go on",
    "INTERRUPTED": "what was finished is kept; submit again to go on",
    "TIMEOUT": "cut off before it could end in order: raise cluster.grace_s, then submit again",
    "CANCELLED": "taken back by hand; submit again to go on",
    "PREEMPTED": "gave way to another job; submit again to go on",
    "NODE_FAIL": "its node failed; submit again to go on",
    MEMORY: "killed, most likely for its memory: raise cluster.memory, or ask for fewer workers",
    STUCK: "what it waits for ended badly; submit run again to queue both",
    GONE: "its queue has forgotten it and it left no record; submit again to go on",
}
"What to do about an end."


@dataclass(frozen=True, kw_only=True)
class Record:
    """One job of a run."""

    id: str
    "What its backend knows it by."
    stage: str
    "A stage, or run."
    name: str
    "Its name there, and of its script and logs."
    backend: str
    "A name of deploy.backends."
    submitted: str
    "ISO time."
    script: str
    "Absolute path of what was submitted."
    card: str
    "Digest of the card with its settings and the time it was saved."
    after: str = ""
    "The job that it waits for; empty for none."
    state: str = WAITING
    "Last state seen."
    reason: str = ""
    "Why it waits, or ended so."
    seen: float = 0.0
    "When the queue was asked last, seconds since 1970."

    @property
    def is_live(self) -> bool:
        """Whether it is queued or running."""
        return self.state in (WAITING, RUNNING, STUCK)

    @property
    def logs(self) -> list[Path]:
        """What it printed, errors first."""
        folder = Path(self.script).parents[1] / "logs"
        stems = (f"{self.name}-{self.id}.err", f"{self.name}-{self.id}.out", f"{self.name}.out")
        return [folder / stem for stem in stems if (folder / stem).is_file()]

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        for log in self.logs:
            if said := log.read_text(errors="replace").strip():
                return "\n".join(f"  {line}" for line in said.splitlines()[-lines:])
        return "  (its log is empty)"


class Exit(NamedTuple):
    """What a job's script recorded."""

    status: int
    "Of the command."
    signal: str = ""
    "What was forwarded to it, USR1 or TERM; empty for nothing."


def load(folder: Path) -> list[Record]:
    """The jobs of a run's folder, in the order of their submission."""
    file = folder / "jobs" / FILE
    if not file.exists():
        return []
    try:
        return [Record(**values) for values in json.loads(file.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: not a list of jobs ({error}); move it away") from error


def save(folder: Path, records: Sequence[Record]) -> None:
    """Keep the jobs of a run, whole or not at all."""
    text = json.dumps([asdict(record) for record in records], indent=1)
    whole.replace(folder / "jobs" / FILE, text)


def now() -> str:
    """The time, for a record."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def newest(records: Iterable[Record]) -> dict[str, Record]:
    """The last job of each stage."""
    return {record.stage: record for record in records}


def refresh(folder: Path, age_s: float = FRESH_S) -> list[Record]:
    """The jobs of a run as they are now: each backend is asked once, and not again before age_s.

    Raises
    ------
    QueueError
        When the queue does not answer.
    """
    records = load(folder)
    oldest = time.time() - age_s
    stale = [record for record in records if record.is_live and not oldest < record.seen]
    if not stale:
        return records
    seen: dict[tuple[str, str], Seen] = {}
    for backend in {record.backend for record in stale}:
        mine = [record for record in stale if record.backend == backend]
        seen |= {(backend, id): found for id, found in _ask(backend, mine).items()}
    fresh = [
        _judged(folder, record, seen.get((record.backend, record.id)))
        if record in stale
        else record
        for record in records
    ]
    save(folder, fresh)
    return fresh


def judge(seen: Seen | None, ended: Exit | None) -> tuple[str, str]:
    """State and reason of a job, from what its queue sees and what its script recorded.

    Examples
    --------
    >>> judge(Seen(state="PENDING", reason="Priority"), None)
    ('PENDING', 'Priority')
    >>> judge(Seen(state="FAILED"), Exit(2))[0]
    'FAILED(2)'
    """
    told = seen.state if seen else ""
    if seen and told in _WAITS:
        return (STUCK, CURES[STUCK]) if seen.reason == STUCK else (WAITING, seen.reason)
    if told in _RUNS:
        return RUNNING, ""
    state = _end(told, ended or (Exit(seen.status) if seen and seen.status is not None else None))
    reason = CURES.get(state, CURES["FAILED(3)"])
    if state == DONE and ended and ended.status == 1:
        reason = "with quarantined inputs"
    return state, reason


def _end(told: str, ended: Exit | None) -> str:
    if told in _TOLD:
        return told
    if ended is None:
        return {"": GONE, "FAILED": "FAILED(?)"}.get(told, told)
    if ended.status in (0, 1):
        return DONE
    if ended.status == 137:
        return MEMORY
    # A command that was not listening yet dies of the signal itself.
    if ended.status == 4 or (ended.signal and ended.status > 128):
        return "INTERRUPTED"
    return f"FAILED({ended.status})"


def _judged(folder: Path, record: Record, seen: Seen | None) -> Record:
    state, reason = judge(seen, _exit(folder, record))
    return replace(record, state=state, reason=reason, seen=time.time())


def _exit(folder: Path, record: Record) -> Exit | None:
    file = folder / "jobs" / f"{record.name}-{record.id}.exit"
    if not file.is_file():
        return None
    status, *signal = file.read_text().split()
    return Exit(int(status), *signal)


def _ask(backend: str, records: Sequence[Record]) -> dict[str, Seen]:
    place = resolve("deploy.backends", backend)
    if isinstance(place, Queue):
        found: dict[str, Seen] = place.states(record.id for record in records)
        return found
    # A process of this machine: it runs, or it has ended.
    return {record.id: Seen(state=RUNNING) for record in records if _runs(record)}


def _runs(record: Record) -> bool:
    try:
        process = psutil.Process(int(record.id))
        # The number may be another's by now.
        mine = any(Path(word).name == Path(record.script).name for word in process.cmdline())
        return mine and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False
