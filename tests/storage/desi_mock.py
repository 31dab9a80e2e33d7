"""DESI files made by astropy, with short arms: what the reader's tests change one thing of."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits

from storage.readers import desi

FLUX_UNIT = "10**-17 erg/(s cm2 Angstrom)"
ARMS = {"B": (0, 100), "R": (90, 200), "Z": (190, 300)}
"First pixel on the grid, and the one behind the last."
NAME = "coadd-main-dark-9.fits"
SIGMA = 0.9


def gaussian(size: int, sigma: float = SIGMA) -> np.ndarray:
    """Diagonals (11, size) of Gaussian kernels, as scipy.sparse.dia_matrix has them."""
    offset = np.arange(5, -6, -1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    return np.repeat((kernel / kernel.sum())[:, None], size, axis=1).astype("f4")


def arms(n: int) -> dict[str, np.ndarray]:
    """Images of n spectra by their extension: flux 1 + row, ivar 4, no mask."""
    found: dict[str, np.ndarray] = {}
    for arm, (first, last) in ARMS.items():
        size = last - first
        found[f"{arm}_WAVELENGTH"] = 3600 + 0.8 * np.arange(first, last)
        found[f"{arm}_FLUX"] = np.repeat(1 + np.arange(n, dtype="f4")[:, None], size, axis=1)
        found[f"{arm}_IVAR"] = np.full((n, size), 4, "f4")
        found[f"{arm}_MASK"] = np.zeros((n, size), "u4")
        found[f"{arm}_RESOLUTION"] = np.repeat(gaussian(size)[None], n, axis=0)
    return found


def fibermap(n: int) -> dict[str, Any]:
    """Columns of n science targets with ids 1000, 1001 ..."""
    row = np.arange(n)
    return {
        "TARGETID": 1000 + row,
        "TARGET_RA": 150 + 0.01 * (row % 1000),
        "TARGET_DEC": 2 - 0.01 * (row % 1000),
        "OBJTYPE": np.full(n, "TGT"),
        "EBV": np.full(n, 0.03, "f4"),
        "DESI_TARGET": np.ones(n, "i8"),
        "COADD_FIBERSTATUS": np.zeros(n, "i4"),
        "MEAN_MJD": np.full(n, 59000.5),
        "EXPID": np.full(n, 85502, "i4"),
        "FIBER": row.astype("i4"),
        "MJD": np.full(n, 59000.25),
    }


def redshifts(n: int) -> dict[str, Any]:
    """Columns that redrock gives the targets of `fibermap`, in their order."""
    row = np.arange(n)
    return {
        "TARGETID": 1000 + row,
        "Z": 0.1 * (1 + row),
        "ZERR": np.full(n, 1e-5),
        "ZWARN": row % 2,
        "SPECTYPE": np.full(n, "GALAXY"),
        "SUBTYPE": np.full(n, ""),
    }


def table(name: str, columns: dict[str, Any]) -> fits.BinTableHDU:
    found = np.rec.fromarrays([*map(np.asarray, columns.values())], names=[*columns])
    return fits.BinTableHDU(found, name=name)


def save(
    folder: Path,
    images: dict[str, np.ndarray],
    fibers: dict[str, Any],
    name: str = NAME,
    units: str | None = FLUX_UNIT,
    more: tuple[fits.BinTableHDU, ...] = (),
    compressed: bool = False,
) -> Path:
    """A file of these; FIBERMAP, more, and then images, in that order."""
    hdus: list[Any] = [fits.PrimaryHDU(), table("FIBERMAP", fibers), *more]
    for key, values in images.items():
        packed = compressed and key.endswith("MASK")
        kind = fits.CompImageHDU if packed else fits.ImageHDU
        hdu = kind(values, name=key)
        if key.endswith("FLUX") and units is not None:
            hdu.header["BUNIT"] = units
        hdus.append(hdu)
    folder.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(folder / name, overwrite=True)
    return folder / name


def redrock(folder: Path, columns: dict[str, Any], name: str = NAME) -> Path:
    path = folder / ("redrock-" + name.partition("-")[2])
    fits.HDUList([fits.PrimaryHDU(), table("REDSHIFTS", columns)]).writeto(path, overwrite=True)
    return path


def survey(folder: Path, n: int = 4, name: str = NAME) -> Path:
    """A whole file of n targets, and redrock's beside it."""
    path = save(folder, arms(n), fibermap(n), name)
    redrock(folder, redshifts(n), name)
    return path


def read(folder: Path, config: str = "desi", **options: Any) -> xr.Dataset:
    """All rows below a folder."""
    reader = desi.build(**options)
    parts = [
        reader.read(source, str(folder), config) for source in reader.find(str(folder), config)
    ]
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")
