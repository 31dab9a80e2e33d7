"""Axis: the observed wavelengths as they are written, and where lines of gas lie on them."""

from typing import NamedTuple

import torch
from torch import Tensor

from storage.grid import Float, Grid, air_to_vacuum, vacuum_to_air


class Axis(NamedTuple):
    """The observed axis, as it is written."""

    grid: Grid
    "Even in A or log A, of the medium."
    air: bool

    def seen(self, vacuum: Tensor) -> Tensor:
        """Where on the axis vacuum wavelengths lie, A."""
        if not self.air:
            return vacuum
        return torch.from_numpy(vacuum_to_air(vacuum.cpu().numpy())).to(vacuum.device)

    def pixel(self, wavelength: Tensor) -> Tensor:
        """Fractional pixel of a wavelength of the axis."""
        value = wavelength.log10() if self.grid.kind == "log" else wavelength
        return (value - self.grid.start) / self.grid.step

    @property
    def vacuum(self) -> Float:
        """Pixel centres, (L,), vacuum A."""
        return air_to_vacuum(self.grid.wavelength) if self.air else self.grid.wavelength
