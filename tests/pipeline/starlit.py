"""Spectra with emission lines whose truth is known: stars of the toy, and Gaussians."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from pipeline.lines.fit import LineFlag, Lines, measure_lines
from pipeline.lines.line_list import LINES
from storage.grid import Grid
from storage.simulation.nebula import add_lines
from storage.simulation.templates import REST, analytic
from storage.velocity import C_KMS

Floats = NDArray[np.float64]
SDSS = Grid(kind="log", start=3.58, step=1e-4, size=3850)
LSF = 1.1
"Pixels."


@dataclass(frozen=True, kw_only=True)
class Starlit:
    """N spectra and what is in them."""

    grid: Grid
    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    z: Floats
    stars: Floats
    lines: Floats
    "(N, line) fluxes."
    velocity: float
    sigma: float
    ew: Floats

    def measured(self, **options: object) -> Lines:
        given = {"lsf": np.full(self.grid.size, LSF, np.float32), **options}
        flux, ivar = given.pop("flux", self.flux), given.pop("ivar", self.ivar)
        return measure_lines(self.grid.wavelength, flux, ivar, self.z, **given)


def starlit(
    n: int,
    flux: float,
    snr: float,
    *,
    grid: Grid = SDSS,
    seed: int = 0,
    z: tuple[float, float] = (0.03, 0.17),
    ages: slice = slice(None),
    velocity: float = 60.0,
    sigma: float = 120.0,
) -> Starlit:
    """Spectra of unit mean flux with every line, free ones 0.5 to 1.5 times `flux`."""
    rng = np.random.default_rng(seed)
    redshift = rng.uniform(*z, n)
    base = analytic().flux.reshape(9, 6, -1)[ages].reshape(-1, REST.size)
    shares = rng.random((n, len(base))) ** 6
    stars = np.empty((n, grid.size))
    for row, spectrum in enumerate(shares @ base):
        # 150 km/s of stars and instrument: 4.3 fine pixels.
        seen = gaussian_filter1d(spectrum, 150 / 34.5)
        stars[row] = np.interp(grid.wavelength / (1 + redshift[row]), REST.wavelength, seen)
    stars /= stars.mean(axis=1, keepdims=True)
    free = {line.name: flux * rng.uniform(0.5, 1.5, n) for line in LINES if line.tie is None}
    truth = np.stack([_flux(line.name, line.tie, free) for line in LINES], axis=1)
    gas, ew = np.zeros((n, grid.size), np.float32), np.empty((n, len(LINES)))
    pixel = np.log(10) * 1e-4 * C_KMS if grid.kind == "log" else None
    for column, line in enumerate(LINES):
        centre = line.wavelength * (1 + redshift) * (1 + velocity / C_KMS)
        lsf = LSF * (pixel if pixel is not None else grid.step / centre * C_KMS)
        profile = np.zeros_like(gas)
        add_lines(profile, grid, centre, centre * np.hypot(sigma, lsf) / C_KMS, np.ones(n))
        gas += truth[:, column, None].astype(np.float32) * profile
        under = (stars * profile * grid.widths).sum(axis=1)
        ew[:, column] = truth[:, column] / np.maximum(under, 1e-9) / (1 + redshift)
    noise = rng.standard_normal(stars.shape) / snr
    return Starlit(
        grid=grid, flux=(stars + gas + noise).astype(np.float32),
        ivar=np.full(stars.shape, snr**2, np.float32), z=redshift, stars=stars, lines=truth,
        velocity=velocity, sigma=sigma, ew=ew,
    )  # fmt: skip


def _flux(name: str, tie: tuple[str, float] | None, free: dict[str, Floats]) -> Floats:
    return free[name] if tie is None else free[tie[0]] * tie[1]


def has(found: Lines, flag: LineFlag) -> Tensor:
    """Which lines have a flag, (N, line) bool."""
    return (found.flag.to(torch.int32) & int(flag)) > 0
