"""Convolution: kernels of many channels slid along spectra, with a third of the products.

A stretch of T pixels and a kernel of k become P = 1.5 T numbers each, for which the convolution is
a product number by number (a discrete Fourier transform, three real products for a complex one);
what is left are matrix products over the channels. Rounding is that of float32 sums all the same.
Axes: N spectra, L pixels, C channels in, O channels out.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LONGEST = 128
"Pixels of a stretch; longer ones save nothing more."
ROWS = 64
"Spectra that share the cost of turning a kernel into its P numbers."
WORTH = 0.7
"Share of the plain products below which the short way is taken."


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How L pixels are cut, and the three matrices: y = back @ ((kernel @ w) * (there @ x))."""

    stretches: int
    "Of each spectrum."
    step: int
    "Pixels that a stretch gives, V = T - k + 1."
    there: Tensor
    "(P, T)."
    kernel: Tensor
    "(P, k)."
    back: Tensor
    "(V, P)."


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Slide kernels along spectra that are 0 beyond their ends.

    Parameters
    ----------
    x : (N, L, C) float
        Spectra, channels last.
    weight : (O, C, k) float
        Kernels, k odd, in the order of pixels: y_i = sum_t w_t x_(i + t - k // 2).

    Returns
    -------
    (N, L, O) float
    """
    out, channels, taps = weight.shape
    # cuDNN has its own ways, and rounded factors want sums as short as they can be.
    plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    cut = None if plain else plan(x.shape[1], channels, out, taps)
    if cut is None:
        return F.conv1d(x.mT, weight, padding=taps // 2).mT
    found: Tensor = _Short.apply(x, weight, cut)  # type: ignore[no-untyped-call]  # torch's
    return found


@lru_cache(maxsize=64)
def plan(length: int, channels: int, out: int, taps: int) -> Plan | None:
    """The cut with the fewest products; None where the plain way is as good."""
    costs = {}
    for step in range(taps, min(LONGEST, length + taps)):
        width, stretches = step + taps - 1, -(-length // step)
        points = 1 + 3 * ((width - 1) // 2) + (width + 1) % 2
        # Small products run at about half the speed of large ones.
        each = points * (channels * out + 2 * width * channels + 2 * step * out)
        costs[step] = stretches * each + points * taps * channels * out / ROWS
    if not costs or min(costs.values()) > WORTH * length * taps * channels * out:
        return None
    best = min(costs, key=lambda step: costs[step])
    there, kernel, back = _matrices(best + taps - 1, taps)
    return Plan(stretches=-(-length // best), step=best, there=there, kernel=kernel, back=back)


def _matrices(width: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """For X = a + ib and K = c + id: XK from c(a + b), a(d - c) and b(c + d)."""
    angle = 2 * np.pi / width * np.arange(width)
    pairs = np.arange(1, (width + 1) // 2)
    real = [0, width // 2] if width % 2 == 0 else [0]
    cos, sin = np.cos(pairs[:, None] * angle), np.sin(pairs[:, None] * angle)
    alone = np.cos(np.array(real)[:, None] * angle)
    there = np.concatenate([alone, cos - sin, cos, -sin])
    kernel = np.concatenate([alone, cos, sin - cos, cos + sin])[:, :taps]
    back = np.concatenate([alone, 2 * (cos - sin), -2 * sin, -2 * cos])[:, : width - taps + 1].T
    values = (there, kernel, back / width)
    there_, kernel_, back_ = (torch.from_numpy(value.astype("f4")).contiguous() for value in values)
    return there_, kernel_, back_


class _Short(torch.autograd.Function):
    """The short way and its gradient, each step a batch of matrix products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, cut: Plan) -> Tensor:
        rows, length, _ = x.shape
        out, channels, taps = weight.shape
        seen = _each(cut.there, _stretched(x, cut, taps)).transpose(0, 1)
        # As they lie, rather than in the order of pixels: turning them around takes longer.
        spread = (cut.kernel @ weight.reshape(-1, taps).T).view(-1, out, channels)
        ctx.save_for_backward(seen, spread)
        ctx.cut, ctx.taps = cut, taps
        y = _each(cut.back, torch.bmm(seen, spread.mT).transpose(0, 1))
        return y.view(rows, -1, out)[:, :length]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        seen, spread = ctx.saved_tensors
        cut, taps = ctx.cut, ctx.taps
        rows, length, out = grad.shape
        whole = F.pad(grad, (0, 0, 0, cut.stretches * cut.step - length))
        pulled = _each(cut.back.T, whole.view(-1, cut.step, out)).transpose(0, 1)
        x_grad = weight_grad = None
        if ctx.needs_input_grad[1]:
            of_spread = torch.bmm(pulled.mT, seen).flatten(1)
            weight_grad = (of_spread.T @ cut.kernel).view(out, -1, taps)
        if ctx.needs_input_grad[0]:
            of_seen = torch.bmm(pulled, spread).transpose(0, 1)
            stretched = _each(cut.there.T, of_seen).view(rows, cut.stretches, -1, seen.shape[2])
            x_grad = _laid(stretched, cut.step)[:, taps // 2 : taps // 2 + length]
        return x_grad, weight_grad, None


def _stretched(x: Tensor, cut: Plan, taps: int) -> Tensor:
    """Stretches that overlap, (N * stretches, T, C), with zeros beyond the ends."""
    length, channels = x.shape[1:]
    width = cut.step + taps - 1
    place = cut.step * torch.arange(cut.stretches)[:, None] + torch.arange(width) - taps // 2
    place = place.flatten()
    found = x.index_select(1, place.clamp(0, length - 1))
    found[:, (place < 0) | (place >= length)] = 0
    return found.view(-1, width, channels)


def _each(matrix: Tensor, values: Tensor) -> Tensor:
    """matrix (A, B) @ values (M, B, C), without a copy of either."""
    return torch.bmm(matrix.expand(len(values), -1, -1), values)


def _laid(stretched: Tensor, step: int) -> Tensor:
    """Sum of overlapping stretches (N, stretches, T, C): (N, pixels, C)."""
    rows, count, width, channels = stretched.shape
    # A stretch reaches no further than the next: T < 2 V.
    laid = stretched.new_zeros(rows, (count + 1) * step, channels)
    parts = laid.view(rows, count + 1, step, channels)
    parts[:, :-1] = stretched[:, :, :step]
    parts[:, 1:, : width - step] += stretched[:, :, step:]
    return laid
