"""Norm: the one number that a spectrum is divided by, from the good pixels of a window.

Axes: N spectra, W pixels of the window. Pixels without data have flux 0 and ivar 0.
"""

import torch
from torch import Tensor

NOISELESS = 1e12
"""Inverse variance to give a noiseless spectrum that is put on a frame: what is less would be
noise, and be taken out of the sum of squares."""


def mean(flux: Tensor, count: Tensor) -> Tensor:
    """Mean flux (N,) of the `count` good pixels."""
    # Flux is 0 where there is no data: the sum needs no mask.
    return flux.sum(dim=1) / count


def median(flux: Tensor, ivar: Tensor) -> Tensor:
    """Median flux (N,) of the good pixels: the lower of two middle ones; NaN where none is good."""
    return torch.where(ivar > 0, flux, torch.nan).nanmedian(dim=1).values


def length(flux: Tensor, ivar: Tensor, own: Tensor, count: Tensor, size: Tensor | int) -> Tensor:
    """Root of the sum of squares (N,) that the window would have without gaps and noise.

    Parameters
    ----------
    flux, ivar : (N, W) float
        Flux, and inverse variance as a frame has it: of sums over neighbours.
    own : (N, W) or (W,) float
        Variance of one pixel by itself, in units of 1 / ivar.
    count, size : (N,) float
        Good pixels, and pixels of the window.

    Notes
    -----
    Noise adds its variance to every square. Without that taken out a faint spectrum would be
    scaled down by its noise, and a noisy and a noiseless one would not be alike: the sums of
    Scourfield et al. 2023, table 2, are of such spectra.
    """
    noise = own * ivar.sign() / ivar.clamp(min=1e-30)
    power = (flux.square() - noise).sum(dim=1) / count * size
    return power.clamp(min=0).sqrt()


def own_share(width: Tensor) -> Tensor:
    """Variance of a rebinned pixel over that which smooth sums need of it, on average.

    width : in independent source pixels. Edges fall anywhere in a source pixel, so the sum of
    squared overlaps is width - 1/3 where a pixel is wider than one, and width^2 (1 - width / 3)
    where it is not.
    """
    return torch.where(width < 1, width * (1 - width / 3), 1 - 1 / (3 * width))
