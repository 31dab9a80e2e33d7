"""Toy: a stand-in for a mock, whose truth a test says in closed form, and how it is seen."""

from typing import Any

import numpy as np
import xarray as xr

from storage.grid import Grid
from tests.training.small import observed
from training.frame import Frame

GRID = Grid(kind="linear", start=4000.0, step=2.0, size=400)
FRAME = Frame(
    name="small",
    grid=Grid(kind="linear", start=4000.0, step=2.0, size=300),
    window=(4300.0, 4500.0),
    dust=None,
)


class Toy:
    """Objects of one brightness; whoever derives from it says what they are."""

    level = 2.0
    "Flux that the S/N is of."

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        raise NotImplementedError

    def observe(
        self,
        truth: xr.Dataset,
        grid: Grid,
        seed: int,
        stream: str,
        snr_g: tuple[float, float] | None = None,
    ) -> xr.Dataset:
        return observed(truth, grid, seed, stream, snr_g, level=self.level)


def objects(flux: np.ndarray, z: np.ndarray, **columns: Any) -> xr.Dataset:
    """Noiseless objects; without dust, unless a column `ebv` says so."""
    columns = {"ebv": np.zeros(len(z)), **columns}
    return xr.Dataset(
        {
            "flux": (("spectrum", "wavelength"), flux.astype(np.float32)),
            "z": ("spectrum", z),
            **{name: ("spectrum", values) for name, values in columns.items()},
        }
    )
