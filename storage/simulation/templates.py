"""Analytic stellar populations: spectra by age and metallicity that need no data.

A toy with the right signs and orders: a turn-off and a giant black body, absorbed by named and by
seeded weak lines, with a 4000 A step solved so that Dn4000 follows its known course with age.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float, Grid, air_to_vacuum

AGES: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 7.0, 14.0)
"Gyr."
METALLICITIES: tuple[float, ...] = (-1.35, -0.8, -0.4, -0.1, 0.15, 0.4)
"[Z/H], dex."
REST = Grid(kind="log", start=3.424, step=5e-5, size=12288)
"Where templates live: 34.5 km/s a pixel, 2655-10924 A; a length that transforms fast."

# By age: effective temperature at the turn-off (K), share of giants in the light, equivalent width
# of Hdelta (A), strength of metals (1 when old), Dn4000 at solar metallicity, log M/L_r.
_TURNOFF = (30e3, 24e3, 17e3, 12.5e3, 9.6e3, 7.6e3, 6.5e3, 5.9e3, 5.5e3)
_GIANTS = (0.05, 0.18, 0.12, 0.12, 0.18, 0.30, 0.46, 0.58, 0.66)
_HDELTA = (2.2, 3.0, 4.6, 7.0, 9.0, 7.2, 3.2, 1.5, 0.85)
_METALS = (0.03, 0.10, 0.12, 0.16, 0.24, 0.42, 0.74, 0.92, 1.08)
_DN4000 = (0.97, 1.00, 1.03, 1.08, 1.18, 1.40, 1.67, 1.87, 2.02)
_LOG_ML = (-1.90, -1.60, -1.30, -0.90, -0.50, -0.10, 0.25, 0.50, 0.70)

# Balmer series, vacuum A, and its equivalent widths in units of Hdelta's.
_BALMER = (
    (6564.61, 0.62), (4862.68, 1.0), (4341.68, 0.96), (4102.89, 1.0), (3971.20, 0.98),
    (3890.15, 0.92), (3836.47, 0.85), (3798.98, 0.75), (3771.70, 0.62),
)  # fmt: skip

# Metal features: air A, equivalent width (A) in an old solar population, Gaussian sigma (A),
# element, growth with metallicity (dex per dex), share of the strength that young stars keep.
_NAMED = (
    (3933.66, 8.5, 7.0, "ca", 0.15, 0.10), (3968.47, 7.2, 6.5, "ca", 0.15, 0.10),
    (3581.2, 5.0, 9.0, "fe", 0.5, 0.0), (3735.0, 6.0, 10.0, "fe", 0.5, 0.0),
    (3829.4, 4.2, 8.0, "alpha", 0.4, 0.0), (3860.0, 5.0, 14.0, "cn", 0.7, 0.0),
    (4160.0, 3.6, 20.0, "cn", 0.8, 0.0), (4226.73, 1.30, 2.6, "ca", 0.5, 0.0),
    (4302.0, 7.0, 8.5, "ch", 0.3, 0.0), (4386.0, 8.6, 9.5, "fe", 0.45, 0.0),
    (4460.0, 2.4, 4.5, "ca", 0.5, 0.0), (4531.0, 4.3, 9.0, "fe", 0.4, 0.0),
    (4668.0, 6.5, 14.0, "c2", 0.8, 0.0), (4860.0, 0.9, 5.0, "fe", 0.3, 0.1),
    (5015.0, 8.5, 14.0, "fe", 0.35, 0.0),
    (5167.32, 0.90, 2.3, "alpha", 0.35, 0.0), (5172.68, 1.22, 2.4, "alpha", 0.35, 0.0),
    (5183.60, 1.41, 2.5, "alpha", 0.35, 0.0), (5110.0, 7.0, 38.0, "alpha", 0.5, 0.0),
    (5268.0, 3.4, 6.5, "fe", 0.38, 0.0), (5332.0, 2.8, 7.0, "fe", 0.38, 0.0),
    (5406.0, 2.0, 5.0, "fe", 0.4, 0.0), (5709.0, 0.55, 5.0, "fe", 0.4, 0.0),
    (5782.0, 0.65, 5.0, "fe", 0.5, 0.0), (5889.95, 1.7, 2.6, "na", 0.6, 0.05),
    (5895.92, 1.4, 2.5, "na", 0.6, 0.05), (5965.0, 3.0, 18.0, "tio", 0.5, 0.0),
    (6190.0, 9.5, 34.0, "tio", 0.5, 0.0),
    (6495.0, 1.0, 5.0, "fe", 0.4, 0.0), (7100.0, 12.0, 45.0, "tio", 0.5, 0.0),
    (7650.0, 7.0, 50.0, "tio", 0.5, 0.0), (8187.0, 0.9, 5.0, "na", 0.8, 0.0),
    (8498.02, 1.5, 3.0, "ca", 0.3, 0.15), (8542.09, 3.7, 4.0, "ca", 0.3, 0.15),
    (8662.14, 3.0, 3.6, "ca", 0.3, 0.15),
)  # fmt: skip
_WEAK = 220
_WEAK_SEED = 4000


# Two of them are the same only if they are one: arrays have no hash.
@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """Base spectra on `REST`, unit mean flux over 5450-5550 A; T runs over metallicity fastest.

    What is drawn between the nodes is interpolated, what is drawn beyond them is the nearest.
    """

    ages: tuple[float, ...]
    "Gyr, ascending."
    metallicities: tuple[float, ...]
    "[Z/H], dex, ascending; T = ages x metallicities."

    flux: NDArray[np.float32]
    "(T, L)."
    alpha: NDArray[np.float32]
    "(T, L) change of flux for one dex of [alpha/Fe] at constant [Z/H]."
    iron: NDArray[np.float32]
    "(T, L) change of flux for one dex of [Fe/H] alone."
    mass_to_light: NDArray[np.float64]
    "(T,), solar units in r."

    def weights(self, age: Float, metal: Float) -> Float:
        """Shares of the templates, (N, T), by linear interpolation in log age and metallicity."""
        by_age = _tents(np.log10(age), np.log10(self.ages))
        by_metal = _tents(metal, np.asarray(self.metallicities))
        return np.asarray(np.einsum("na,nm->nam", by_age, by_metal).reshape(age.size, -1))


@lru_cache(maxsize=1)
def analytic() -> Templates:
    """The analytic templates: 54 of them, from nothing but this file."""
    wavelength = REST.wavelength
    age, metal = (axis.ravel() for axis in np.meshgrid(AGES, METALLICITIES, indexing="ij"))
    depth, alpha, iron = _metal_depth(wavelength, age, metal)
    flux = _continuum(wavelength, age, metal) * np.exp(-depth - _balmer_depth(wavelength, age))
    flux = _with_step(wavelength, flux, _by_age(age, _DN4000) + 0.45 * metal * _oldness(age))
    flux /= flux[:, (wavelength > 5450) & (wavelength < 5550)].mean(axis=1, keepdims=True)
    return Templates(
        ages=AGES,
        metallicities=METALLICITIES,
        flux=flux.astype(np.float32),
        # Both leave the continuum alone to first order: magnesium up, iron down.
        alpha=(flux * np.log(10) * (0.45 * iron - 0.75 * alpha)).astype(np.float32),
        iron=(-flux * np.log(10) * 0.6 * iron).astype(np.float32),
        mass_to_light=10.0 ** (_by_age(age, _LOG_ML) + 0.15 * metal),
    )


def _tents(value: Float, nodes: Float) -> Float:
    """Shares of the nodes, (N, nodes), at values."""
    position = np.interp(value, nodes, np.arange(nodes.size))
    return np.asarray(np.clip(1.0 - np.abs(position[:, None] - np.arange(nodes.size)), 0.0, None))


def _by_age(age: Float, values: tuple[float, ...]) -> Float:
    return np.interp(np.log10(age), np.log10(AGES), values)


def _oldness(age: Float) -> Float:
    return np.asarray(np.clip(np.log10(age / 0.3) / np.log10(14 / 0.3), 0.0, 1.0))


def _continuum(wavelength: Float, age: Float, metal: Float) -> Float:
    hot = _planck(wavelength, _by_age(age, _TURNOFF) * 10 ** (-0.03 * metal))
    cool = _planck(wavelength, 4250.0 - 350.0 * metal)
    share = _by_age(age, _GIANTS)[:, None]
    # The Balmer jump of hot stars; blanketing in the ultraviolet of old ones.
    jump = 0.055 * _by_age(age, _HDELTA)[:, None] * _below(wavelength, 3690.0, 12.0)
    blanket = 0.45 * _oldness(age)[:, None] * _below(wavelength, 3250.0, 110.0)
    return np.asarray(((1 - share) * hot + share * cool) * (1 - jump) * (1 - blanket))


def _planck(wavelength: Float, kelvin: Float) -> Float:
    def radiance(angstrom: Float) -> Float:
        return np.asarray(angstrom**-5 / np.expm1(1.4387769e8 / (angstrom * kelvin[:, None])))

    return np.asarray(radiance(wavelength) / radiance(np.array([5500.0])))


def _below(wavelength: Float, edge: float, width: float) -> Float:
    return np.asarray(1.0 / (1.0 + np.exp((wavelength - edge) / width)))


def _balmer_depth(wavelength: Float, age: Float) -> Float:
    centre, relative = np.array(_BALMER).T
    core = _profile(wavelength, centre, np.full(centre.size, 3.2))
    wings = _profile(wavelength, centre, np.full(centre.size, 9.5))
    stark = np.interp(np.log10(age), np.log10(AGES), (0.5, 0.5, 0.6, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0))
    width = _by_age(age, _HDELTA)[:, None] * relative
    return np.asarray((width * (1 - stark[:, None])) @ core + (width * stark[:, None]) @ wings)


def _profile(wavelength: Float, centre: Float, sigma: Float) -> Float:
    """Gaussians of unit area, (lines, L), per A."""
    offset = (wavelength - centre[:, None]) / sigma[:, None]
    return np.asarray(np.exp(-0.5 * offset**2) / (np.sqrt(2 * np.pi) * sigma[:, None]))


def _metal_depth(wavelength: Float, age: Float, metal: Float) -> tuple[Float, Float, Float]:
    """Optical depth of all metals, and of the alpha elements and iron within it; (T, L) each."""
    named = np.array([(line[0], line[1], line[2], line[4], line[5]) for line in _NAMED])
    element = [line[3] for line in _NAMED]
    weak, weak_element = _weak_lines()
    centre, width, sigma, growth, floor = np.concatenate([named, weak]).T
    kinds = np.array(element + weak_element)
    profile = _profile(wavelength, air_to_vacuum(centre), sigma)
    strength = width * (floor + (1 - floor) * _by_age(age, _METALS)[:, None] ** _onset(kinds))
    strength = strength * 10 ** (growth * metal[:, None])
    parts = [(strength * np.isin(kinds, names)) @ profile for names in (["alpha"], ["fe"])]
    return strength @ profile, parts[0], parts[1]


def _onset(kinds: NDArray[np.str_]) -> Float:
    """How late a feature appears with age: molecules need the coolest stars."""
    late = {"cn": 1.8, "c2": 1.6, "tio": 3.0, "ch": 1.3, "na": 1.4}
    return np.array([late.get(str(kind), 1.0) for kind in kinds])


def _weak_lines() -> tuple[Float, list[str]]:
    """Seeded weak lines, denser to the blue, as rows of the table of named ones."""
    rng = np.random.default_rng(_WEAK_SEED)
    centre = 2900.0 * (9800.0 / 2900.0) ** (rng.random(_WEAK) ** 1.9)
    width = rng.exponential(0.42, _WEAK) * (centre / 4500.0) ** -0.6
    sigma = rng.uniform(1.6, 6.5, _WEAK)
    growth = rng.uniform(0.1, 0.9, _WEAK)
    rows = np.stack([centre, width, sigma, growth, rng.uniform(0.0, 0.25, _WEAK)], axis=1)
    kinds = rng.choice(["fe", "alpha", "ca", "cn"], _WEAK, p=[0.62, 0.18, 0.08, 0.12])
    return rows, [str(kind) for kind in kinds]


def _with_step(wavelength: Float, flux: Float, target: Float) -> Float:
    """Flux times 1 - A x logistic at 4000 A, with A such that Dn4000 is the target; exact in A."""
    step = _below(wavelength, float(air_to_vacuum(3985.0)), 22.0)
    blue, red = (_band(wavelength, low, high) for low, high in ((3850, 3950), (4000, 4100)))
    whole, stepped = flux * wavelength**2, flux * wavelength**2 * step
    amount = (whole @ red - target * (whole @ blue)) / (stepped @ red - target * (stepped @ blue))
    return np.asarray(flux * (1 - amount[:, None] * step))


def _band(wavelength: Float, low: float, high: float) -> Float:
    """Weights (L,) of the mean over a band given in air."""
    low, high = float(air_to_vacuum(low)), float(air_to_vacuum(high))
    inside = (wavelength > low) & (wavelength < high)
    width = np.gradient(wavelength) * inside
    return np.asarray(width / width.sum())
