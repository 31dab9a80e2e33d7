"""Losses: how far a denoised spectrum is from its target, where there is data to say so."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Name = Literal["mae", "mse"]


def mae(flux: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference over the good pixels of a batch.

    Parameters
    ----------
    flux, target : (N, P) float
        Model and data, normalised.
    weight : (N, P) float
        Inverse variances, or what else is 0 where a pixel does not count. None: all count.
    """
    return _mean((flux - target).abs(), weight)


def mse(flux: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference over the good pixels of a batch; parameters as `mae`."""
    return _mean((flux - target).square(), weight)


def named(name: Name) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """The loss of that name."""
    return {"mae": mae, "mse": mse}[name]


def _mean(value: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return value.mean()
    good = weight > 0
    # A batch without any data has loss 0 and gradient 0, not NaN.
    return torch.where(good, value, 0).sum() / good.sum().clamp(min=1)
