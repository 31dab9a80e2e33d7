"""Workers on all nodes of a Slurm job, started by the command that runs in it.

`specmill submit --backend slurm` with `[cluster] nodes = 2` or more runs its stages with it. The
scheduler is in the command itself; workers and scheduler know one another by certificates that only
this run has.
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed import Client, LocalCluster
from distributed.utils import get_ip

from deploy import certificates
from deploy.job import Job, Resources, script, worker_environment

logger = logging.getLogger(__name__)

FIRST_S = 300
"Time for the first worker to come: a file system under load reads Python slowly."
END_S = 30
"Time for workers to go when they are told, before they are killed."


def render(job: Job) -> str:
    """A bash script, for an allocation that is there already."""
    return script(job)


def submit(job: Job) -> str:
    """Not here: an allocation is given by a queue.

    Raises
    ------
    RuntimeError
        Always; says what to do.
    """
    raise RuntimeError(
        f"{job.name}: srun starts workers inside a job of Slurm, and queues none; "
        "submit with --backend slurm and cluster.nodes"
    )


@contextmanager
def cluster(resources: Resources, folder: Path | None = None) -> Iterator[Client]:
    """Workers on the nodes of this Slurm job, over TLS, one task at a time each.

    folder is one that the nodes see too: certificates, logs, and what workers spill, go there.

    Raises
    ------
    RuntimeError
        Outside of a job of Slurm, or when no worker comes; names the log.
    """
    if "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise RuntimeError(
            "cluster.backend: srun starts workers inside a job of Slurm, and this is none; "
            "`specmill submit STAGE CARD --backend slurm`, or another backend"
        )
    folder = (folder or Path.cwd()).absolute()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        keys = stack.enter_context(certificates.temporary(folder))
        step = stack.enter_context(_ended())
        place = {"interface": resources.interface} if resources.interface else {"host": get_ip()}
        scheduler = stack.enter_context(
            LocalCluster(
                n_workers=0,
                protocol="tls://",
                security=certificates.known(keys),
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
                **place,
            )
        )
        client = stack.enter_context(Client(scheduler))
        words = command(resources, scheduler.scheduler_address, keys, folder)
        step.start(words, worker_environment(resources.threads, resources.gpus), scheduler.close)
        step.wait_for_one(client)
        yield client


def command(resources: Resources, address: str, keys: Path, folder: Path) -> list[str]:
    """The srun that starts all workers, each under a nanny that starts it again."""
    tasks = {
        "nodes": min(resources.nodes, resources.workers),
        "ntasks": resources.workers,
        "ntasks-per-node": resources.workers_a_node,
        "cpus-per-task": resources.threads,
        # The memory of the job is theirs, and a step that runs already leaves room.
        "mem": 0,
        "kill-on-bad-exit": 0,
        "input": "none",
        "output": f"{folder}/logs/srun-%j-%s-%t.log",
    }
    if resources.gpus:
        tasks["gpus-per-task"] = resources.gpus
    worker = {
        "nthreads": 1,
        "nworkers": 1,
        "memory-limit": f"{resources.memory_bytes}B",
        "local-directory": folder,
        # Orphans go by themselves.
        "death-timeout": 60,
        "tls-ca-file": keys / "ca.pem",
        "tls-cert": keys / "cert.pem",
        "tls-key": keys / "key.pem",
    }
    if resources.interface:
        worker["interface"] = resources.interface
    python = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    options = [word for name, value in worker.items() for word in (f"--{name}", str(value))]
    steps = [f"--{name}={value}" for name, value in tasks.items()]
    return ["srun", "--overlap", *steps, *python, "--nanny", "--no-dashboard", *options]


@dataclass
class _Step:
    """The srun behind the workers."""

    process: subprocess.Popen[bytes] | None = None
    closing: bool = False

    def start(
        self, words: list[str], environment: dict[str, str], lost: Callable[[], object]
    ) -> None:
        """Start it; lost is called when it ends before its time: nobody would do the tasks."""
        own = {"PYTHONSAFEPATH": "1", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}
        # A session of its own: Ctrl-C is for the command, which then tells its workers.
        self.process = subprocess.Popen(
            words, env=os.environ | environment | own, start_new_session=True
        )
        threading.Thread(target=self._watch, args=(lost,), daemon=True).start()

    def wait_for_one(self, client: Client) -> None:
        """Wait until there is a worker.

        Raises
        ------
        RuntimeError
            When srun ends first, or nobody comes.
        """
        assert self.process is not None
        for _ in range(FIRST_S):
            if client.nthreads():
                return
            try:
                status = self.process.wait(1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"srun ended with status {status} before a worker came; see its log")
        raise RuntimeError(f"no worker came within {FIRST_S} s; see workers/logs/srun-*.log")

    def _watch(self, lost: Callable[[], object]) -> None:
        assert self.process is not None
        status = self.process.wait()
        if not self.closing:
            logger.error("all workers are gone: srun ended with status %d", status)
            lost()


@contextmanager
def _ended() -> Iterator[_Step]:
    """A step that is over when the context is."""
    step = _Step()
    try:
        yield step
    finally:
        step.closing = True
        if step.process is not None:
            _end(step.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stop in (process.terminate, process.kill):
        try:
            process.wait(END_S)
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
