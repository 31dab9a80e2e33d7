"""One exposure of noiseless spectra: noise, lost pixels, and what goes wrong in every survey."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from storage import instrument
from storage.grid import Float, Grid

Single = NDArray[np.float32]

FULLREJECT, BRIGHTSKY, NODATA = (np.uint32(1 << bit) for bit in (18, 23, 24))
"Bits of SDSS's and_mask."


class Pixels(NamedTuple):
    """What the survey says of N spectra."""

    flux: Single
    "(N, L), 0 where there is no data."
    ivar: Single
    "(N, L), 1 / the true variance; 0 where there is no data."
    mask: NDArray[np.uint32]
    "(N, L), why there is no data."


@dataclass(frozen=True, kw_only=True)
class Entries:
    """What the survey's catalogue says of N objects."""

    z: Float
    "Measured redshift; wrong, without a warning, in a few."
    z_err: Float
    "Its error, as the survey states it."
    vdisp: Float
    "Measured velocity dispersion, km/s."


class Exposure(BaseModel):
    """How the survey looks at it; the defaults are those of mock-v1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: tuple[PositiveFloat, PositiveFloat] = (3800.0, 9200.0)
    "Observed wavelengths with data; A."
    snr_median: PositiveFloat = 13.0
    "Median S/N per pixel in g."
    snr_scatter: NonNegativeFloat = 0.42
    "Scatter of its natural logarithm."
    snr_clip: tuple[PositiveFloat, PositiveFloat] = (4.5, 45.0)
    "Its range."
    snr_by_flux: float = Field(default=0.7, ge=-1.0, le=1.0)
    "Correlation of log S/N with log flux: bright objects have better spectra."
    cosmics: float = Field(default=0.002, ge=0.0, lt=0.5)
    "Share of pixels lost to cosmic rays, 1-4 in a row."
    gaps: float = Field(default=0.005, ge=0.0, lt=0.5)
    "Share of pixels lost to gaps, 5-35 in a row."
    calibration: NonNegativeFloat = 0.005
    "Rms of a smooth error of flux calibration, a fraction; not in ivar. Surveys have 0.02-0.05."
    bad_blue: float = Field(default=0.003, ge=0.0, le=1.0)
    "Share of spectra with a spurious plateau below 3950 A, not masked."
    wrong_z: float = Field(default=0.001, ge=0.0, le=1.0)
    "Share of wrong redshifts; zwarn is 0 all the same."

    def good(self, grid: Grid) -> NDArray[np.bool_]:
        """Pixels (L,) that have data in most spectra."""
        covered = instrument.within(grid.wavelength, self.coverage)
        return np.asarray(covered & (instrument.sky(grid) < instrument.BRIGHT))

    def wanted_snr(
        self, rng: np.random.Generator, flux: Single, grid: Grid, snr_g: tuple[float, float] | None
    ) -> Float:
        """S/N in g to aim at, (N,); uniform in a range when one is given."""
        n, u = rng.standard_normal(flux.shape[0]), rng.random(flux.shape[0])
        if snr_g is not None:
            return np.asarray(snr_g[0] + u * (snr_g[1] - snr_g[0]))
        band = instrument.pixels_in_g(grid, self.good(grid))
        level = np.maximum(flux[:, band].mean(axis=1, dtype=np.float64), 1e-3)
        # Median and scatter (dex) of the flux in g of the default population.
        brightness = np.clip((np.log10(level) - FLUX_G[0]) / FLUX_G[1], -3, 3)
        rest = np.sqrt(1 - self.snr_by_flux**2)
        deviation = self.snr_by_flux * brightness + rest * n
        snr = self.snr_median * np.exp(self.snr_scatter * deviation)
        return np.asarray(np.clip(snr, *self.snr_clip))

    def expose(self, rng: np.random.Generator, flux: Single, grid: Grid, snr: Float) -> Pixels:
        """Observe noiseless flux (N, L) at S/N (N,) in g."""
        mask = self._lost(rng, flux.shape, grid)
        variance = instrument.variance(flux, grid, self.good(grid), snr)
        ivar = np.where(mask == 0, 1 / variance, np.float32(0))
        seen = flux * (1 + self._miscalibration(rng, grid, flux.shape[0]))
        seen += rng.standard_normal(flux.shape, dtype=np.float32) * np.sqrt(variance)
        self._spoil_blue(rng, seen, grid)
        seen[ivar == 0] = 0
        return Pixels(seen, ivar, mask)

    def _lost(
        self, rng: np.random.Generator, shape: tuple[int, ...], grid: Grid
    ) -> NDArray[np.uint32]:
        count = (shape[0], shape[1])
        rays = instrument.runs(rng, count, self.cosmics, (1, 4))
        gaps = instrument.runs(rng, count, self.gaps, (5, 35))
        covered = instrument.within(grid.wavelength, self.coverage)
        bright = covered & (instrument.sky(grid) >= instrument.BRIGHT)
        common = np.where(covered, np.uint32(0), NODATA) | np.where(bright, BRIGHTSKY, 0)
        lost = np.where(covered & (rays | gaps), FULLREJECT, np.uint32(0))
        return np.asarray(lost | common, dtype=np.uint32)

    def _miscalibration(self, rng: np.random.Generator, grid: Grid, n: int) -> Single:
        place = np.log10(grid.wavelength / 3400.0) / np.log10(10500.0 / 3400.0)
        waves = np.stack([np.cos(np.pi * k * place) for k in range(1, 6)])
        size = rng.standard_normal((n, 5)) * self.calibration * np.sqrt(2 / 5)
        return np.asarray(size.astype(np.float32) @ waves.astype(np.float32))

    def _spoil_blue(self, rng: np.random.Generator, flux: Single, grid: Grid) -> None:
        rows = np.flatnonzero(rng.random(flux.shape[0]) < self.bad_blue)
        blue = np.flatnonzero(grid.wavelength < 3950.0)
        if rows.size and blue.size:
            flux[np.ix_(rows, blue)] += flux[rows].mean(axis=1, keepdims=True)

    def catalogue(
        self, rng: np.random.Generator, z: Float, sigma_v: Float, snr: Float, most: float
    ) -> Entries:
        """Catalogue entries (N,); wrong redshifts lie below `most`."""
        n, u = rng.standard_normal((2, z.size)), rng.random((2, z.size))
        z_err = np.clip(1.5e-5 * (13.0 / snr) ** 0.7, 5e-6, 1e-4)
        measured = z + z_err * n[0]
        vdisp = sigma_v + (4.0 + 120.0 / snr) * n[1]
        return Entries(
            z=np.where(u[0] < self.wrong_z, 0.005 + u[1] * (most - 0.005), measured),
            z_err=z_err,
            vdisp=np.maximum(vdisp, 0.0),
        )


FLUX_G = (0.90, 0.41)
"Median and scatter of log10 of the mean flux in g of mock-v1."
