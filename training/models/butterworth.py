"""Butterworth: the low-pass filter that Camilleri+2025 compare with; it learns nothing."""

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.bridge import bridged
from training.model import Denoiser, Output


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cutoff: float = Field(default=0.8, gt=0, le=torch.pi)
    "Where the gain is 1/sqrt(2), radians per pixel; 0.8 is a period of 7.85 pixels."
    order: PositiveInt = 5
    "Steepness n of |H|^2 = 1 / (1 + (w / cutoff)^2n)."
    pad: NonNegativeInt = 200
    "Pixels mirrored at each end, so that the ends do not wrap round."


class Butterworth(Denoiser):
    """A zero-phase filter: the spectrum's Fourier transform times |H|."""

    fit = "none"
    gain: Tensor

    def __init__(self, pixels: int, options: Options) -> None:
        super().__init__()
        # Mirroring needs one pixel more than it mirrors.
        self.pad = min(options.pad, pixels - 1)
        frequency = 2 * torch.pi * torch.fft.rfftfreq(pixels + 2 * self.pad, dtype=torch.float64)
        gain = (1 + (frequency / options.cutoff) ** (2 * options.order)).rsqrt()
        self.register_buffer("gain", gain.float(), persistent=False)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Filter x; weights only say where data is missing, as in the paper."""
        padded = torch.nn.functional.pad(bridged(x, weight), (self.pad, self.pad), mode="reflect")
        smooth = torch.fft.irfft(torch.fft.rfft(padded) * self.gain, n=padded.shape[-1])
        return Output(flux=smooth[:, self.pad : self.pad + x.shape[-1]].contiguous())


def build(grid: Grid, **options: object) -> Butterworth:
    """A filter on a grid."""
    return Butterworth(grid.size, Options.model_validate(options))
