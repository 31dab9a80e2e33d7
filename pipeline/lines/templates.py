"""What starlight is built of: a few stellar populations, broadened to a ladder of dispersions.

By default the analytic populations of the mocks, a toy that needs no data; for real galaxies a
library of files. Axes: T templates, K terms of a polynomial, V dispersions, F pixels of `FINE`,
R pixels of `FIT`.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Float, Grid
from storage.simulation import template_files, templates
from storage.simulation.template_files import Medium
from storage.simulation.templates import REST, Templates
from storage.velocity import C_KMS

_FIRST, _PIXELS = 2524, 6084
FINE = Grid(
    kind="log",
    start=REST.start + _FIRST * REST.step,
    step=REST.step,
    size=_PIXELS,
)
"Rest-frame axis that starlight is drawn on: 3550-7152 A, 34.5 km/s a pixel."
_COARSE = 4
FIT = Grid(
    kind="log",
    start=REST.start + (_FIRST + (_COARSE - 1) / 2) * REST.step,
    step=_COARSE * REST.step,
    size=_PIXELS // _COARSE,
)
"Rest-frame axis that it is fitted on: four of those a pixel."
DEGREE = 8
"Of the multiplicative polynomial: dust, and what is wrong with the flux calibration."
WIDTHS = tuple(float(w) for w in np.geomspace(45.0, 450.0, 20))
"Dispersions of the ladder, km/s: of stars and instrument together."
AGES, METALLICITIES = 9, 3
"How many ages and metallicities of a library are used; more cost time and add little."
_YOUNG = 0.01
"Gyr."
ANALYTIC = "analytic toy"
"The label of the populations that need no data."


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """Populations that a spectrum is a sum of."""

    flux: NDArray[np.float32]
    "(T, pixels of the templates' axis `REST`), about unit mean flux near 5500 A."
    label: str
    "What products are labelled with: where the templates come from."
    sigma: float = 0.0
    "Resolution of the library itself, Gaussian sigma, A; 0: as sharp as wanted."


@lru_cache(maxsize=1)
def analytic() -> Basis:
    """The analytic toy of the mocks."""
    return _of(templates.analytic(), ANALYTIC, 0.0)


@lru_cache(maxsize=4)
def from_files(pattern: str, medium: Medium, fwhm: float = 0.0) -> Basis:
    """Populations of a library, from the files that a pattern matches.

    A library that begins after the first stars have gone gets the toy's spectrum of them: without
    it starbursts are given Balmer absorption that they do not have.

    Parameters
    ----------
    pattern : str
        Such as ``ssp/*.fits``; the kinds of file are those of `storage.simulation.template_files`.
    medium : {"air", "vacuum"}
        Of the files' wavelengths.
    fwhm : float
        Resolution of the library, A; what the stars' dispersion is corrected by.

    Raises
    ------
    ValueError
        When no file matches, or the files are not a library.
    """
    library = template_files.library(pattern, medium)
    basis = _of(library, pattern, fwhm / 2.3548200450309493)
    if library.ages[0] <= _YOUNG:
        return basis
    toy = templates.analytic()
    hot = toy.flux[: len(toy.metallicities)].mean(axis=0, keepdims=True)
    return replace(
        basis, flux=np.concatenate([hot, basis.flux]), label=f"{pattern} and hot stars of the toy"
    )


def _of(library: Templates, label: str, sigma: float) -> Basis:
    """At most `AGES` x `METALLICITIES` of a library, evenly picked, the ends among them."""
    ages = _picked(len(library.ages), AGES)
    metals = _picked(len(library.metallicities), METALLICITIES)
    rows = (ages[:, None] * len(library.metallicities) + metals).ravel()
    return Basis(flux=library.flux[rows], label=label, sigma=sigma)


def _picked(there: int, wanted: int) -> NDArray[np.intp]:
    return np.unique(np.rint(np.linspace(0, there - 1, wanted)).astype(np.intp))


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """A basis as it is used: broadened, on both axes, with its products."""

    fit: Tensor
    "(V, T, R) float32 on `FIT`."
    products: Tensor
    "(V, R, T (T + 1) / 2) float32: of each two templates, the lower triangle row by row."
    slopes: Tensor
    "(V, R, T K) float32: of each template with each term."
    fine: Tensor
    "(V, T, F) float32 on `FINE`."
    widths: Tensor
    "(V,) float64 km/s."
    sigma_kms: float
    "Resolution of the library at the middle of the range, km/s."

    @property
    def size(self) -> int:
        """Number of templates."""
        return self.fit.shape[1]


def legendre(axis: Grid) -> Float:
    """Legendre polynomials 1..K in log wavelength over the fitted range, (K, pixels)."""
    place = np.interp(np.log10(axis.wavelength), np.log10(FINE.edges[[0, -1]]), (-1.0, 1.0))
    terms = range(1, DEGREE + 1)
    return np.stack([np.polynomial.Legendre.basis(k)(place) for k in terms])


@lru_cache(maxsize=4)
def bank(basis: Basis, device: torch.device) -> Bank:
    """The bank of a basis, made once a device."""
    fine = np.stack([broadened(basis.flux, width) for width in WIDTHS])
    coarse = fine.reshape(*fine.shape[:2], FIT.size, _COARSE).mean(axis=-1)
    row, column = np.tril_indices(basis.flux.shape[0])
    products = coarse[:, row] * coarse[:, column]
    slopes = (coarse[:, :, None] * legendre(FIT)).reshape(len(fine), -1, FIT.size)
    middle = float(np.sqrt(FIT.wavelength[0] * FIT.wavelength[-1]))

    def there(array: Float) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)

    return Bank(
        fit=there(coarse),
        products=there(np.swapaxes(products, 1, 2)),
        slopes=there(np.swapaxes(slopes, 1, 2)),
        fine=there(fine),
        widths=torch.tensor(WIDTHS, dtype=torch.float64, device=device),
        sigma_kms=basis.sigma / middle * C_KMS,
    )


def broadened(flux: NDArray[np.float32], width: float) -> Float:
    """Templates with a Gaussian of that width, on `FINE`; what wraps around stays outside it."""
    omega = 2 * np.pi * np.fft.rfftfreq(flux.shape[1])
    sigma = width / (REST.step * np.log(10) * C_KMS)
    seen = np.fft.irfft(np.fft.rfft(flux) * np.exp(-0.5 * (sigma * omega) ** 2), n=flux.shape[1])
    return np.asarray(seen[:, _FIRST : _FIRST + _PIXELS])
