"""The device of a worker: what its cluster says, and a way there and back that changes nothing."""

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.names import resolve
from training.device import VARIABLE, device_of, download, upload, worker_device


def test_a_process_that_was_given_nothing_computes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert worker_device() == torch.device("cpu")
    monkeypatch.setenv(VARIABLE, "")
    assert worker_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "cuda:first"])
def test_a_device_that_is_none_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(ValueError, match=rf"SPECMILL_DEVICE is '{name}'; expected cpu, cuda or"):
        worker_device()


def test_a_gpu_that_pytorch_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"sees no GPU; install a build .*backend = 'local'"):
        worker_device()


def test_a_gpu_is_given_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert worker_device() == torch.device("cuda", 1)


def test_on_the_cpu_nothing_is_copied() -> None:
    values = torch.arange(6.0)
    there = upload(values, torch.device("cpu"))
    assert there.data_ptr() == values.data_ptr()
    assert download(there).ctypes.data == values.data_ptr()


def test_a_model_is_where_its_numbers_are() -> None:
    model = resolve("training.models", "ppca").build(
        Grid(kind="linear", start=4000, step=1, size=20), components=2
    )
    assert device_of(model) == torch.device("cpu")
    assert device_of(model.to("meta")) == torch.device("meta")
    assert device_of(torch.nn.ReLU()) is None


@pytest.mark.gpu
def test_values_come_back_from_a_gpu_as_they_went() -> None:
    values = torch.arange(1 << 20, dtype=torch.float32).view(1024, 1024)
    there = upload(values, torch.device("cuda"))
    assert there.is_cuda
    np.testing.assert_array_equal(download(there + 1), values.numpy() + 1)
