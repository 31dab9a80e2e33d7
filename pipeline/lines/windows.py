"""Windows: the observed pixels around each block of lines, starlight taken off.

Axes: N spectra, L pixels, B blocks and S slots of a family, K pixels of a window.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.lines.axis import Axis
from pipeline.lines.instrument import at_lines
from pipeline.lines.layout import Family
from pipeline.lines.line_list import LINES
from pipeline.lines.masks import OTHERS
from pipeline.lines.templates import FINE
from storage.grid import Float, Grid
from storage.velocity import C_KMS

MARGIN_KMS = 1500.0
"What a window has on either side of its lines."
LEVEL = 0.03
"How far starlight is off under a line, as a share of it; one sigma."
_LEVEL_NOISE = 0.1
"The same where there is next to no starlight, as a share of a pixel's noise."
_OTHER_KMS, _NEXT_KMS = 300.0, 700.0
"Half width of what is left out around a line that is not measured, and one of another block."
_STEP = 8
"Windows are a multiple of this long."


class Windows(NamedTuple):
    """What the lines of a family are fitted on, in N spectra. Pixels without data weigh 0."""

    edge: Tensor
    "(N, B, K + 1) float32 pixel edges, km/s from the block's first line at z."
    width: Tensor
    "(N, B, K) float32 of pixels, A."
    root: Tensor
    "(N, B, K) float32 root of the inverse variance; 0 where nothing is fitted."
    per_width: Tensor
    "(N, B, 1, K) float32 root / width."
    data: Tensor
    "(N, B, 1, K) float32 root times flux, starlight taken off."
    levels: Tensor
    "(N, B, 2, K) float32 root times 1, and times an offset: what starlight may be off by."
    held: Tensor
    "(N, B) float64 inverse variance that holds these two near 0."
    stars: Tensor
    "(N, B, K) float32 starlight."
    lsf: Tensor
    "(N, B, S) float32 km/s sigma of the instrument at each slot; 0 where it is not known."
    start: Tensor
    "(N, B) int64 pixel that a window begins with; its end may lie beyond the axis."

    def of(self, rows: Tensor) -> "Windows":
        """Those of some spectra."""
        return Windows(*(part[rows] for part in self))


def windows(
    flux: Tensor, ivar: Tensor, axis: Axis, z: Tensor, stars: Tensor, lsf: Tensor | None, to: Family
) -> Windows:
    """The windows of N spectra.

    Parameters
    ----------
    flux, ivar : (N, L) float32
        Observed; ivar 0 is no data.
    axis : Axis
    z : (N,) float64
    stars : (N, F) float32
        On `FINE`.
    lsf : (N, L) or (L,) float, optional
        Sigma of the instrument, pixels; 0 where it is not known.
    to : Family
    """
    centre = axis.seen(to.first * (1 + z[:, None]))
    start, size = _extent(axis, z, to)
    columns = start[:, :, None] + torch.arange(size + 1, device=z.device)
    edges = torch.from_numpy(_edges(axis.grid, size)).to(z.device)[columns + size]
    velocity = ((edges / centre[:, :, None] - 1) * C_KMS).float()
    width = edges.diff(dim=-1).clamp_(min=1e-3).float()
    columns = columns[:, :, :-1]
    inside = (columns >= 0) & (columns < axis.grid.size)
    columns = columns.clamp(0, axis.grid.size - 1)
    picked = columns.flatten(1)
    middle = (velocity[:, :, :-1] + velocity[:, :, 1:]) / 2
    behind = starlight_at(stars, to.first.float()[:, None] * (1 + middle / C_KMS))
    root = ivar.gather(1, picked).view(columns.shape).sqrt_() * (inside & _within(middle, to))
    data = (flux.gather(1, picked).view(columns.shape) - behind) * root
    levels = torch.stack([root, root * (middle / MARGIN_KMS - 1)], dim=2)
    return Windows(
        velocity, width, root, (root / width)[:, :, None], data[:, :, None], levels,
        _held(root, behind), behind, at_lines(lsf, axis, z, to), start,
    )  # fmt: skip


def starlight_at(stars: Tensor, rest: Tensor) -> Tensor:
    """Starlight on `FINE`, (N, F), at rest wavelengths (N, ...): a cubic through four pixels."""
    # float32 places a pixel to a hundredth, in what changes over three and more.
    place = ((rest.log10() - FINE.start) / FINE.step).flatten(1)
    first = place.floor().clamp(1, FINE.size - 3)
    t = (place - first).clamp(-1, 2).float()
    column = first.long()
    shares = (
        t * (t - 1) * (t - 2) / -6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        (t + 1) * t * (t - 2) / -2,
        (t + 1) * t * (t - 1) / 6,
    )
    total = torch.zeros_like(t)
    for step, share in zip((-1, 0, 1, 2), shares, strict=True):
        total.addcmul_(stars.gather(1, column + step), share)
    return total.view(rest.shape)


def _extent(axis: Axis, z: Tensor, to: Family) -> tuple[Tensor, int]:
    """First pixel of each window (N, B), and the length of all."""
    reach = 1 + (to.span + to.span.new_tensor([-MARGIN_KMS, MARGIN_KMS])) / C_KMS
    size = _longest(axis.grid, float((reach[:, 1] / reach[:, 0]).max()))
    place = axis.pixel(axis.seen(to.first * reach[:, 0] * (1 + z[:, None])))
    # Beyond the axis a window holds nothing, wherever it is.
    return place.floor().clamp(-size, axis.grid.size).long(), size


def _longest(grid: Grid, ratio: float) -> int:
    """Most pixels of an axis that two wavelengths of that ratio, and what is between them, lie in.

    Sums are rounded by how many pixels they run over: that must not depend on who else is there.
    """
    if grid.kind == "log":
        most = math.log10(ratio) / grid.step
    else:
        most = (1 - 1 / ratio) * float(grid.edges[-1]) / grid.step
    return -(-(int(most) + 2) // _STEP) * _STEP


def _edges(grid: Grid, size: int) -> Float:
    """Edges of the axis, carried on by `size` pixels before it and two lots behind."""
    place = np.arange(-size, grid.size + 2 * size + 2) - 0.5
    value = grid.start + grid.step * place
    return np.asarray(10.0**value if grid.kind == "log" else np.maximum(value, 1.0))


def _within(middle: Tensor, to: Family) -> Tensor:
    """True inside the margin, and away from lines that are not the block's own; else False."""
    low, high = (to.span[:, k, None].float() for k in (0, 1))
    keep = (middle > low - MARGIN_KMS) & (middle < high + MARGIN_KMS)
    mine = to.lines.tolist()
    for block, first in enumerate(to.first.tolist()):
        others = [(w, _OTHER_KMS) for w in OTHERS] + [
            (line.wavelength, _NEXT_KMS) for n, line in enumerate(LINES) if n not in mine[block]
        ]
        for wavelength, reach in others:
            offset = (wavelength / first - 1) * C_KMS
            if -MARGIN_KMS - reach < offset < float(high[block]) + MARGIN_KMS + reach:
                keep[:, block] &= (middle[:, block] - offset).abs() > reach
    return keep


def _held(root: Tensor, stars: Tensor) -> Tensor:
    """What holds the levels, (N, B) float64: an inverse variance."""
    count = root.sign().sum(-1).clamp(min=1)
    noise = count / root.square().sum(-1).clamp(min=1e-30)
    level = (stars.abs() * root.sign()).sum(-1) / count
    return 1 / ((LEVEL * level).square() + _LEVEL_NOISE**2 * noise).double().clamp(min=1e-30)
