"""The sky index of a survey: its rows in the order of HEALPix pixels, for circles on the sky.

The positions lie beside the row numbers in the same order, in small chunks, so that a small circle
is answered from one or two of them, whatever the order of the rows in the store.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from astropy import units
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from storage.store import Survey
from storage.writer import Writer

NSIDE = 64
"Of HEALPix, nested: 49152 pixels of 0.84 square degrees."
CHUNK = 4096
"Positions of one chunk."
_SHARD = 64 * CHUNK
_PIXELS = 12 * NSIDE**2
_REACH_DEG = 1.0
"No pixel of `NSIDE` has a point farther from its centre; its corners are within 0.96 degrees."
_ROUNDING = 1e-30
"Of the haversine of the same position written in two ways: 4e-10 arcsec."


def within(
    ra: NDArray[np.float64], dec: NDArray[np.float64], ra0: Any, dec0: Any, radius_arcsec: Any
) -> NDArray[np.bool_]:
    """Which positions are within a circle, its edge counted; false where one is no position.

    Parameters
    ----------
    ra, dec : (N,) float64
        Degrees.
    ra0, dec0, radius_arcsec : float or (N,) float64
        Centre in degrees, radius in arcsec; 648000 is the whole sky.

    Raises
    ------
    ValueError
        When the radius is negative, or the centre no position.

    Notes
    -----
    The haversine formula, exact for small angles.
    """
    if np.ndim(ra0) == np.ndim(dec0) == np.ndim(radius_arcsec) == 0:
        _check(ra0, dec0, radius_arcsec)
    # Whole turns are taken off before the sine would blur them.
    with np.errstate(invalid="ignore"):
        turn = np.radians(np.remainder(np.subtract(ra, ra0) + 180.0, 360.0) - 180.0)
    d, d0 = np.radians(dec), np.radians(dec0)
    h = np.sin((d - d0) / 2) ** 2 + np.cos(d) * np.cos(d0) * np.sin(turn / 2) ** 2
    half = np.radians(np.minimum(radius_arcsec, 648_000.0) / 3600.0) / 2
    inside = np.minimum(h, 1.0) <= np.sin(half) ** 2 + _ROUNDING
    return np.asarray(inside & (np.abs(dec) <= 90))


def write(writer: Writer, config: str) -> None:
    """Make the index of a configuration, or make it again, from the positions of its spectra.

    It is of the writer's transaction. Whoever changes positions of rows that it covers makes it
    again before the commit; rows that are only added may wait.
    """
    ra, dec = (writer.read_column(f"spectra/{config}", name) for name in ("ra", "dec"))
    placed = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
    pixel = _pixel(ra[placed], dec[placed])
    order = np.argsort(pixel, kind="stable")
    row = placed[order].astype(np.int64)
    start = np.zeros(_PIXELS + 1, np.int64)
    np.cumsum(np.bincount(pixel, minlength=_PIXELS), out=start[1:])
    group = writer._root.create_group(f"sky/{config}", overwrite=True)
    group.attrs.update({"covers": len(ra), "nside": NSIDE, "order": "nested", "frame": "icrs"})
    about = {
        "row": (row, "1", "row of the spectra, in the order of pixels"),
        "ra": (ra[row], "deg", "right ascension, ICRS, in the order of pixels"),
        "dec": (dec[row], "deg", "declination, ICRS, in the order of pixels"),
        "start": (start, "1", "where each pixel begins in the order, and where the last ends"),
    }
    for name, (values, unit, says) in about.items():
        _put(group, name, values, {"units": unit, "long_name": says})


def cone(
    survey: Survey, config: str, ra: float, dec: float, radius_arcsec: float
) -> NDArray[np.int64]:
    """Rows of a configuration within a circle on the sky, sorted.

    The answer is that of a scan of all positions: rows that the index does not cover yet are
    scanned, and all of them where there is no index.

    Raises
    ------
    ValueError
        As `within`.
    """
    _check(ra, dec, radius_arcsec)
    spectra, rows = f"spectra/{config}", survey.rows(f"spectra/{config}")
    index = survey._root.get(f"sky/{config}")
    covers = 0
    found = []
    if isinstance(index, zarr.Group) and int(str(index.attrs["covers"])) <= rows:
        covers = int(str(index.attrs["covers"]))
        found = list(_indexed(index, ra, dec, radius_arcsec))
    if covers < rows:
        late = survey.dataset(spectra)[["ra", "dec"]].isel(spectrum=slice(covers, None)).load()
        place = late["ra"].to_numpy(), late["dec"].to_numpy()
        found.append(covers + np.flatnonzero(within(*place, ra, dec, radius_arcsec)))
    return np.sort(np.concatenate([np.empty(0, np.int64), *found]))


def _check(ra: float, dec: float, radius_arcsec: float) -> None:
    if not radius_arcsec >= 0:
        raise ValueError(f"cone: the radius is {radius_arcsec}, expected 0 arcsec or more")
    if not (np.isfinite(ra) and abs(dec) <= 90):
        raise ValueError(f"cone: no position ({ra}, {dec}); expected degrees, dec in -90..90")


def _indexed(
    index: zarr.Group, ra: float, dec: float, radius_arcsec: float
) -> Iterator[NDArray[np.int64]]:
    start = _read(index, "start")
    for first, last in _runs(start, _candidates(ra, dec, radius_arcsec)):
        place = _read(index, "ra", first, last), _read(index, "dec", first, last)
        inside = within(*place, ra, dec, radius_arcsec)
        if inside.any():
            yield _read(index, "row", first, last)[inside]


def _candidates(ra: float, dec: float, radius_arcsec: float) -> NDArray[np.int64]:
    """Pixels that may overlap a circle.

    By their centres: the search of astropy-healpix 2.0 leaves out pixels of some circles.
    """
    from astropy_healpix import healpix_to_lonlat

    lon, lat = healpix_to_lonlat(np.arange(_PIXELS), NSIDE, order="nested")
    reach = radius_arcsec + _REACH_DEG * 3600
    return np.flatnonzero(within(lon.to_value("deg"), lat.to_value("deg"), ra, dec, reach))


def _runs(start: NDArray[np.int64], pixels: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and last place of what is read at once: gaps of less than a chunk are read too."""
    first, last = start[pixels], start[pixels + 1]
    first, last = first[last > first], last[last > first]
    if not first.size:
        return
    breaks = np.flatnonzero(first[1:] - last[:-1] >= CHUNK)
    begins, ends = np.r_[first[0], first[breaks + 1]], np.r_[last[breaks], last[-1]]
    yield from zip(begins.tolist(), ends.tolist(), strict=True)


def _pixel(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.int64]:
    from astropy_healpix import lonlat_to_healpix

    lon, lat = np.remainder(ra, 360.0) * units.deg, np.asarray(dec) * units.deg
    return np.asarray(lonlat_to_healpix(lon, lat, NSIDE, order="nested"), np.int64)


def _put(group: zarr.Group, name: str, values: NDArray[Any], attrs: dict[str, Any]) -> None:
    # One object holds many chunks: a survey of millions would else be thousands of small files.
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=(CHUNK,),
        shards=(_SHARD,),
        dtype=values.dtype,
        compressors=[BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()],
        attributes=attrs,
        dimension_names=["edge" if name == "start" else "place"],
    )
    array[:] = values


def _read(group: zarr.Group, name: str, first: int = 0, last: int | None = None) -> NDArray[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[first:last])
