"""Distortions: what is drawn on the pixels of the frame, of input and target.

In the order of Pal & Dobos (2024, section 3.3): a calibration curve on both, noise on the input,
a factor and an offset on both; last, pixels of the input are hidden. Axes: N spectra, P pixels.
"""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from training.augment import Augment
from training.batch import Batch
from training.bridge import bridged

CUT, MODES = 16, 64
"Half waves over the frame at which a calibration curve is cut off, and that are drawn at all."
LEAST = 0.1
"Of a factor: a normal number is below 0 now and then."
WIDEST_GAP = 64
"Frame pixels; gaps have 1 to so many: from a cosmic ray to a bright line of the sky."


def distorted(batch: Batch, augment: Augment, random: np.random.Generator) -> Batch:
    """The batch with one epoch's draws; the batch that is given stays as it is.

    The target appears where it is no longer the input. Weights follow the noise, but for that of
    an exact target, which has none.
    """
    n, pixels = batch.x.shape
    apart = batch.target is not None or augment.sigma > 0 or augment.masks > 0
    (x, weight), (target, target_weight) = (batch.x, batch.weight), batch.wanted
    if augment.calibration:
        gain = 1 + curves(n, pixels, augment.calibration, random)
        x, weight = x * gain, weight / gain.square()
        target, target_weight = target * gain, _over(target_weight, gain, augment.exact)
    if augment.sigma:
        x, weight = noisy(x, weight, augment, random)
    if augment.scale or augment.offset:
        gain = (1 + augment.scale * _normal((n, 1), random)).clamp(min=LEAST)
        # A spectrum that is not ok stays 0.
        more = augment.offset * _normal((n, 1), random) * batch.ok[:, None]
        x, weight = x * gain + more, weight / gain.square()
        target, target_weight = target * gain + more, _over(target_weight, gain, augment.exact)
    if augment.masks:
        weight = weight * ~gaps(n, pixels, augment.masks, random)
    changed = replace(batch, x=bridged(x, weight), weight=weight)
    if not apart:
        return changed
    return replace(changed, target=target, target_weight=target_weight)


def curves(n: int, pixels: int, most: float, random: np.random.Generator) -> Tensor:
    """Errors of a flux calibration, (N, P): smooth, of mean 0, up to `most` times U(0, 1).

    Notes
    -----
    A random walk less its mean is a sum of cosines of k half waves with independent amplitudes
    proportional to 1/k (Karhunen-Loeve); a Butterworth filter of order 3 lets the first 16 pass.
    """
    shapes = _half_waves(min(MODES, pixels - 1), pixels)
    # In float64, which no setting for the network's products rounds.
    walk = (_normal((n, len(shapes)), random).double() @ shapes).float()
    height = torch.from_numpy(random.random((n, 1), dtype=np.float32)) * most
    return walk * (height / walk.abs().amax(1, keepdim=True))


def noisy(
    x: Tensor, weight: Tensor, augment: Augment, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Good pixels with noise of `sigma`, normalised again; and their inverse variance."""
    good = weight.sign()
    found = x + augment.sigma * good * _normal(x.shape, random)
    weight = weight / (1 + weight * augment.sigma**2)
    if augment.renorm == "none":
        return found, weight
    before, after = _norm(x * good, augment), _norm(found * good, augment)
    if augment.renorm == "l2_debiased":
        after = after - augment.sigma**2 * good.sum(1, keepdim=True)
    power = 1.0 if augment.renorm == "sum" else 0.5
    # Never more than doubled: what is left of a faint spectrum's norm may be anything.
    gain = before / torch.maximum(after, before * 0.5 ** (1 / power))
    gain = torch.where(before > 0, gain, 1).pow(power)
    return found * gain, weight / gain.square()


def gaps(n: int, pixels: int, share: float, random: np.random.Generator) -> Tensor:
    """Which pixels are hidden, (N, P) bool: `share` of them on average.

    The gaps of a spectrum have one width, of 1 to 64 pixels (fewer on a short frame), and may meet.
    """
    widest = min(WIDEST_GAP, max(1, pixels // 8))
    width = np.floor(np.exp(random.uniform(0, math.log(widest + 1), (n, 1)))).astype(np.int64)
    width = np.minimum(width, widest)
    # A pixel is seen when no gap begins at it or at the width - 1 pixels before.
    begins = random.random((n, pixels + widest), dtype=np.float32) < 1 - (1 - share) ** (1 / width)
    so_far = np.cumsum(begins, axis=1, dtype=np.int32)
    here = np.arange(widest, pixels + widest)[None, :]
    return torch.from_numpy(so_far[:, widest:] > np.take_along_axis(so_far, here - width, axis=1))


@lru_cache(maxsize=4)
def _half_waves(modes: int, pixels: int) -> Tensor:
    """Cosines (modes, P) float64 with the amplitudes of a filtered random walk."""
    k = torch.arange(1, modes + 1, dtype=torch.float64)[:, None]
    place = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
    height = 1 / (k * (1 + (k / CUT) ** 6).sqrt())
    return height * torch.cos(math.pi * k * place)


def _norm(x: Tensor, augment: Augment) -> Tensor:
    """Sum of x, or of its squares, (N, 1)."""
    return (x if augment.renorm == "sum" else x.square()).sum(1, keepdim=True)


def _over(weight: Tensor, gain: Tensor, exact: bool) -> Tensor:
    return weight if exact else weight / gain.square()


def _normal(shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
