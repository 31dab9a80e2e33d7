"""This machine: worker processes on loopback, each with its share of the cores."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dask.utils import format_bytes
from distributed import Client, LocalCluster, Nanny
from distributed.system import MEMORY_LIMIT

from deploy.job import Job, Resources, script, worker_environment


def render(job: Job) -> str:
    """A bash script."""
    return script(job)


def submit(job: Job) -> str:
    """Start the job in the background, out of reach of the terminal's Ctrl-C; gives its pid."""
    path = str(job.write(render(job)))
    log = str(job.logs / f"{job.name}.out")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Popen would wait for the child, or warn that it does not.
    pid = os.posix_spawnp("bash", ["bash", path], os.environ, file_actions=actions, setsid=True)
    return str(pid)


@contextmanager
def cluster(resources: Resources, folder: Path | None = None) -> Iterator[Client]:
    """Worker processes of this machine; a killed one is started again.

    A worker takes one task at a time and computes it with `resources.threads` threads: its memory
    is that of one block, however many threads it has.

    Raises
    ------
    ValueError
        When the workers ask for more memory than there is, or for GPUs.
    """
    _affordable(resources)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(
            prefix="workers-", dir=folder, ignore_cleanup_errors=True
        ) as scratch,
        LocalCluster(
            n_workers=resources.workers,
            threads_per_worker=1,
            memory_limit=resources.memory_bytes,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=scratch,
            worker_class=_Nanny,
            env=worker_environment(resources.threads),
            silence_logs=logging.ERROR,
        ) as workers,
        Client(workers) as client,
    ):
        yield client


class _Nanny(Nanny):  # type: ignore[misc]  # distributed is not typed
    """A nanny whose worker knows its threads before Python starts in it.

    Dask sets `env` when numpy has been loaded already, and has its own default, one thread, before.
    """

    def __init__(self, *args: Any, env: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, env=env, **kwargs)
        self.pre_spawn_env |= env


def _affordable(resources: Resources) -> None:
    if resources.gpus:
        raise ValueError(
            f"cluster.gpus: {resources.gpus} asked for, but workers of the local backend compute "
            "on cores; set gpus = 0"
        )
    wanted = resources.workers * resources.memory_bytes
    if wanted > MEMORY_LIMIT:
        each, total, there = map(format_bytes, (resources.memory_bytes, wanted, MEMORY_LIMIT))
        raise ValueError(
            f"cluster.memory: {resources.workers} workers x {each} = {total}, but this machine has "
            f"{there}; ask for fewer workers or less memory for each"
        )
