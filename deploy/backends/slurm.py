"""A Slurm cluster: a run as one batch job, or workers as jobs of their own."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from deploy.job import Job, Resources, exports, script, worker_environment

COORDINATOR_BYTES = 2 * 2**30
"Memory of the process that starts the workers, trains and writes columns, beside theirs."

GRACE_S = 120
"Time between the interrupt and the end of the walltime: to close the workers, give up the lease."


def render(job: Job) -> str:
    """A batch script for `sbatch`: one node, one task, which starts its own workers there."""
    return script(job, [f"#SBATCH --{line}" for line in _directives(job)])


def submit(job: Job) -> str:
    """Queue the job; gives its Slurm id.

    Raises
    ------
    RuntimeError
        When there is no sbatch, or it refuses.
    """
    path = job.write(render(job))
    # Where one Slurm serves several clusters the answer is "id;cluster".
    return _sbatch("--parsable", path).split(";")[0]


@contextmanager
def cluster(resources: Resources, folder: Path | None = None) -> Iterator[Client]:
    """Workers as Slurm jobs, over TLS; tasks wait until the queue has given the first of them.

    folder is one that the nodes see too: certificates and logs go there.

    Raises
    ------
    ImportError
        When dask-jobqueue is not installed; names the extra.
    RuntimeError
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
        _sbatch("--test-only", script=workers.job_script())
        workers.scale(jobs=resources.workers)
        yield client


def worker_options(resources: Resources, folder: Path) -> dict[str, Any]:
    """What `dask_jobqueue.SLURMCluster` is given for one job a worker, one task at a time."""
    if re.search(r"\s", str(folder)):
        raise ValueError(f"workers on Slurm need a folder without spaces, found {folder}")
    environment = {"PYTHONSAFEPATH": "1"} | worker_environment(resources.threads)
    return {
        "job_name": "specmill-worker",
        "cores": 1,
        "job_cpu": resources.threads,
        "processes": 1,
        "memory": f"{resources.memory_bytes}B",
        "walltime": resources.walltime,
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
    yield f"job-name={job.name}"
    yield from (f"{key}={value}" for key, value in _charged(wanted).items() if value)
    yield "nodes=1"
    yield "ntasks=1"
    yield f"cpus-per-task={wanted.workers * wanted.threads}"
    yield f"mem={_mebibytes(wanted.workers * wanted.memory_bytes + COORDINATOR_BYTES)}M"
    if wanted.gpus:
        yield f"gpus={wanted.workers * wanted.gpus}"
    yield f"time={wanted.walltime}"
    yield f'output="{job.logs}/%x-%j.out"'
    yield f'error="{job.logs}/%x-%j.err"'
    # A job that lost its node starts again and finishes what is missing, in the same log.
    yield "requeue"
    yield "open-mode=append"
    # B: to the batch process, which is the command itself: Python then closes what it opened.
    yield f"signal=B:INT@{GRACE_S}"


def _sbatch(option: str, path: Path | None = None, script: str | None = None) -> str:
    """Call sbatch on a file, or on a script given as text."""
    if shutil.which("sbatch") is None:
        raise RuntimeError(
            "no sbatch on PATH: submit from a login node of the cluster, or see the script with "
            "--dry-run"
        )
    command = ["sbatch", option, *([str(path)] if path else [])]
    answer = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"sbatch refuses {path or 'the worker'}: {answer.stderr.strip()}")
    return answer.stdout.strip()


def _charged(resources: Resources) -> dict[str, str]:
    return {"partition": resources.partition, "account": resources.account}


def _mebibytes(count: int) -> int:
    return -(-count // 2**20)
