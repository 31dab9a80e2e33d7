"""Population: how well the starlight under a line is known, where lines hide it.

Stars of different ages differ under Balmer lines, where nothing is fitted: what the rest of the
spectrum leaves open there becomes an error of the flux. Only the shape counts, line against what is
beside it; the level is fitted with the lines. Axes: N spectra, T templates, V dispersions.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.lines.continuum import Starlight
from pipeline.lines.line_list import LINES
from pipeline.lines.templates import FINE, Bank
from pipeline.lines.windows import MARGIN_KMS
from storage.velocity import C_KMS

_CORE_KMS = 400.0
"What is nearer to a line is not beside it."


def span(sigma: Tensor, wavelength: Tensor) -> Tensor:
    """What is multiplied by an error of the continuum to be that of a flux, A.

    A line of sigma (km/s) is weighed by its own profile.
    """
    return wavelength * sigma * (2 * math.sqrt(math.pi) / C_KMS)


def depth_variance(stars: Starlight, bank: Bank, sigma: Tensor) -> Tensor:
    """Variance of the starlight under each line, (N, line) float64.

    Parameters
    ----------
    stars : Starlight
    bank : Bank
        That they are of.
    sigma : (N, line) float
        Observed width of the lines, km/s.
    """
    ladder = bank.widths.log()
    width = torch.hypot(bank.widths[stars.place][:, None], sigma.double())
    # The steps of the ladder are even in the logarithm.
    place = ((width.log() - ladder[0]) / (ladder[1] - ladder[0])).round().long()
    place = place.clamp(0, len(ladder) - 1)
    line = torch.arange(len(LINES), device=place.device)
    depth = _depths(bank)[place, line]
    return ((depth @ stars.covariance) * depth).sum(-1).clamp(min=0).double()


@lru_cache(maxsize=4)
def _depths(bank: Bank) -> Tensor:
    """Templates at each line over what is beside it, (V, line, T) float32."""
    velocity = np.array([(FINE.wavelength / line.wavelength - 1) * C_KMS for line in LINES])
    beside = (np.abs(velocity) < MARGIN_KMS) & (np.abs(velocity) > _CORE_KMS)
    at = np.abs(velocity) == np.abs(velocity).min(axis=1, keepdims=True)
    weight = at / at.sum(axis=1, keepdims=True) - beside / beside.sum(axis=1, keepdims=True)
    return (bank.fine @ torch.from_numpy(weight.T).float().to(bank.fine.device)).mT.contiguous()
