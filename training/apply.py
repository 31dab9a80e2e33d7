"""Apply: a trained model on many spectra, in batches of always the same size.

A matrix product rounds differently for another number of rows. In batches of 256 absolute rows,
the last one padded, a product is the same to the bit however a survey is cut into blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.batches import each, join, move, take
from training.frame import Batch
from training.model import Denoiser, Output

ROWS = 256
"Rows of a model batch."


@torch.inference_mode()
def apply(model: Denoiser, batch: Batch) -> Output:
    """Denoise a batch on the device of the model; the result is on that of the batch.

    Parameters
    ----------
    model : Denoiser
        In eval mode.
    batch : Batch
        N spectra; for a product its first row is a multiple of 256 in the survey.
    """
    home = batch.x.device
    device = next((value.device for value in (*model.parameters(), *model.buffers())), home)
    parts: list[Output] = []
    for first in range(0, len(batch.x), ROWS):
        rows = move(_padded(take(batch, slice(first, first + ROWS))), device)
        parts.append(model(rows.x, rows.weight, rows.z))
    joined = [
        _joined(values, len(batch.x), home)
        for values in (
            [part.sigma for part in parts],
            [part.latent for part in parts],
            [part.latent_cov for part in parts],
        )
    ]
    return Output(torch.cat([part.flux for part in parts])[: len(batch.x)].to(home), *joined)


def _padded(batch: Batch) -> Batch:
    missing = ROWS - len(batch.x)
    if not missing:
        return batch
    # Rows of zeros have no weight: every model must take a spectrum without data anyway.
    blank = take(batch, torch.zeros(missing, dtype=torch.long))
    return join([batch, each(blank, torch.zeros_like)])


def _joined(values: Sequence[Tensor | None], count: int, home: torch.device) -> Tensor | None:
    tensors = [value for value in values if value is not None]
    return torch.cat(tensors)[:count].to(home) if tensors else None
