"""Trust: what a denoised spectrum says of itself when it is held against its own input."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.device import download

BAND = 50
"Pixels of a band: noise averages down in it, and a wrong continuum or a missing line does not."
LIMIT = 2.0
"""A model that holds the galaxy has 1 or less, for what it learns from a spectrum comes off the
residual; on mock-v1, 99 % of the spectra that a passing model has never seen are below 1.9."""


def misfit(x: Tensor, weight: Tensor, flux: Tensor) -> NDArray[np.float32]:
    """How much of the input a model leaves out or makes up: the mean chi^2 of bands of residual.

    Parameters
    ----------
    x, weight, flux : (N, P)
        Input on the frame, its weight (0 = no data), and what the model made of it.

    Returns
    -------
    (N,) float32
        Mean over bands of (sum w (x - flux))^2 / sum w; NaN where no band has data. Noise alone
        gives 1, since the weights of a frame count correlated neighbours for what they tell.
    """
    bands = x.shape[1] // BAND
    pull, power = (
        values[:, : bands * BAND].reshape(len(x), bands, BAND).double().sum(dim=2)
        for values in (weight * (x - flux), weight)
    )
    known = power > 0
    chi2 = torch.where(known, pull.square() / power.clamp(min=1e-30), 0.0)
    return download((chi2.sum(dim=1) / known.sum(dim=1)).float())
