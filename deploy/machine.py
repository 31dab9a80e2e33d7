"""This machine: jobs in its background, and worker processes on its loopback."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dask
import distributed
from dask.utils import format_bytes
from distributed import Client
from distributed.system import MEMORY_LIMIT

from deploy.job import Job, Resources


def background(job: Job, script: str) -> str:
    """Start a script in the background, out of reach of the terminal's Ctrl-C; gives its pid."""
    path = str(job.write(script))
    log = str(job.logs / f"{job.name}.out")
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Popen would wait for the child, or warn that it does not.
    pid = os.posix_spawnp("bash", ["bash", path], os.environ, file_actions=actions, setsid=True)
    return str(pid)


BACK_S = 600
"Within which a worker that died must be there again, s."


@contextmanager
def workers(
    make: Callable[..., AbstractContextManager[Any]],
    folder: Path | None,
    options: dict[str, Any],
) -> Iterator[Client]:
    """Workers of a class of clusters, with these options; a killed one is started again."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="workers-", dir=folder)
    # Dask gives a worker up that is not back after 15 s; importing alone takes longer on a busy
    # machine, and when all are given up a run waits for ever.
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": BACK_S})
    try:
        with (
            patience,
            make(**options, local_directory=scratch) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        # What a killed worker spilled may not be ours to remove; it is nothing to fail for.
        shutil.rmtree(scratch, ignore_errors=True)


def worker_options(resources: Resources, environment: dict[str, str]) -> dict[str, Any]:
    """What a `LocalCluster` is given for workers that take one task at a time."""
    return {
        "n_workers": resources.workers,
        "threads_per_worker": 1,
        "memory_limit": resources.memory_bytes,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "worker_class": Nanny,
        "environment": environment,
        "silence_logs": logging.ERROR,
    }


class Nanny(distributed.Nanny):  # type: ignore[misc]  # distributed is not typed
    """A nanny whose worker knows its environment before Python starts in it.

    Dask sets `env` when numpy has been loaded already, and has its own default, one thread, before;
    dask-cuda puts an `env` of its own in the place of any other.
    """

    def __init__(
        self,
        *args: Any,
        environment: dict[str, str],
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, env=environment | (env or {}), **kwargs)
        self.pre_spawn_env |= environment


def require_memory(resources: Resources) -> None:
    """Refuse workers that ask for more memory than this machine has.

    Raises
    ------
    ValueError
        Shows the sum.
    """
    wanted = resources.workers * resources.memory_bytes
    if wanted > MEMORY_LIMIT:
        each, total, there = map(format_bytes, (resources.memory_bytes, wanted, MEMORY_LIMIT))
        raise ValueError(
            f"cluster.memory: {resources.workers} workers x {each} = {total}, but this machine has "
            f"{there}; ask for fewer workers or less memory for each"
        )
