"""A Slurm cluster: a run as one batch job, or workers as jobs of their own."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from deploy.backend import QueueError, Seen
from deploy.job import Job, Resources, exports, script, worker_environment

COORDINATOR_BYTES = 2 * 2**30
"Memory of the process that starts the workers, trains and writes columns, beside theirs."

RESTARTS = 20
"Times that a job queues again by itself: a bound for one that gets nowhere."

_LAST = f"""\
# Interrupted by its walltime: it queues again, and goes on. 138: before it could listen.
if [[ $signal = USR1 && $status =~ ^(4|138)$ && ${{SLURM_RESTART_COUNT:-0}} -lt {RESTARTS} ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
# Quarantined inputs are no failure: what waits for this job may begin.
[ "$status" != 1 ] || exit 0
"""
_NO_REQUEUE = _LAST[_LAST.index("# Quarantined") :]


def render(job: Job) -> str:
    """A batch script for `sbatch`: the command starts its workers on the nodes of the job."""
    directives = [f"#SBATCH --{line}" for line in _directives(job)]
    last = _LAST if job.resources.requeue else _NO_REQUEUE
    return script(job, directives, id="$SLURM_JOB_ID", last=last)


def submit(job: Job) -> str:
    """Queue the job; gives its Slurm id.

    Raises
    ------
    QueueError
        When there is no sbatch, or it refuses.
    """
    path = job.write(render(job))
    after = [f"--dependency=afterok:{job.after}"] if job.after else []
    # Where one Slurm serves several clusters the answer is "id;cluster".
    found = _run("sbatch", "--parsable", *after, str(path)).split(";")[0].strip()
    if not found.isdecimal():
        raise QueueError(f"sbatch gave no job id for {path}, but {found!r}")
    return found


def states(ids: Iterable[str]) -> dict[str, Seen]:
    """What Slurm knows of jobs: one squeue for all; one sacct for those that it has forgotten."""
    if not (wanted := sorted(set(ids), key=int)):
        return {}
    ask = ("--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(wanted)}")
    try:
        found = {key: Seen(state=state, reason=why) for key, state, why in _rows("squeue", *ask)}
    except QueueError as error:
        # All of them are forgotten.
        if "Invalid job id" not in str(error):
            raise
        found = {}
    return _accounted([one for one in wanted if one not in found]) | found


def _accounted(ids: list[str]) -> dict[str, Seen]:
    """Jobs that squeue shows no more, where Slurm keeps accounts; few test systems do."""
    if not ids or shutil.which("sacct") is None:
        return {}
    ask = ("-n", "-P", "-X", "--format=JobIDRaw,State,ExitCode", f"--jobs={','.join(ids)}")
    try:
        rows = _rows("sacct", *ask)
    except QueueError:
        return {}
    return {
        # "CANCELLED by 1000"; "2:0" is the exit status and the signal.
        key: Seen(state=state.split()[0], status=int(status.partition(":")[0]))
        for key, state, status in rows
    }


def cancel(ids: Iterable[str]) -> None:
    """Take jobs out of Slurm's queue."""
    if given := list(ids):
        _run("scancel", *given)


@contextmanager
def cluster(resources: Resources, folder: Path | None = None) -> Iterator[Client]:
    """Workers as Slurm jobs, over TLS; tasks wait until the queue has given the first of them.

    folder is one that the nodes see too: certificates and logs go there.

    Raises
    ------
    ImportError
        When dask-jobqueue is not installed; names the extra.
    QueueError
        When there is no sbatch, or it would refuse such a worker.
    ValueError
        When the folder has a space in its path, which dask-jobqueue does not quote.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise ImportError(
            "workers on Slurm need dask-jobqueue: pip install -e '.[slurm]'"
        ) from error
    folder = (folder or Path.cwd()).absolute()
    options = worker_options(resources, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        SLURMCluster(**options) as workers,
        Client(workers) as client,
    ):
        # A worker refused later is a line in a log, and its tasks wait for ever.
        _run("sbatch", "--test-only", stdin=workers.job_script())
        workers.scale(jobs=resources.workers)
        yield client


def worker_options(resources: Resources, folder: Path) -> dict[str, Any]:
    """What `dask_jobqueue.SLURMCluster` is given for one job a worker, one task at a time."""
    if re.search(r"\s", str(folder)):
        raise ValueError(f"workers on Slurm need a folder without spaces, found {folder}")
    environment = {"PYTHONSAFEPATH": "1"} | worker_environment(resources.threads, resources.gpus)
    return {
        "job_name": "specmill-worker",
        "cores": 1,
        "job_cpu": resources.threads,
        "processes": 1,
        "memory": f"{resources.memory_bytes}B",
        "walltime": resources.walltime,
        "interface": resources.interface or None,
        "queue": resources.partition or None,
        "account": resources.account or None,
        # Its pages stay on loopback: a node has other users.
        "worker_extra_args": ["--dashboard-address", "127.0.0.1:0"],
        "job_extra_directives": [f"--gpus={resources.gpus}"] if resources.gpus else [],
        "job_script_prologue": exports(environment),
        "log_directory": str(folder / "logs"),
        "shared_temp_directory": str(folder),
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
        "security": True,
    }


def _directives(job: Job) -> Iterator[str]:
    wanted = job.resources
    share = wanted.workers_a_node
    yield f"job-name={job.name}"
    yield from (f"{key}={value}" for key, value in _charged(wanted).items() if value)
    yield f"nodes={wanted.nodes}"
    if wanted.nodes == 1:
        yield "ntasks=1"
        yield f"cpus-per-task={wanted.workers * wanted.threads}"
    else:
        yield f"ntasks={wanted.workers}"
        yield f"ntasks-per-node={share}"
        yield f"cpus-per-task={wanted.threads}"
    # Of each node; the command itself is on one of them.
    yield f"mem={_mebibytes(share * wanted.memory_bytes + COORDINATOR_BYTES)}M"
    if wanted.gpus:
        yield f"gpus={wanted.workers * wanted.gpus}"
    yield f"time={wanted.walltime}"
    yield f'output="{job.logs}/%x-%j.out"'
    yield f'error="{job.logs}/%x-%j.err"'
    # A job that lost its node starts again and finishes what is missing, in the same log.
    yield "requeue" if wanted.requeue else "no-requeue"
    yield "open-mode=append"
    # B: to the script alone, which passes it on to the command: its workers are told by nobody.
    yield f"signal=B:USR1@{wanted.grace_s}"


def _rows(*command: str) -> list[list[str]]:
    return [line.split("|") for line in _run(*command).splitlines() if line]


def _run(*command: str, stdin: str | None = None) -> str:
    """What a command of Slurm prints."""
    program = command[0]
    if shutil.which(program) is None:
        raise QueueError(
            f"no {program} on PATH: submit from a login node of the cluster, or see the script "
            "with --dry-run"
        )
    answer = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise QueueError(f"{program} refuses {command[-1]}: {answer.stderr.strip()}")
    return answer.stdout


def _charged(resources: Resources) -> dict[str, str]:
    return {"partition": resources.partition, "account": resources.account}


def _mebibytes(count: int) -> int:
    return -(-count // 2**20)
