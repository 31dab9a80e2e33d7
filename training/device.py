"""Where a worker computes: on the GPU that its cluster gave it, or on the CPU; and the way there.

A process that was given none, the coordinator among them, never touches a GPU.
"""

import os
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

VARIABLE = "SPECMILL_DEVICE"
"Environment variable that a cluster sets in its workers: cpu, cuda or cuda:<number>."


def worker_device() -> torch.device:
    """The device of this process.

    Raises
    ------
    ValueError
        When the variable names no such device.
    RuntimeError
        When it names a GPU, and PyTorch has none.
    """
    asked = os.environ.get(VARIABLE) or "cpu"
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{VARIABLE} is {asked!r}; expected cpu, cuda or cuda:<number>")
    # Asked of the driver only where there should be one: the answer may start CUDA.
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"{VARIABLE} is {asked}, but PyTorch {torch.__version__} sees no GPU; install a build "
            "of it for CUDA, or compute on cores: cluster.backend = 'local'"
        )
    return device


def device_of(model: nn.Module) -> torch.device | None:
    """Where a model is; None where it holds nothing."""
    return next((value.device for value in (*model.parameters(), *model.buffers())), None)


def upload(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device; a GPU fetches them from pinned memory while it works."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    # PyTorch keeps pinned memory for the next copy, and gives it to none before this one is over.
    return values.pin_memory().to(device, non_blocking=True)


def download(values: Tensor) -> NDArray[Any]:
    """The values as an array, when all work on them is done; from a GPU through pinned memory."""
    if values.device.type != "cuda":
        return values.numpy()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values).numpy()
