"""Reddening maps: the projection is that of astropy's WCS, the poles and the equator meet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from storage import dust_map

SIZE = 256


def reddening(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """A smooth sky (radians)."""
    return 0.2 + 0.1 * np.cos(longitude) * np.cos(latitude) + 0.05 * np.sin(latitude)


@pytest.fixture
def maps(tmp_path: Path) -> str:
    """Both maps of that sky; where a pixel lies is what astropy says of such a projection."""
    for name, sign in zip(dust_map.NAMES, (1, -1), strict=True):
        scale = SIZE / 2
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["GLON-ZEA", "GLAT-ZEA"]
        wcs.wcs.crval = [90.0, 90.0 * sign]
        wcs.wcs.crpix = [SIZE / 2 + 0.5, SIZE / 2 + 0.5]
        step = np.degrees(np.sqrt(2) / scale)
        wcs.wcs.cdelt = [-step, step]
        wcs.wcs.lonpole = 180.0
        y, x = np.mgrid[:SIZE, :SIZE]
        image = reddening(*(np.radians(c) for c in wcs.wcs_pix2world(x, y, 0)))
        hdu = fits.PrimaryHDU(np.nan_to_num(image).astype("f4"))
        hdu.header["LAM_NSGP"], hdu.header["LAM_SCAL"] = sign, scale
        hdu.header["CRPIX1"] = hdu.header["CRPIX2"] = SIZE / 2 + 0.5
        hdu.writeto(tmp_path / name)
    return str(tmp_path)


def test_a_place_has_the_reddening_of_the_map(maps: str) -> None:
    rng = np.random.default_rng(1)
    longitude, latitude = rng.uniform(0, 2 * np.pi, 300), np.arcsin(rng.uniform(-0.95, 0.95, 300))
    sky = SkyCoord(longitude * units.rad, latitude * units.rad, frame="galactic").icrs
    found = dust_map.ebv(maps, sky.ra.deg, sky.dec.deg)
    np.testing.assert_allclose(found, reddening(longitude, latitude), atol=3e-4)


def test_a_row_without_a_position_has_none(maps: str) -> None:
    found = dust_map.ebv(maps, np.array([10.0, np.nan]), np.array([10.0, 0.0]))
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def lose(folder: Path) -> None:
    (folder / dust_map.NAMES[1]).unlink()


def spoil(folder: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(folder / dust_map.NAMES[0], overwrite=True)


@pytest.mark.parametrize(
    ("do", "error", "words"),
    [
        (lose, FileNotFoundError, r"sgp\.fits: no such map; survey\.dust_map is the folder"),
        (spoil, ValueError, r"ngp\.fits: not a map of SFD98 .*LAM_NSGP"),
    ],
)
def test_what_is_no_map_is_named(
    maps: str, do: Callable[[Path], None], error: type[Exception], words: str
) -> None:
    do(Path(maps))
    with pytest.raises(error, match=words):
        dust_map.ebv(maps, np.array([10.0]), np.array([-80.0]))
