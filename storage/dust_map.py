"""Galactic reddening from the maps of Schlegel, Finkbeiner & Davis (1998), which the user names.

Two FITS images in Lambert's projection, one for each galactic hemisphere. Nothing is downloaded.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from storage.grid import Float

NAMES = ("SFD_dust_4096_ngp.fits", "SFD_dust_4096_sgp.fits")
"The two files, as they are published."


@dataclass(frozen=True)
class _Half:
    """One hemisphere."""

    image: NDArray[Any]
    "E(B-V), mag."
    sign: int
    "LAM_NSGP: 1 in the north, -1 in the south."
    scale: float
    "LAM_SCAL: pixels from the pole to latitude 0."
    centre: tuple[float, float]
    "Pixel of the pole, counted from 0: x, y."

    def ebv(self, longitude: Float, latitude: Float) -> Float:
        """E(B-V) at galactic coordinates (radians), between pixels linearly (SFD98, appendix C)."""
        radius = self.scale * np.sqrt(np.maximum(0, 1 - self.sign * np.sin(latitude)))
        x = self.centre[0] + radius * np.cos(longitude)
        y = self.centre[1] - self.sign * radius * np.sin(longitude)
        return np.asarray(map_coordinates(self.image, [y, x], order=1, mode="nearest"))


def ebv(folder: str, ra: Float, dec: Float) -> Float:
    """E(B-V) in the scale of SFD98 at positions (N,), ICRS deg; NaN where a position is not finite.

    folder : where `NAMES` are.

    Raises
    ------
    FileNotFoundError
        When a map is not there.
    ValueError
        When a file is no such map.
    """
    found = np.full(len(ra), np.nan)
    placed = np.isfinite(ra) & np.isfinite(dec)
    sky = SkyCoord(ra[placed] * units.deg, dec[placed] * units.deg).galactic
    longitude, latitude = sky.l.radian, sky.b.radian
    values = np.empty(placed.sum())
    for name, chosen in zip(NAMES, (latitude >= 0, latitude < 0), strict=True):
        half = _load(str(Path(folder) / name))
        values[chosen] = half.ebv(longitude[chosen], latitude[chosen])
    found[placed] = values
    return found


@lru_cache(maxsize=4)
def _load(path: str) -> _Half:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such map; survey.dust_map is the folder that holds {' and '.join(NAMES)}"
        )
    try:
        with fits.open(path, memmap=True) as hdus:
            header, image = hdus[0].header, hdus[0].data
            return _Half(
                image=np.asarray(image, np.float32),
                sign=int(header["LAM_NSGP"]),
                scale=float(header["LAM_SCAL"]),
                centre=(float(header["CRPIX1"]) - 1, float(header["CRPIX2"]) - 1),
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a map of SFD98 ({error}); fetch it again") from error
