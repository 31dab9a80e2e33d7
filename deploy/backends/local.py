"""This machine: worker processes on loopback, each with its share of the cores."""

from contextlib import AbstractContextManager
from pathlib import Path

from distributed import Client, LocalCluster

from deploy.job import Job, Resources, script, worker_environment
from deploy.machine import background, require_memory, worker_options, workers


def render(job: Job) -> str:
    """A bash script."""
    return script(job)


def submit(job: Job) -> str:
    """Start the job in the background, out of reach of the terminal's Ctrl-C; gives its pid."""
    return background(job, render(job))


def cluster(resources: Resources, folder: Path | None = None) -> AbstractContextManager[Client]:
    """Worker processes of this machine; a killed one is started again.

    A worker takes one task at a time and computes it with `resources.threads` threads: its memory
    is that of one block, however many threads it has.

    Raises
    ------
    ValueError
        When the workers ask for more memory than there is, or for GPUs.
    """
    if resources.gpus:
        raise ValueError(
            f"cluster.gpus: {resources.gpus} asked for, but workers of the local backend compute "
            "on cores; set gpus = 0, or backend = 'cuda'"
        )
    require_memory(resources)
    options = worker_options(resources, worker_environment(resources.threads))
    return workers(LocalCluster, folder, options)
