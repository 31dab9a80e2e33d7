"""A population of stars: parameters drawn uniformly and apart from each other, as for training.

Stars that no galaxy holds are among them (Pal & Dobos 2024, table 3): what is learnt is spectra,
not where stars are. Every block of 256 rows is drawn whole, from a generator of its own.
"""

from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
from pydantic import NonNegativeFloat, model_validator
from scipy import sparse

from storage.grid import Float, Grid
from storage.schema import Field as Column
from storage.simulation import stellar_bosz, stellar_phoenix, stellar_table
from storage.simulation.instrument import Instrument
from storage.simulation.stellar_grid import PARAMETERS as AXES
from storage.simulation.stellar_grid import Nodes, StellarGrid
from storage.simulation.stellar_light import Z_MOST, Optics, optics
from storage.simulation.stellar_models import Physics, Range, StellarModels
from storage.simulation.stellar_toy import Toy

BLOCK = 256
"Rows that are drawn together: row i never depends on how many are asked for."
DRAWS = 6
"Uniform numbers of a star: three for its place in the grid; z, magnitude and E(B-V)."

PARAMETERS: dict[str, Column] = {
    name: Column(dtype=dtype, units=units, description=description)
    for name, dtype, units, description in (
        ("z", "f8", "1", "redshift, heliocentric"),
        ("teff", "f4", "K", "effective temperature"),
        ("logg", "f4", "dex", "log10 of the surface gravity in cm s-2"),
        ("feh", "f4", "dex", "[Fe/H]"),
        ("alpha_m", "f4", "dex", "[alpha/M]"),
        ("interp_axis", "u1", "1", "the parameter that is interpolated; the rest are at nodes"),
        ("magnitude", "f4", "mag", "AB, 7100-8400 A observed, behind the dust"),
        ("ebv", "f4", "mag", "Galactic E(B-V)"),
    )
}


class Population(StellarModels):
    """What is out there; ranges are those of the paper, but for the magnitude."""

    ranged: ClassVar[tuple[str, ...]] = (*AXES, "z", "magnitude", "galactic")

    z: Range = (-0.003, 0.003)
    "Range of redshift, within 0.01 either way."
    magnitude: Range = (15.5, 19.0)
    "Range of AB magnitude over 7100-8400 A; the paper's 19-22.5 are those of an 8 m telescope."
    galactic: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.1)
    "Range of Galactic E(B-V); mag (CCM89, R_V 3.1)."

    @model_validator(mode="after")
    def _there_are_such_stars(self) -> Self:
        if max(-self.z[0], self.z[1]) > Z_MOST:
            raise ValueError(f"z = {self.z}: stars of this mock are within {Z_MOST} either way")
        return self

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Of the axes of the grid."""
        return tuple(getattr(self, name) for name in AXES)

    def nodes(self, instrument: Instrument, grid: Grid) -> tuple[Nodes, Optics]:
        """Blurred models, and what they are seen through."""
        return _nodes(self.physics, self.models, self.ranges, instrument, grid)

    def draw(self, u: Float, nodes: Nodes) -> tuple[dict[str, Float], sparse.csr_array]:
        """`PARAMETERS`, (N,) each, and weights of nodes, from numbers (N, 6) between 0 and 1."""
        places = nodes.places(u[:, :3])
        drawn = dict(zip(AXES, places.values.T, strict=True))
        drawn["interp_axis"] = places.axis.astype(np.float64)
        for name, column in (("z", 3), ("magnitude", 4), ("galactic", 5)):
            low, high = getattr(self, name)
            drawn["ebv" if name == "galactic" else name] = low + (high - low) * u[:, column]
        return drawn, places.weights


@lru_cache(maxsize=2)
def _nodes(
    physics: Physics, models: str, ranges: tuple[Range, ...], instrument: Instrument, grid: Grid
) -> tuple[Nodes, Optics]:
    seen = optics(instrument, grid)
    return Nodes(library(physics, models), ranges, seen.fine, seen.keep), seen


@lru_cache(maxsize=2)
def library(physics: Physics, models: str) -> StellarGrid:
    """The grid of model spectra.

    Raises
    ------
    ValueError
        When there is no such folder or file, or no model in it.
    """
    if physics == "bosz":
        return stellar_bosz.bosz(models)
    if physics == "phoenix":
        return stellar_phoenix.phoenix(models)
    if physics == "table":
        return stellar_table.table(models)
    return Toy()
