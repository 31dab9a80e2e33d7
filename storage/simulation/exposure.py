"""One exposure of noiseless spectra: noise, lost pixels, and what goes wrong in every survey."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from storage.grid import Float, Grid
from storage.simulation import noise
from storage.simulation.instrument import Instrument, load, within
from storage.simulation.noise import Kind

Single = NDArray[np.float32]


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
    instrument: str | Instrument = "sdss"
    "A preset by name, a TOML file by path, or the table itself."
    noise: Kind = "gaussian"
    "Shape of the noise; its variance is the same."
    snr_scale: PositiveFloat = 1.0
    "Factor on every S/N: noise is divided by it, and ivar knows."
    sky_residuals: str = ""
    "A folder of real sky fibres on the same grid; their residuals are the noise. Empty: drawn."
    sky_reader: str = "sdss"
    "The reader of that folder."

    @property
    def spectrograph(self) -> Instrument:
        """The instrument itself."""
        return load(self.instrument)

    def covered(self, grid: Grid) -> NDArray[np.bool_]:
        """Pixels (L,) that the survey gives and an arm sees."""
        inside = within(grid.wavelength, self.coverage)
        return np.asarray(inside & self.spectrograph.on(grid).covers(grid.wavelength))

    def good(self, grid: Grid) -> NDArray[np.bool_]:
        """Pixels (L,) that have data in most spectra."""
        bright = self.spectrograph.on(grid).sky_over(grid) >= self.spectrograph.masked_sky
        return np.asarray(self.covered(grid) & ~bright)

    def level(self, flux: Single, grid: Grid, guide: Float) -> Float:
        """Noiseless mean flux in g, (N,): of the pixels, or of the guide for several arms."""
        if len(self.spectrograph.arms) > 1:
            return np.asarray(guide.mean(axis=1))
        band = noise.pixels_in_g(grid, self.good(grid))
        return np.asarray(flux[:, band].mean(axis=1, dtype=np.float64))

    def wanted_snr(
        self, rng: np.random.Generator, level: Float, snr_g: tuple[float, float] | None
    ) -> Float:
        """S/N in g to aim at, (N,); uniform in a range when one is given."""
        n, u = rng.standard_normal(level.size), rng.random(level.size)
        if snr_g is not None:
            return np.asarray(snr_g[0] + u * (snr_g[1] - snr_g[0]))
        # Median and scatter (dex) of the flux in g of the default population.
        deviation = (np.log10(np.maximum(level, 1e-3)) - FLUX_G[0]) / FLUX_G[1]
        rest = np.sqrt(1 - self.snr_by_flux**2)
        deviation = self.snr_by_flux * np.clip(deviation, -3, 3) + rest * n
        snr = self.snr_median * np.exp(self.snr_scatter * deviation)
        return np.asarray(np.clip(snr, *self.snr_clip))

    def electrons(self, flux: Single, grid: Grid, guide: Float, snr: Float) -> Float:
        """Electrons per unit of flux, (N,): one number for all arms of an exposure."""
        if len(self.spectrograph.arms) > 1:
            return noise.electrons_by_guide(guide, self.spectrograph, snr)
        return noise.electrons(flux, grid, self.spectrograph, self.good(grid), snr)

    def expose(self, rng: np.random.Generator, flux: Single, grid: Grid, k: Float) -> Pixels:
        """Observe noiseless flux (N, L) with k electrons per unit (N,)."""
        mask = self._lost(rng, flux.shape, grid)
        variance = noise.variance(flux, grid, self.spectrograph.on(grid), k)
        variance /= np.float32(self.snr_scale**2)
        ivar = np.where(mask == 0, 1 / variance, np.float32(0))
        seen = flux * (1 + self._miscalibration(rng, grid, flux.shape[0]))
        seen += self._noise(rng, flux.shape, grid) * np.sqrt(variance)
        self._spoil_blue(rng, seen, grid)
        seen[ivar == 0] = 0
        return Pixels(seen, ivar, mask)

    def _noise(self, rng: np.random.Generator, shape: tuple[int, ...], grid: Grid) -> Single:
        drawn = noise.draw(self.noise, rng, shape)
        if not self.sky_residuals:
            return drawn
        real = noise.sky_residuals(self.sky_residuals, self.sky_reader, grid)
        taken = noise.of_sky(rng, (shape[0], shape[1]), real)
        return np.where(np.isfinite(taken), taken, drawn)

    def _lost(
        self, rng: np.random.Generator, shape: tuple[int, ...], grid: Grid
    ) -> NDArray[np.uint32]:
        count = (shape[0], shape[1])
        rays = noise.runs(rng, count, self.cosmics, (1, 4))
        gaps = noise.runs(rng, count, self.gaps, (5, 35))
        lost, bright, nodata = (np.uint32(1 << bit) for bit in self.spectrograph.bits)
        covered = self.covered(grid)
        common = np.where(covered, np.uint32(0), nodata)
        common |= np.where(covered & ~self.good(grid), bright, np.uint32(0))
        return np.asarray(np.where(covered & (rays | gaps), lost, np.uint32(0)) | common)

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
