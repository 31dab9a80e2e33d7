"""PHOENIX model spectra of Husser et al. (2013), HiRes, from a folder of their FITS files.

``lte04000-4.50-0.5.Alpha=+0.20.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits`` has the flux, in erg per s,
cm2 and cm; ``WAVE_PHOENIX-ACES-AGSS-COND-2011.fits``, in the folder or above, the wavelengths of
all, A in vacuum.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from storage.grid import Float
from storage.simulation.stellar_files import Library, Parameters, folder, opened

WAVE = "WAVE_PHOENIX-ACES-AGSS-COND-2011.fits"
_NAME = re.compile(
    r"lte(?P<teff>\d{5})(?P<logg>[+-]\d\.\d\d)(?P<feh>[+-]\d\.\d)(\.Alpha=(?P<alpha>[+-]\d\.\d\d))?"
    r"\.PHOENIX-ACES-AGSS-COND-2011-HiRes\.fits"
)
_UNIT = "erg/s/cm^2/cm"


def phoenix(path: str) -> Library:
    """The PHOENIX models in a folder and below it.

    Raises
    ------
    ValueError
        When there is no such folder, no model in it, or two files of one model.
    """
    root = folder(path, "PHOENIX")
    return Library("phoenix", _models(root), path, read)


def _models(root: Path) -> Iterator[tuple[Parameters, Path]]:
    for path in sorted(root.rglob("lte*.fits")):
        found = _NAME.fullmatch(path.name)
        if found:
            # The sign before log g is a dash, that of a negative log g is a plus.
            logg = 0.0 - float(found["logg"])
            alpha = float(found["alpha"] or 0.0) + 0.0
            yield (float(found["teff"]), logg, float(found["feh"]) + 0.0, alpha), path


def read(path: Path) -> tuple[Float, Float]:
    """Wavelength (vacuum A) and flux per A of one model.

    Raises
    ------
    ValueError
        When the file is truncated or in another unit, or the file of wavelengths is not there.
    """
    flux, header = _image(path)
    unit = str(header.get("BUNIT", "none")).strip()
    if unit != _UNIT:
        raise ValueError(f"{path}: BUNIT is {unit!r}, expected {_UNIT!r} as Husser et al. have it")
    for place in (path.parent, *path.parents[1:5]):
        if (place / WAVE).is_file():
            return _wave(place / WAVE), flux * 1e-8
    raise ValueError(f"{path}: {WAVE}, which has its wavelengths, is not beside it or above it")


@lru_cache(maxsize=2)
def _wave(path: Path) -> Float:
    wavelength, header = _image(path)
    unit = str(header.get("UNIT", header.get("BUNIT", "Angstrom"))).strip()
    # The files start at 500 A: in nm or um they would start below.
    if not unit.lower().startswith("ang") or wavelength[0] < 400.0:
        raise ValueError(
            f"{path}: starts at {wavelength[0]:g} {unit}; expected A in vacuum, from 500"
        )
    return wavelength


def _image(path: Path) -> tuple[Float, Any]:
    values, header = opened(path)[0]
    if values is None or values.ndim != 1 or not values.size:
        raise ValueError(f"{path}: no spectrum in the first extension; fetch the file again")
    return np.asarray(values, np.float64), header
