"""Redshifted: a rest-frame spectrum as a spectrograph sees it, in one differentiable step.

Rest wavelengths -> observed ones -> pixels of the spectrograph -> its line spread.
Axes: N spectra, R pixels at rest, P pixels observed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.grid import Grid

EDGE = 1e-6
"Rest pixels that rounding may put a wavelength beyond the last one."


def rest_grid(observed: Grid, pixels: int, z_max: float) -> Grid:
    """Rest wavelengths, even in A, of all that is observed up to a redshift.

    From the shortest observed wavelength at z_max to the longest at 0 (Melchior+2023, 3.2).

    Raises
    ------
    ValueError
        When there are fewer than two pixels.
    """
    if pixels < 2:
        raise ValueError(f"rest_pixels: found {pixels}; expected 2 or more")
    low, high = observed.wavelength[0] / (1 + z_max), observed.wavelength[-1]
    step = float(high - low) / (pixels - 1)
    return Grid(kind="linear", start=float(low), step=step, size=pixels)


class Redshifted(nn.Module):
    """From rest pixels, even in A, to the pixels of an observed grid."""

    wavelength: Tensor

    def __init__(self, rest: Grid, observed: Grid, lsf: int = 0) -> None:
        super().__init__()
        self.rest = rest
        wavelength = torch.from_numpy(observed.wavelength)
        self.register_buffer("wavelength", wavelength, persistent=False)
        self.spread = nn.Parameter(torch.empty(lsf)) if lsf else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The line spread is a single pixel again."""
        if self.spread is not None:
            self.spread.zero_()
            self.spread[len(self.spread) // 2] = 1

    @property
    def kernel(self) -> Tensor | None:
        """The line spread function over observed pixels, (lsf,), of sum 1; None: there is none."""
        return None if self.spread is None else self.spread / self.spread.sum()

    def forward(self, flux: Tensor, z: Tensor) -> Tensor:
        """Spectra (N, R) at redshifts z (N,): (N, P), 0 where they have no rest pixel."""
        place = self._place(z)
        below = place.clamp(0, self.rest.size - 2).long()
        part = (place - below).clamp(0, 1).to(flux)
        seen = torch.lerp(flux.gather(1, below), flux.gather(1, below + 1), part)
        seen = torch.where(self._within(place), seen, 0)
        kernel = self.kernel
        if kernel is None:
            return seen
        return _spread(seen, kernel)

    def inside(self, z: Tensor) -> Tensor:
        """Whether observed pixels have rest pixels at redshifts z (N,): (N, P) bool."""
        return self._within(self._place(z))

    def _place(self, z: Tensor) -> Tensor:
        """Fractional rest pixel of each observed one, (N, P) float64."""
        stretch = 1 + torch.where(z > -1, z.double(), 0)
        return (self.wavelength / stretch[:, None] - self.rest.start) / self.rest.step

    def _within(self, place: Tensor) -> Tensor:
        return (place >= -EDGE) & (place <= self.rest.size - 1 + EDGE)


def _spread(flux: Tensor, kernel: Tensor) -> Tensor:
    """Flux (N, P) under a kernel of an odd number of pixels; beyond the ends there is none."""
    # PyTorch's convolution of one channel by so few taps takes five times as long.
    beyond = F.pad(flux, (len(kernel) // 2, len(kernel) // 2))
    shifted = (beyond[:, first : first + flux.shape[1]] for first in range(len(kernel)))
    spread = torch.zeros_like(flux)
    for share, part in zip(kernel, shifted, strict=True):
        spread = torch.addcmul(spread, part, share)
    return spread
