"""Job: a command, what it may use, and the folder it leaves its logs in."""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)


def _matching(pattern: str, wanted: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"expected {wanted}, found {value!r}")
        return value

    return AfterValidator(check)


Walltime = Annotated[
    str,
    _matching(r"\d+-([01]\d|2[0-3])(:[0-5]\d){2}|\d{1,3}(:[0-5]\d){2}", "HH:MM:SS or D-HH:MM:SS"),
]
# Names go into directives that a scheduler parses itself, where no shell quoting protects them.
Name = Annotated[str, _matching(r"[\w.+-]+", "letters, digits and ._+-")]
Queue = Annotated[str, _matching(r"[\w.,@+-]*", "letters, digits and .,_@+-")]
Variable = Annotated[str, _matching(r"[A-Za-z_]\w*", "the name of an environment variable")]
Address = Annotated[str, _matching(r"|(tls|tcp)://\S+:\d+", "tls://host:port")]
Word = Annotated[str, _matching(r"[^\0]*", "text without NUL")]


def _plain_folder(folder: Path) -> Path:
    if re.search(r'[\x00-\x1f"\'\\%]', str(folder)):
        raise ValueError(
            f"a scheduler reads quotes, backslashes, % and control characters in a path its own "
            f"way; choose another folder than {str(folder)!r}"
        )
    return folder


class Resources(BaseModel):
    """What a job or a cluster may use, on one coordinating node and its workers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: PositiveInt = 1
    "Worker processes."
    threads: PositiveInt = 1
    "Threads that one worker computes with."
    memory: ByteSize = ByteSize(2 * 2**30)
    "Memory of one worker, bytes; a card may say '2GiB'."
    walltime: Walltime = "04:00:00"
    "Longest run, HH:MM:SS or D-HH:MM:SS; for schedulers."
    gpus: NonNegativeInt = 0
    "GPUs of one worker."
    nodes: PositiveInt = 1
    "Nodes that the workers of one job are spread over; for schedulers."
    partition: Queue = ""
    "Partition or queue of the scheduler; its default when empty."
    account: Queue = ""
    "Account to charge; the scheduler's default when empty."
    grace_s: PositiveInt = 120
    "Time between the interrupt and the end of the walltime, to commit and close; seconds."
    requeue: bool = True
    "Whether a job that its walltime interrupted queues again by itself, and goes on."
    interface: Queue = ""
    "Network that workers on other nodes are reached by, as ib0; the default route's when empty."
    address: Address = ""
    "Of a Dask scheduler that runs already, as tls://host:port; for the backend scheduler."
    certificates: str = ""
    "Folder of ca.pem, cert.pem and key.pem, which that scheduler and its workers know."

    @model_validator(mode="after")
    def _worth_starting(self) -> Self:
        # A scheduler looks at its clock once a minute: the interrupt comes up to one early.
        if self.walltime_s < self.grace_s + 60:
            raise ValueError(
                f"walltime {self.walltime} ends before the work begins: jobs are interrupted "
                f"{self.grace_s} s (grace_s) and up to a minute before it; ask for longer"
            )
        return self

    @property
    def walltime_s(self) -> int:
        """Longest run, seconds."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def workers_a_node(self) -> int:
        """Workers of one node, at most."""
        return -(-self.workers // self.nodes)

    @property
    def memory_bytes(self) -> int:
        """Memory of one worker, bytes."""
        return int(self.memory)


class Cluster(Resources):
    """The `[cluster]` table of a run card: where its stages run."""

    backend: Annotated[str, _matching(r"[\w.]+", "a name of deploy.backends")] = "local"
    "A module on the shelf deploy.backends, or anybody's by its dotted name."
    workers: PositiveInt = 2
    "Worker processes."
    threads: NonNegativeInt = 0
    "Threads of one worker; 0 shares the cores at hand (one, where the cores are elsewhere)."

    def resources(self) -> Resources:
        """What to ask a backend for, with the threads counted out."""
        share = max(1, cores() // self.workers) if self.backend in ("local", "cuda") else 1
        given = self.model_dump(include=set(Resources.model_fields))
        return Resources(**given | {"threads": self.threads or share})


class Job(BaseModel):
    """One command to run somewhere; nothing in it depends on where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    command: Annotated[tuple[Word, ...], Field(min_length=1)]
    "The program and its arguments, unquoted."
    resources: Resources = Resources()
    env: dict[Variable, Word] = {}
    "Environment variables to set."
    folder: Annotated[Path, AfterValidator(_plain_folder)]
    "The run's folder: scripts go to <folder>/jobs, what the job prints to <folder>/logs."
    after: Annotated[str, _matching(r"\d*", "the id of a job, or nothing")] = ""
    "A job that must have ended well before this one begins."

    @property
    def logs(self) -> Path:
        """Folder of what the job prints."""
        return self.folder / "logs"

    def write(self, script: str) -> Path:
        """Put a rendered script, and the log folder that schedulers do not create, in place."""
        path = self.folder / "jobs" / f"{self.name}.sh"
        for parent in (path.parent, self.logs):
            parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
        return path


_FORWARDING = """\
rm -f "$record"
# A signal goes to the command, which keeps what is finished and ends with status 4.
child= signal=
trap 'signal=USR1; kill -USR1 $child' USR1
trap 'signal=TERM; kill -TERM $child' TERM INT HUP
{command} &
child=$!
wait $child
# A trap ends a wait, not the command.
while kill -0 $child; do wait $child; done 2>/dev/null
wait $child && status=0 || status=$?
echo "$status $signal" >"$record.partial" && mv "$record.partial" "$record"
"""


def script(job: Job, directives: Iterable[str] = (), id: str = "$$", last: str = "") -> str:
    """Bash that runs a job, as text, and records how it ended in <folder>/jobs/<name>-<id>.exit.

    directives are a scheduler's lines below the first; id is what the script knows its job's id by;
    last are lines before its end, which see the exit $status and the $signal that was forwarded.
    """
    record = shlex.quote(str(job.folder / "jobs" / f"{job.name}-")) + f"{id}.exit"
    environment = [*exports(_environment(job)), f"record={record}"]
    body = _FORWARDING.format(command=shlex.join(job.command))
    lines = ["#!/bin/bash", *directives, "", "set -uo pipefail", *environment]
    return "\n".join([*lines, "", f"{body}{last}exit $status", ""])


def exports(environment: Mapping[str, str]) -> list[str]:
    """Lines of shell that set environment variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]


KEPT_BYTES = 1 << 28
"Freed memory that a worker keeps for its next block."


def threads_environment(threads: int) -> dict[str, str]:
    """Variables that numerical libraries take their threads from, when they are loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def worker_environment(threads: int, gpus: int = 0) -> dict[str, str]:
    """Variables of a worker: its threads, how much of the memory it freed it keeps, its device.

    Arrays come and go by the block. Giving each back to the system, as Dask has its workers do,
    costs more than decoding it.
    """
    keeping = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    device = {"SPECMILL_DEVICE": "cuda"} if gpus else {}
    return threads_environment(threads) | dict.fromkeys(keeping, str(KEPT_BYTES)) | device


def cores() -> int:
    """Cores that this process may use, which a scheduler may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def program() -> str:
    """The `specmill` of this environment, for a node whose PATH may lack it."""
    return str(Path(sys.executable).with_name("specmill"))


def _environment(job: Job) -> dict[str, str]:
    # The coordinator trains with all cores of the job; workers are told their share at their start.
    # PYTHONSAFEPATH: a pipeline.py beside the script would be imported in place of ours.
    threads = threads_environment(job.resources.workers_a_node * job.resources.threads)
    return {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | threads | job.env
