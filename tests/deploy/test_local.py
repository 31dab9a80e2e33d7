"""Workers on this machine: they compute, come back, stay on loopback, and go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from deploy.backends import local
from deploy.job import Job, Resources, cores

RESOURCES = Resources(workers=2, threads=2, memory="1GiB")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    # What the coordinator's own environment says must not reach the workers.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with local.cluster(RESOURCES, tmp_path_factory.mktemp("run")) as client:
            yield client


def _threads() -> tuple[int, set[int]]:
    import numpy  # noqa: F401  # brings the BLAS that is looked at
    import threadpoolctl
    import torch

    pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    return torch.get_num_threads(), pools


def _file_of_ours() -> str:
    import storage.grid

    return str(storage.grid.__file__)


def _listening(pid: int) -> set[str]:
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


@pytest.mark.cluster
def test_workers_do_what_they_are_given(client: Client) -> None:
    assert client.gather(client.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


@pytest.mark.cluster
def test_workers_import_our_packages(client: Client) -> None:
    import storage.grid

    assert set(client.run(_file_of_ours).values()) == {storage.grid.__file__}


@pytest.mark.cluster
def test_a_worker_computes_with_its_share_of_the_cores(client: Client) -> None:
    # Libraries take no more threads than there are cores.
    expected = min(RESOURCES.threads, cores())

    for torch_threads, pools in client.run(_threads).values():
        assert torch_threads == expected
        assert pools == {expected}


@pytest.mark.cluster
def test_a_worker_takes_one_task_at_a_time_within_its_memory(client: Client) -> None:
    workers = client.scheduler_info()["workers"].values()

    assert [worker["nthreads"] for worker in workers] == [1, 1]
    assert [worker["memory_limit"] for worker in workers] == [2**30, 2**30]


@pytest.mark.cluster
def test_nothing_listens_beyond_loopback(client: Client) -> None:
    pids = [os.getpid(), *client.run(os.getpid).values()]

    assert set().union(*map(_listening, pids)) == {"127.0.0.1"}
    assert client.dashboard_link.startswith("http://127.0.0.1:")


@pytest.mark.cluster
def test_a_killed_worker_is_started_again(client: Client) -> None:
    before = set(client.run(os.getpid).values())
    os.kill(min(before), signal.SIGKILL)

    after = _until(lambda: set(client.run(os.getpid, on_error="ignore").values()), min(before))

    assert len(after) == 2
    assert client.submit(abs, -1).result(timeout=30) == 1


@pytest.mark.cluster
def test_a_worker_that_starts_slowly_again_is_not_given_up(client: Client) -> None:
    # As long as that, Dask's clusters wait for one that died; else nobody would be left.
    assert dask.config.get("distributed.deploy.lost-worker-timeout") >= 300


@pytest.mark.cluster
def test_closing_leaves_no_process_and_no_scratch(tmp_path: Path) -> None:
    with local.cluster(Resources(memory="1GiB"), tmp_path / "new" / "run") as client:
        pids = list(client.run(os.getpid).values())
        assert psutil.pid_exists(pids[0])

    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not list((tmp_path / "new" / "run").iterdir())


def test_more_memory_than_there_is_is_refused_with_the_sum() -> None:
    with (
        pytest.raises(ValueError, match=r"cluster\.memory: 2 workers x 64\.00 TiB = 128\.00 TiB"),
        local.cluster(Resources(workers=2, memory="64TiB")),
    ):
        pass


def test_gpus_are_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"cluster\.gpus: 1 asked for"),
        local.cluster(Resources(gpus=1)),
    ):
        pass


def test_a_submitted_job_runs_in_the_background_and_leaves_its_log(tmp_path: Path) -> None:
    # The child below is ours, so that its end can be waited for.
    show = "import os; print(os.environ['PYTHONSAFEPATH'], os.getsid(0) == os.getppid())"
    job = Job(name="show", command=(sys.executable, "-c", show), folder=tmp_path)

    pid = int(local.submit(job))
    os.waitpid(pid, 0)

    assert (tmp_path / "logs" / "show.out").read_text() == "1 True\n"


def test_a_failing_job_fails(tmp_path: Path) -> None:
    job = Job(name="fail", command=("bash", "-c", "exit 3"), folder=tmp_path)

    run = subprocess.run(["bash", str(job.write(local.render(job)))], check=False)

    assert run.returncode == 3


def _until(pids: Callable[[], set[int]], killed: int, timeout_s: float = 60) -> set[int]:
    """Pids of the workers once the killed one is replaced."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = pids()
        if killed not in found and len(found) == 2:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"worker {killed} was not replaced in {timeout_s} s")
