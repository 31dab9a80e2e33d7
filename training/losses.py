"""Losses: how far a denoised spectrum is from its target, where there is data to say so.

Axes: N spectra, P pixels.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from training.model import Output

Name = Literal["mae", "mse", "rmse", "chi2", "sum_squares", "gaussian"]
Loss = Callable[[Output, Tensor, Tensor], Tensor]
"Mean loss of a batch, from the output, the target (N, P) and its inverse variance (N, P)."


def mae(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference over the good pixels of a batch (Camilleri+2025).

    Parameters
    ----------
    output : Output
        What the model says.
    target : (N, P) float
        What it should say, normalised.
    weight : (N, P) float
        Inverse variance of the target, or what else is 0 where a pixel does not count.
    """
    return mean_over(_apart(output, target, weight).abs(), weight)


def mse(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared difference over the good pixels of a batch; parameters as `mae`."""
    return mean_over(_apart(output, target, weight).square(), weight)


def rmse(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Root of the mean squared difference of each spectrum, its mean over spectra with data."""
    count = (weight > 0).sum(1)
    square = _apart(output, target, weight).square().sum(1) / count.clamp(min=1)
    # The root of 0 has no slope.
    return ((square + 1e-12).sqrt() * (count > 0)).sum() / (count > 0).sum().clamp(min=1)


def chi2(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Half the squared difference in units of the noise, mean over all pixels (Melchior+2023)."""
    return 0.5 * (weight * _apart(output, target, weight).square()).mean()


def sum_squares(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Half the squared difference in units of the noise, summed over pixels; mean over spectra.

    Scourfield+2023, eq. 3. A divergence of latents, which is a sum too, counts beside it as it
    should.
    """
    return 0.5 * (weight * _apart(output, target, weight).square()).sum(1).mean()


def gaussian(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Minus log likelihood a good pixel, of noise 1/weight beside the model's own sigma.

    Raises
    ------
    ValueError
        When the model gives no sigma.
    """
    if output.sigma is None:
        raise ValueError("loss 'gaussian' needs a model that says its sigma; use another loss")
    good = weight > 0
    variance = output.sigma.square() + torch.where(good, weight, 1).reciprocal()
    square = _apart(output, target, weight).square() / variance
    return mean_over(0.5 * (square + variance.log() + math.log(2 * math.pi)), weight)


def named(name: Name) -> Loss:
    """The loss of that name."""
    known: dict[Name, Loss] = {
        "mae": mae,
        "mse": mse,
        "rmse": rmse,
        "chi2": chi2,
        "sum_squares": sum_squares,
        "gaussian": gaussian,
    }
    return known[name]


def _apart(output: Output, target: Tensor, weight: Tensor) -> Tensor:
    """Difference (N, P); 0 where a pixel does not count, for what is there may be no number."""
    return torch.where(weight > 0, output.flux - target, 0)


def mean_over(value: Tensor, weight: Tensor) -> Tensor:
    """Mean of value (N, P) over the pixels that count."""
    good = weight > 0
    # A batch without any data has loss 0 and gradient 0, not NaN.
    return torch.where(good, value, 0).sum() / good.sum().clamp(min=1)
