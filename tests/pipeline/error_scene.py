"""A galaxy seen many times by three surveys: formal errors of its indices beside their scatter.

Noise is that of the survey's spectrograph: it varies along the spectrum, sky lines included. Four
ways of measuring: as observed, at a redshift; with pixels that have no data, but flux; moved to a
rest-frame axis, with the covariance factor; and moved with the weights that frames use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.index import Measured, find, measure
from storage.grid import Grid, air_to_vacuum
from storage.resample import Rebinned, rebinner
from storage.simulation import noise, templates
from storage.simulation.instrument import load
from storage.velocity import C_KMS

Array = NDArray[np.float64]
Single = NDArray[np.float32]

Z, LEVEL, DISPERSION = 0.07, 40.0, 180.0
"Redshift; flux near 5500 A, house unit; dispersion of the stars, km/s."
WAYS = ("observed", "masked", "moved", "weighted")
ROWS = 1000
"Draws at a time."


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One grid of a survey."""

    instrument: str
    grid: Grid
    rest: Grid
    "What spectra are moved to."
    snr: float
    "Per pixel of the instrument, 4000-5400 A."

    @cached_property
    def truth(self) -> Array:
        """Flux (L,), house unit: an old population with a younger one in it."""
        bank = templates.analytic()
        light = 0.7 * bank.flux[-3] + 0.3 * bank.flux[3 * len(bank.metallicities) + 2]
        pixel = templates.REST.step * np.log(10) * C_KMS
        offset = np.arange(-40, 41) * pixel / DISPERSION
        kernel = np.exp(-0.5 * offset**2)
        smooth = np.convolve(light, kernel / kernel.sum(), mode="same")
        seen = np.interp(self.grid.wavelength / (1 + Z), templates.REST.wavelength, smooth)
        return np.asarray(LEVEL * seen)

    @cached_property
    def sigma(self) -> Array:
        """Noise (L,), house unit."""
        whole = load(self.instrument)
        guide = np.full((1, 2), LEVEL * 0.8)
        k = noise.electrons_by_guide(guide, whole, np.array([self.snr]))
        flux = self.truth.astype(np.float32)[None]
        return np.sqrt(noise.variance(flux, self.grid, whole.on(self.grid), k)[0].astype("f8"))

    def covers(self, name: str) -> bool:
        """Whether an index is wholly on both axes."""
        bands = air_to_vacuum(find(name).bands)
        low, high = bands.min(), bands.max()
        return all(
            grid.edges[0] + 5 < low * stretch and high * stretch < grid.edges[-1] - 5
            for grid, stretch in ((self.grid, 1 + Z), (self.rest, 1.0))
        )

    def draws(self, way: str, random: np.random.Generator) -> tuple[Single, Single]:
        """Flux and inverse variance (N, L) of a batch of draws."""
        shape = (ROWS, self.grid.size)
        flux = self.truth + self.sigma * random.standard_normal(shape, dtype=np.float32)
        flux, ivar = flux.astype(np.float32), np.empty(shape, np.float32)
        ivar[:] = self.sigma**-2.0
        if way == "masked":
            # The same pixels in every draw: others would move the index, too.
            lost = np.random.default_rng(3).random(self.grid.size) < 0.03
            ivar[:, lost], flux[:, lost] = 0, 1e5
        return flux, ivar

    def moved(self, flux: Single, ivar: Single, way: str) -> Rebinned:
        """Draws on the rest-frame axis."""
        stretch = torch.full((len(flux),), 1 + Z, dtype=torch.float64)
        given = torch.from_numpy(flux), torch.from_numpy(ivar), stretch
        move = rebinner(self.grid, self.rest)
        return move(*given, covariance=way == "moved", smooth=way == "weighted")

    def measured(self, way: str, names: Sequence[str], random: np.random.Generator) -> Measured:
        """The indices of a batch of draws."""
        flux, ivar = self.draws(way, random)
        if way in ("observed", "masked"):
            wave, z = self.grid.wavelength, np.full(ROWS, Z)
            return measure(wave, flux, ivar, names, z=z, missing=0.5)
        made = self.moved(flux, ivar, way)
        axis = self.rest.wavelength
        return measure(axis, made.flux, made.ivar, names, covariance=made.covariance)

    def ratio(self, way: str, names: Sequence[str], draws: int, seed: int = 1) -> Array:
        """Formal error over scatter, (index,); known to 1 / sqrt(2 draws)."""
        random = np.random.default_rng(seed)
        batches = [self.measured(way, names, random) for _ in range(draws // ROWS)]
        value = torch.cat([batch.value for batch in batches])
        error = torch.cat([batch.error for batch in batches])
        return np.asarray(error.square().mean(0).sqrt() / value.std(0))


SCENES = {
    "SDSS": (
        Scene(
            instrument="sdss",
            grid=Grid(kind="log", start=3.55, step=1e-4, size=4250),
            rest=Grid(kind="linear", start=3640, step=1.0, size=5300),
            snr=20.0,
        ),
    ),
    "DESI": (
        Scene(
            instrument="desi",
            grid=Grid(kind="linear", start=3600, step=0.8, size=7781),
            rest=Grid(kind="linear", start=3640, step=0.8, size=6700),
            snr=17.0,
        ),
    ),
    "WEAVE-LR": (
        Scene(
            instrument="weave-lr",
            grid=Grid(kind="linear", start=3660, step=0.25, size=9601),
            rest=Grid(kind="linear", start=3430, step=0.5, size=4440),
            snr=10.0,
        ),
        Scene(
            instrument="weave-lr",
            grid=Grid(kind="linear", start=5790, step=0.25, size=15201),
            rest=Grid(kind="linear", start=5420, step=0.5, size=7050),
            snr=10.0,
        ),
    ),
}
"The grids of a survey: an index is measured on the first that holds it."


def places(survey: str, names: Sequence[str]) -> list[tuple[Scene, list[str]]]:
    """The grids of a survey, each with the indices that are measured on it."""
    left, found = list(names), []
    for scene in SCENES[survey]:
        here = [name for name in left if scene.covers(name)]
        left = [name for name in left if name not in here]
        found.append((scene, here))
    return found
