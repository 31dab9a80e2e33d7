"""Toy stars around the Ca II triplet, blurred by SciPy: what `pipeline.stars` is tested on."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from pipeline.stars.templates import TemplateSet
from storage.grid import Float, Grid
from storage.simulation.stellar_toy import spectra

C_KMS = 299792.458
SIGMA = 65.0
"Of a line, km/s."
GRID = Grid(kind="log", start=np.log10(8360.0), step=1e-4, size=250)
CHOSEN = TemplateSet(
    line_spread=SIGMA,
    wavelength=(8380.0, 8830.0),
    teff=(4000.0, 5000.0),
    logg=(1.0, 4.0),
    feh=(-1.5, 0.0),
    alpha_m=(0.0, 0.0),
    nodes=(5, 4, 4, 1),
)
SUN = (4430.0, 2.3, -0.6)
"Teff, log g, [Fe/H] between nodes."
_FINE = Grid(kind="log", start=np.log10(8200.0), step=8e-6, size=5250)


def seen(
    kms: ArrayLike, parameters: tuple[float, float, float] = SUN, wavelength: Float | None = None
) -> Float:
    """Noiseless flux (N, L) of one star at velocities c z, a level of about 1."""
    one = [np.array([value]) for value in (*parameters, 0.0)]
    flux = spectra(*one, _FINE)[0].astype(np.float64)
    blurred = gaussian_filter1d(flux, SIGMA / C_KMS / np.log(10) / _FINE.step, truncate=6.0)
    axis = GRID.wavelength if wavelength is None else wavelength
    rest = axis / (1 + np.atleast_1d(kms)[:, None] / C_KMS)
    return np.asarray(np.interp(rest, _FINE.wavelength, blurred / blurred.mean()))


def noisy(flux: Float, snr: float, seed: int = 1) -> tuple[Float, Float]:
    """Flux with noise, and ivar, of an S/N of the mean flux."""
    sigma = flux.mean() / snr
    drawn = np.random.default_rng(seed).standard_normal(flux.shape)
    return flux + sigma * drawn, np.full(flux.shape, sigma**-2)


def write_table(
    path: Path,
    missing: tuple[float, float, float] | None = None,
    medium: str | None = "vacuum",
    size: int = 6500,
) -> None:
    """The toy's models as a table of the user's, perhaps without one of them, or not so far."""
    rows = [
        (teff, logg, feh)
        for teff in (4000.0, 4500.0, 5000.0)
        for logg in (1.0, 2.0, 3.0, 4.0)
        for feh in (-1.5, -1.0, -0.5, 0.0)
        if (teff, logg, feh) != missing
    ]
    axis = Grid(kind="log", start=np.log10(8150.0), step=8e-6, size=size)
    teff, logg, feh = np.array(rows).T
    flux = spectra(teff, logg, feh, np.zeros(len(rows)), axis)
    wave = np.repeat(axis.wavelength[None], len(rows), axis=0)
    columns: list[Any] = [
        fits.Column(name, "D", array=values)
        for name, values in (("teff", teff), ("logg", logg), ("feh", feh), ("alpha_m", 0 * feh))
    ]
    form = f"{axis.size}E", f"{axis.size}D"
    columns += [
        fits.Column("flux", form[0], unit="erg s-1 cm-2 Angstrom-1", array=flux),
        fits.Column("wavelength", form[1], unit="Angstrom", array=wave),
    ]
    hdu = fits.BinTableHDU.from_columns(columns)
    if medium is not None:
        hdu.header["MEDIUM"] = medium
    hdu.writeto(path, overwrite=True)
