"""Savgol: the filter of Savitzky & Golay (1964), a polynomial through every stretch of pixels.

It learns nothing. Camilleri+2025 name it and take a Butterworth filter instead; by default half of
the power is gone where it is there, at 0.8 radians per pixel.
"""

from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from storage.grid import Grid
from training.bridge import bridged
from training.model import Denoiser, Output


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: PositiveInt = 19
    "Pixels that a polynomial is fitted to; odd."
    order: NonNegativeInt = 6
    "Of the polynomial."

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window % 2 == 0 or self.order >= self.window:
            raise ValueError(
                f"window = {self.window}, order = {self.order}: the window is odd, and longer "
                "than the order"
            )
        return self


class Savgol(Denoiser):
    """A convolution; the first and last pixels are on the polynomial of the first and last window.

    Its ends are those of scipy.signal.savgol_filter with mode 'interp'.
    """

    fit = "none"
    kernel: Tensor
    ends: Tensor

    def __init__(self, options: Options) -> None:
        from scipy.signal import savgol_coeffs

        super().__init__()
        window, order = options.window, options.order
        kernel = savgol_coeffs(window, order, use="dot")
        before = [savgol_coeffs(window, order, pos=at, use="dot") for at in range(window // 2)]
        ends = np.stack([kernel, *before])[1:]
        self.register_buffer("kernel", torch.from_numpy(kernel.copy()).float(), persistent=False)
        self.register_buffer("ends", torch.from_numpy(ends).float(), persistent=False)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Filter x; weights only say where data is missing."""
        flux, window = bridged(x, weight), len(self.kernel)
        middle = torch.nn.functional.conv1d(flux[:, None], self.kernel[None, None])[:, 0]
        first = flux[:, :window] @ self.ends.T
        # What holds for the first pixels holds for the last ones, seen in a mirror.
        last = (flux[:, -window:].flip(1) @ self.ends.T).flip(1)
        return Output(flux=torch.cat([first, middle, last], dim=1))


def build(grid: Grid, **options: object) -> Savgol:
    """A filter on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or the window is longer than the grid.
    """
    chosen = Options.model_validate(options)
    if chosen.window > grid.size:
        raise ValueError(
            f"savgol: window of {chosen.window} pixels on a frame of {grid.size}; "
            "take a shorter one"
        )
    return Savgol(chosen)
