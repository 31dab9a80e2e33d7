"""The GPUs of this machine: one worker process for each, on loopback."""

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dask.utils import format_bytes
from distributed import Client

from deploy import machine
from deploy.job import Job, Resources, script, worker_environment

VISIBLE = "CUDA_VISIBLE_DEVICES"
LEAST_BYTES = 4 << 30
"Memory that a worker needs at least: Python, PyTorch and CUDA alone may take half of it."


def render(job: Job) -> str:
    """A bash script."""
    return script(job)


def submit(job: Job) -> str:
    """Start the job in the background, out of reach of the terminal's Ctrl-C; gives its pid."""
    return machine.background(job, render(job))


def cluster(resources: Resources, folder: Path | None = None) -> AbstractContextManager[Client]:
    """Worker processes with a GPU each; a killed one is started again.

    They are the first of those in CUDA_VISIBLE_DEVICES, or of all. A worker takes one task at a
    time. This process only asks the driver for their number: it never computes on one.

    Raises
    ------
    ImportError
        When dask-cuda is not installed; names the extra.
    RuntimeError
        When there is no GPU.
    ValueError
        When there are fewer than workers, or these cannot have what they ask for.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ImportError(
            f"workers on GPUs need dask-cuda: pip install -c constraints.txt -e '.[cuda]' ({error})"
        ) from error
    named, count = os.environ.get(VISIBLE), installed()
    gpus = visible(named, count)
    if not gpus:
        raise RuntimeError(
            f"no GPU: the driver shows {count}, {VISIBLE} is {named!r}; `nvidia-smi -L` lists what "
            "there is. To compute on cores, set cluster.backend = 'local'"
        )
    options = worker_options(resources, gpus)
    machine.require_memory(resources)
    return machine.workers(LocalCUDACluster, folder, options)


def worker_options(resources: Resources, gpus: list[str]) -> dict[str, Any]:
    """What `dask_cuda.LocalCUDACluster` is given for one worker a GPU, one task at a time.

    gpus are the names of those that may be used.

    Raises
    ------
    ValueError
        When there are fewer GPUs than workers, or a worker asks for more than one, or for less
        memory than CUDA takes.
    """
    if resources.gpus > 1:
        raise ValueError(
            f"cluster.gpus: {resources.gpus} asked for, but a worker computes on one GPU; set "
            f"gpus = 1 and workers = {len(gpus)}"
        )
    if resources.workers > len(gpus):
        raise ValueError(
            f"cluster.workers: {resources.workers} asked for, each on a GPU of its own, but the "
            f"GPUs are {len(gpus)} ({', '.join(gpus)}); set workers = {len(gpus)}"
        )
    if resources.memory_bytes < LEAST_BYTES:
        raise ValueError(
            f"cluster.memory: {format_bytes(resources.memory_bytes)} for a worker with a GPU, "
            f"expected {format_bytes(LEAST_BYTES)} or more: CUDA's libraries count as its memory"
        )
    environment = worker_environment(resources.threads, gpus=1)
    return machine.worker_options(resources, environment) | {
        VISIBLE: gpus[: resources.workers],
        # Tasks leave nothing on a GPU between them that could be moved off it.
        "device_memory_limit": None,
    }


def visible(named: str | None, count: int) -> list[str]:
    """Names of the GPUs that a process may use, as CUDA reads CUDA_VISIBLE_DEVICES.

    named is that variable; count is how many the driver shows. As in CUDA, the list ends where it
    names none: -1, or a number that is not there.

    Examples
    --------
    >>> visible(None, 2), visible("1", 2), visible("0,-1,1", 2), visible("", 2)
    (['0', '1'], ['1'], ['0'], [])
    """
    if named is None or not count:
        return [str(number) for number in range(count)]
    found: list[str] = []
    for name in map(str.strip, named.split(",")):
        index = re.fullmatch(r"\d+", name) and int(name) < count
        if not index and not name.startswith(("GPU-", "MIG-")):
            break
        found.append(name)
    return found


def installed() -> int:
    """GPUs that the driver shows; 0 without a driver."""
    import pynvml  # comes with dask-cuda

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    return int(pynvml.nvmlDeviceGetCount())
