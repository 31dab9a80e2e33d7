"""Apply: a trained model on many spectra, in batches of always the same size.

A matrix product rounds differently for another number of rows. In batches of 256 absolute rows,
the last one padded, a product is the same to the bit however a survey is cut into blocks.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor

from training.batch import Batch, each, join, move, take
from training.device import device_of
from training.model import Denoiser, Output

ROWS = 256
"Rows of a model batch."

Precision = Literal["float32", "medium", "bfloat16"]
"""How the products of a network are rounded. float32: not at all. medium: float32 in and out,
factors as torch.set_float32_matmul_precision has it: TF32 on a GPU; on a CPU bfloat16 where it has
the tiles for it (AMX), else still float32. bfloat16: factors and results, by torch.autocast."""


def rounds(model: Denoiser) -> bool:
    """Whether a precision means anything to a model: linear algebra is never rounded."""
    return model.fit == "gradient"


# Not inference_mode: there, autocast would round the weights anew in every batch.
@torch.no_grad()
def apply(model: Denoiser, batch: Batch, precision: Precision = "float32") -> Output:
    """Denoise a batch on the device of the model; the result is on that of the batch.

    Parameters
    ----------
    model : Denoiser
        In eval mode.
    batch : Batch
        N spectra; for a product its first row is a multiple of 256 in the survey.
    precision : Precision
        Of a network's products; a model that does not learn by gradient is not rounded.
    """
    home = batch.x.device
    device = device_of(model) or home
    parts: list[Output] = []
    with _products(precision if rounds(model) else "float32", device):
        for first in range(0, len(batch.x), ROWS):
            rows = move(_padded(take(batch, slice(first, first + ROWS))), device)
            parts.append(model(rows.x, rows.weight, rows.z))
    flux, *rest = (
        _joined([getattr(part, name) for part in parts], len(batch.x), home)
        for name in Output._fields
    )
    assert flux is not None
    return Output(flux, *rest)


@contextmanager
def _products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Products of that precision, on that device; what was set before holds again afterwards."""
    before = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.callback(torch.set_float32_matmul_precision, before)
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "medium")
        if device.type == "cuda":
            # PyTorch lets convolutions round unless told otherwise, and choose a way that varies.
            tf32 = precision != "float32"
            flags = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32)
            stack.enter_context(flags)
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
        yield


def _padded(batch: Batch) -> Batch:
    missing = ROWS - len(batch.x)
    if not missing:
        return batch
    # Rows of zeros have no weight: every model must take a spectrum without data anyway.
    blank = take(batch, torch.zeros(missing, dtype=torch.long))
    return join([batch, each(blank, torch.zeros_like)])


def _joined(values: Sequence[Tensor | None], count: int, home: torch.device) -> Tensor | None:
    tensors = [value for value in values if value is not None]
    if not tensors:
        return None
    whole = torch.cat(tensors)[:count].to(home)
    return whole.float() if whole.dtype == torch.bfloat16 else whole
