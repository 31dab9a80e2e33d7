"""Workers on GPUs: what they are given, and what is said where there is none."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from deploy.backends import cuda
from deploy.job import Job, Resources
from training.device import VARIABLE

RESOURCES = Resources(workers=2, threads=3, memory="8GiB", gpus=1)


class NVMLError(Exception):
    """Stands for pynvml's."""


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for dask-cuda and the driver of a machine with two GPUs."""
    stand_ins = {name: ModuleType(name) for name in ("dask_cuda", "pynvml")}
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(stand_ins["dask_cuda"], "LocalCUDACluster", None, raising=False)
    for name, value in (
        ("NVMLError", NVMLError),
        ("nvmlInit", lambda: None),
        ("nvmlDeviceGetCount", lambda: 2),
    ):
        monkeypatch.setattr(stand_ins["pynvml"], name, value, raising=False)
    monkeypatch.delenv(cuda.VISIBLE, raising=False)
    return stand_ins["pynvml"]


def test_a_worker_has_a_gpu_and_takes_one_task_at_a_time() -> None:
    options = cuda.worker_options(RESOURCES, ["3", "5", "7"])

    assert options["n_workers"] == 2
    assert options["CUDA_VISIBLE_DEVICES"] == ["3", "5"]
    assert options["threads_per_worker"] == 1
    assert options["memory_limit"] == 8 * 2**30


def test_workers_stay_on_loopback() -> None:
    options = cuda.worker_options(RESOURCES, ["0", "1"])

    assert options["host"] == "127.0.0.1"
    assert options["dashboard_address"] == "127.0.0.1:0"


def test_a_worker_knows_its_device_and_its_threads() -> None:
    environment = cuda.worker_options(RESOURCES, ["0", "1"])["environment"]

    assert environment[VARIABLE] == "cuda"
    assert environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 3}, r"cluster\.workers: 3 .* the GPUs are 2 \(0, 1\); set workers = 2"),
        ({"gpus": 4}, r"cluster\.gpus: 4 asked for.*set gpus = 1 and workers = 2"),
        ({"memory": "2GiB"}, r"cluster\.memory: 2\.00 GiB .* expected 4\.00 GiB or more"),
    ],
)
def test_what_workers_cannot_have_is_refused(changed: dict[str, object], message: str) -> None:
    asked = Resources.model_validate(RESOURCES.model_dump() | changed)

    with pytest.raises(ValueError, match=message):
        cuda.worker_options(asked, ["0", "1"])


@pytest.mark.parametrize(
    ("named", "count", "expected"),
    [
        (None, 2, ["0", "1"]),
        ("1, 0", 2, ["1", "0"]),
        ("GPU-8f3e,MIG-41b3", 2, ["GPU-8f3e", "MIG-41b3"]),
        ("0,-1,1", 2, ["0"]),
        ("0,2,1", 2, ["0"]),
        ("", 2, []),
        ("NoDevFiles", 2, []),
        ("0,1", 0, []),
    ],
)
def test_gpus_are_those_that_cuda_would_see(
    named: str | None, count: int, expected: list[str]
) -> None:
    assert cuda.visible(named, count) == expected


def test_without_dask_cuda_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", None)

    with pytest.raises(ImportError, match=r"need dask-cuda: pip install .* '\.\[cuda\]'"):
        cuda.cluster(RESOURCES)


def test_without_a_driver_there_is_no_gpu(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise NVMLError

    monkeypatch.setattr(driver, "nvmlInit", absent)

    with pytest.raises(RuntimeError, match=r"no GPU: the driver shows 0, .*backend = 'local'"):
        cuda.cluster(RESOURCES)


def test_gpus_that_are_hidden_are_not_there(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cuda.VISIBLE, "")

    with pytest.raises(RuntimeError, match=r"shows 2, CUDA_VISIBLE_DEVICES is ''"):
        cuda.cluster(RESOURCES)


def test_more_memory_than_there_is_is_refused_with_the_sum(driver: ModuleType) -> None:
    asked = RESOURCES.model_copy(update={"memory": 64 << 40})

    with pytest.raises(ValueError, match=r"2 workers x 64\.00 TiB = 128\.00 TiB"):
        cuda.cluster(asked)


def test_a_submitted_job_runs_in_the_background(tmp_path: Path) -> None:
    job = Job(name="show", command=(sys.executable, "-c", "print(6 * 7)"), folder=tmp_path)

    os.waitpid(int(cuda.submit(job)), 0)

    assert (tmp_path / "logs" / "show.out").read_text() == "42\n"


def _where() -> tuple[str, int]:
    import torch

    from training.device import worker_device

    return worker_device().type, torch.cuda.current_device()


@pytest.mark.gpu
@pytest.mark.cluster
def test_a_worker_computes_on_a_gpu_and_the_coordinator_does_not(tmp_path: Path) -> None:
    import torch

    with cuda.cluster(Resources(workers=1, memory="8GiB"), tmp_path) as client:
        assert set(client.run(_where).values()) == {("cuda", 0)}
    assert not torch.cuda.is_initialized()
