"""Stellar templates from files: single populations of a library, by age and metallicity.

Three kinds of file are understood. One spectrum a file, a FITS image whose header has the linear
axis and whose name has metallicity and age (MILES, MIUSCAT, E-MILES: ``...Zm0.40T01.0000...``);
one FITS table with a row a template: age (Gyr), metallicity ([Z/H]), wavelength (A), flux; and
the ASCII files of GALAXEV (BC03), one a metallicity.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from storage.grid import Float, air_to_vacuum
from storage.simulation import galaxev, templates
from storage.simulation.templates import REST, Templates

Medium = Literal["air", "vacuum"]
_NAME = re.compile(r"Z([mp])(\d+\.\d+)T(\d+\.\d+)")
_OVERLAP = 100.0


class _One(NamedTuple):
    """One template as its file has it."""

    age: float
    metallicity: float
    wavelength: Float
    flux: Float


@lru_cache(maxsize=2)
def library(pattern: str, medium: Medium) -> Templates:
    """Templates from the files that a pattern matches.

    Beyond the ends of the library the analytic template of the same age and metallicity carries
    on, scaled to meet it; [alpha/Fe], [Fe/H] and mass-to-light act as in the analytic ones. The
    library's own resolution stays in: galaxies come out broader than sigma_v by it.

    Raises
    ------
    ValueError
        When no file matches, a file is not of a known kind, or the (age, metallicity) pairs do not
        fill a rectangle.
    """
    anchor = Path(pattern).anchor
    paths = sorted(map(str, Path(anchor).glob(pattern.removeprefix(anchor))))
    if not paths:
        raise ValueError(f"templates = {pattern!r}: no such file; a pattern is such as ssp/*.fits")
    every = sorted((one for path in paths for one in _read(path)), key=lambda one: one[:2])
    ages, metals = _rectangle(pattern, every)
    age, metal = (axis.ravel() for axis in np.meshgrid(ages, metals, indexing="ij"))
    base = templates.analytic()
    like = base.weights(age, metal)
    flux = np.stack([
        _on_rest(one, medium, pattern, beyond)
        for one, beyond in zip(every, like @ base.flux, strict=True)
    ])  # fmt: skip
    ratio = flux / (like @ base.flux)
    return Templates(
        ages=ages,
        metallicities=metals,
        flux=flux.astype(np.float32),
        alpha=(ratio * (like @ base.alpha)).astype(np.float32),
        iron=(ratio * (like @ base.iron)).astype(np.float32),
        mass_to_light=np.asarray(like @ base.mass_to_light),
    )


def _read(path: str) -> list[_One]:
    from astropy.io import fits

    if path.endswith(galaxev.SUFFIXES):
        return [_One(*one) for one in galaxev.read(path)]
    with fits.open(path) as hdus:
        for hdu in hdus:
            if isinstance(hdu, fits.BinTableHDU):
                return _rows(path, hdu)
        image, header = hdus[0].data, hdus[0].header
    found = _NAME.search(path.rsplit("/", 1)[-1])
    if image is None or image.ndim != 1 or found is None:
        raise ValueError(
            f"{path}: expected a spectrum named like MILES's (Zm0.40T01.0000: [Z/H], Gyr), or a "
            "table with columns age, metallicity, wavelength and flux"
        )
    step = header.get("CDELT1", header.get("CD1_1"))
    first = header["CRVAL1"] - (header.get("CRPIX1", 1) - 1) * step
    sign = -1.0 if found[1] == "m" else 1.0
    wavelength = first + step * np.arange(image.size)
    return [_One(float(found[3]), sign * float(found[2]), wavelength, image.astype(float))]


def _rows(path: str, hdu: "object") -> list[_One]:
    data = hdu.data  # type: ignore[attr-defined]  # astropy is untyped
    columns = {str(name).lower(): str(name) for name in data.names}
    wanted = ("age", "metallicity", "wavelength", "flux")
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ValueError(
            f"{path}: the table lacks {', '.join(missing)}; a row is a template with age (Gyr), "
            "metallicity ([Z/H]), wavelength (A) and flux"
        )
    age, metal, wavelength, flux = (np.asarray(data[columns[name]], float) for name in wanted)
    return [
        _One(float(a), float(m), w, f)
        for a, m, w, f in zip(age, metal, wavelength, flux, strict=True)
    ]


def _rectangle(pattern: str, every: list[_One]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    ages = tuple(sorted({one.age for one in every}))
    metals = tuple(sorted({one.metallicity for one in every}))
    there = [(one.age, one.metallicity) for one in every]
    lacking = [(a, m) for a in ages for m in metals if there.count((a, m)) != 1]
    if lacking:
        raise ValueError(
            f"templates = {pattern!r}: {len(ages)} ages and {len(metals)} metallicities need one "
            f"template each; age {lacking[0][0]:g} Gyr, [Z/H] {lacking[0][1]:g} has "
            f"{there.count(lacking[0])}"
        )
    if len(ages) < 2 or len(metals) < 2:
        raise ValueError(f"templates = {pattern!r}: two ages and two metallicities are the least")
    return ages, metals


def _on_rest(one: _One, medium: Medium, pattern: str, beyond: Float) -> Float:
    """A template on the fine axis, (L,), unit mean flux over 5450-5550 A."""
    wavelength = air_to_vacuum(one.wavelength) if medium == "air" else one.wavelength
    low, high = float(wavelength[0]), float(wavelength[-1])
    if low > 5000.0 or high < 6500.0:
        raise ValueError(
            f"templates = {pattern!r}: {low:.0f}-{high:.0f} A; at least 5000-6500 A must be there"
        )
    inside = (REST.wavelength >= low) & (REST.wavelength <= high)
    flux = np.array(beyond, dtype=float)
    flux[inside] = CubicSpline(wavelength, one.flux)(REST.wavelength[inside])
    ends = ((REST.wavelength < low, low, 1.0), (REST.wavelength > high, high, -1.0))
    for outside, end, inward in ends:
        if not outside.any():
            continue
        near = inside & (inward * (REST.wavelength - end) < _OVERLAP)
        flux[outside] *= flux[near].mean() / beyond[near].mean()
    middle = (REST.wavelength > 5450) & (REST.wavelength < 5550)
    return np.asarray(flux / flux[middle].mean())
