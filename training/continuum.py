"""Continuum: the boosted median of Rogers+2010, a high percentile of the flux around a pixel.

Absorption lines are the low values of a window, so a high percentile passes over them. It rides on
the noise as well: by 1.25 of the noise of a pixel for the 90th of 100 pixels, which a network that
learns from spectra without continuum sees. Axes: N spectra, P pixels, K knots, W pixels of a
window.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from storage.grid import Grid
from training.bridge import bridged
from training.network import LINE_WIDTH, LINES

KNOTS = 10
"Percentiles taken a window: they are smoothed over five of them, and are linear between."
FEWEST = 0.1
"Share of a window that must count; the knots beside it are bridged otherwise."
FLOOR = 0.05
"What is divided by at the least, of a spectrum whose window mean is 1."


class Continuum(nn.Module):
    """The pseudo-continuum of spectra on a grid; nothing of it is learnt.

    Parameters
    ----------
    grid : Grid
        P pixels.
    percentile : float
        Of the flux in a window; between order statistics as `numpy.percentile` has it.
    window, smooth : float
        Widths of the window and of the running mean over percentiles, A; at the ends of the grid
        both shrink.
    lines : bool
        Leave out what is within 12 A of strong emission lines; for rest-frame grids.
    """

    left: Tensor
    part: Tensor
    counts: Tensor

    def __init__(
        self,
        grid: Grid,
        *,
        percentile: float = 90.0,
        window: float = 100.0,
        smooth: float = 50.0,
        lines: bool = True,
    ) -> None:
        super().__init__()
        pixel = float(grid.widths[grid.size // 2])
        self.below = percentile / 100
        self.reach = max(1, min(round(window / 2 / pixel), grid.size - 1))
        self.stride = max(1, round(window / KNOTS / pixel))
        self.box = 1 + 2 * round((smooth / pixel / self.stride - 1) / 2)
        self.knots = max(2, 1 + math.ceil((grid.size - 1) / self.stride))
        place = torch.arange(grid.size)
        left = (place // self.stride).clamp(max=self.knots - 2)
        near = torch.zeros(grid.size, dtype=torch.bool)
        if lines:
            rest = torch.tensor(list(LINES.values()), dtype=torch.float64)
            apart = (torch.from_numpy(grid.wavelength)[:, None] - rest).abs()
            near = (apart <= LINE_WIDTH).any(1)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("part", place / self.stride - left, persistent=False)
        self.register_buffer("counts", ~near, persistent=False)

    @torch.no_grad()
    def forward(self, flux: Tensor, weight: Tensor) -> Tensor:
        """Continuum (N, P) of finite flux (N, P); pixels of weight 0 do not count.

        To a gradient it is a constant.
        """
        knot = self._percentiles(flux, (weight > 0) & self.counts)
        smooth = nn.functional.avg_pool1d(
            knot[:, None], self.box, 1, self.box // 2, count_include_pad=False
        )[:, 0]
        return torch.lerp(smooth[:, self.left], smooth[:, self.left + 1], self.part)

    def subtracted(self, flux: Tensor, weight: Tensor) -> Tensor:
        """Flux less its continuum."""
        return flux - self.forward(flux, weight)

    def divided(self, flux: Tensor, weight: Tensor) -> Tensor:
        """Flux over its continuum, or over 0.05 where that is less."""
        return flux / self.forward(flux, weight).clamp(min=FLOOR)

    def _percentiles(self, flux: Tensor, good: Tensor) -> Tensor:
        """Percentile around each knot, (N, K); bridged where too little of a window counts."""
        size = 2 * self.reach + 1
        beyond = (self.knots - 1) * self.stride + self.reach + 1 - flux.shape[1]
        hidden = torch.where(good, flux, torch.inf)
        padded = nn.functional.pad(hidden, (self.reach, beyond), value=torch.inf)
        windows = _ascending(padded.unfold(1, size, self.stride))
        total = nn.functional.pad(padded.isfinite().cumsum(1), (1, 0))
        count = total[:, size :: self.stride] - total[:, : -size : self.stride]
        rank = self.below * (count - 1).clamp(min=0)
        low = rank.long()
        first, second = (
            windows.gather(-1, at.clamp(max=size - 1)[..., None])[..., 0] for at in (low, low + 1)
        )
        enough = count >= max(1, FEWEST * size)
        # Beyond the last value that counts there is no number to lean towards.
        value = torch.lerp(first, torch.where(low + 1 < count, second, first), rank - low)
        return bridged(torch.where(enough, value, 0), enough.to(flux))


def _ascending(windows: Tensor) -> Tensor:
    """Sorted along the last axis."""
    if windows.device.type != "cpu":
        return windows.sort().values
    # NumPy sorts with vector instructions: 65 us a spectrum of 3,800 pixels, torch's sort 1,020.
    return torch.from_numpy(np.sort(windows.numpy(), axis=-1))
