"""The single exposures of a full SDSS spec file, on the grid of the coadd.

Each is two tables of flux-calibrated, heliocentric spectra, B1-... and R1-... (SDSS-V: one,
MJD_EXP_...), on the uneven pixels of their CCDs. Here they are rebinned, and joined where they
overlap by ivar. Neighbours then share noise: ivar is that of one pixel, and the variance of a sum
over smooth weights is larger by the covariance factor of `storage.sdss.rebin`, 1.6 in the median.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import files, fits, fits_scan
from storage.border import RefusedError
from storage.grid import Grid
from storage.schema import Reason, Status
from storage.sdss import coadd as sdss_coadd
from storage.sdss import columns as sdss_columns
from storage.sdss import format as sdss_format
from storage.sdss.coadd import DAMAGE, Values, column
from storage.sdss.rebin import Rebinned, edges_of, rebin

WANTED = sdss_coadd.WANTED.union({"MASK"})
"Columns to read."

_CAMERA = re.compile(r"[BR][12]-([0-9]{6,})-.*|MJD_EXP_(\S+)")
_BAD = sdss_format.BAD | np.uint32(1 << 25)  # COMBINEREJ: cosmic rays that the coadd found
_DAY = 86400.0
_UNEVEN = 5.0
"Pixels of a CCD are at most 1.3 times as wide, in log10(A), as half of them are."
_TABLES = 1 << 12


def count(path: str) -> int:
    """How many exposures a file has, from its headers; 1 for a file that cannot be read."""
    try:
        if path.endswith(".gz"):
            file = fits.parse(files.content(path), frozenset(), _TABLES)
            return len(_numbers([t.name for t in file.extensions if t is not None]))
        return len(_numbers([hdu.name for hdu in fits_scan.scan(path)]))
    except (OSError, ValueError):
        return 1


def spectra(content: bytes, rows: Sequence[int], grid: Grid) -> list[tuple[Values, Values]]:
    """Pixels and columns of some exposures of a file, in the order of their numbers.

    Raises
    ------
    RefusedError, FitsError
        When the whole file must not enter the survey. Of one bad exposure, the error stands in
        its columns, under "error".
    """
    file = fits.parse(content, WANTED, _TABLES)
    common = sdss_columns.columns(sdss_coadd.catalog_of(file), file.header)
    tables = [table for table in file.extensions if table is not None]
    fits_scan.require_names(table.name for table in tables)
    numbers = _numbers([table.name for table in tables])
    if not numbers:
        raise RefusedError(Reason.MISSING_HDU, "no single exposure is left; fetch the file again")
    model = _model(file, grid)
    found: list[tuple[Values, Values]] = []
    for row in rows:
        try:
            if row >= len(numbers):
                raise RefusedError(
                    Reason.GONE, f"there are {len(numbers)} exposures now; leave it out"
                )
            cameras = [t for t in tables if _number(t.name) == numbers[row]]
            pixels, values = _exposure(cameras, grid)
            found.append((pixels | model, common | values | {"number": numbers[row]}))
        except DAMAGE as error:
            found.append(({}, {"error": error}))
    return found


def _number(name: str) -> str:
    """The exposure that a table is of; empty for another table."""
    match = _CAMERA.fullmatch(name)
    return (match[1] or match[2]) if match else ""


def _numbers(names: list[str]) -> list[str]:
    return sorted({_number(name) for name in names} - {""})


def _exposure(cameras: list[fits.Table], grid: Grid) -> tuple[Values, Values]:
    parts = [_rebinned(camera, grid) for camera in cameras]
    ivar = sum(part.ivar for part, _ in parts)
    if not np.any(ivar):
        raise sdss_coadd.no_data(*(camera.rows for camera in cameras))
    weight = np.where(ivar > 0, ivar, 1)
    # Where neither has data the mean of both is as good a line spread.
    width = [np.where(ivar > 0, part.ivar, 1) * (lsf > 0) for part, lsf in parts]
    pixels: Values = {
        "flux": (sum(part.flux * part.ivar for part, _ in parts) / weight).astype("f4"),
        "ivar": np.asarray(ivar, "f4"),
        "mask": np.bitwise_or.reduce([part.mask for part, _ in parts]),
        "lsf": sum(w * lsf for w, (_, lsf) in zip(width, parts, strict=True))
        / np.maximum(sum(width), 1e-30),
    }
    snr = sdss_coadd.snr(pixels["flux"], pixels["ivar"], 0, grid)
    return pixels, {**snr, **_mjd(cameras), "status": Status.DONE}


def _rebinned(camera: fits.Table, grid: Grid) -> tuple[Rebinned, NDArray[Any]]:
    """A camera's spectrum and line spread on the grid; blue ones run from red to blue."""
    loglam = column(camera.rows, "LOGLAM").astype(np.float64)
    order = np.argsort(loglam)
    step = np.diff(loglam) if loglam[0] < loglam[-1] else -np.diff(loglam)
    # One wavelength that is absurd, at an end, would make a pixel of half the spectrum.
    if not (step.min() > 0 and step.max() < _UNEVEN * np.median(step)):
        raise RefusedError(
            Reason.BAD_GRID, f"{camera.name}: wavelengths are not in order; fetch the file again"
        )
    loglam = loglam[order]
    bits = "MASK" if "MASK" in camera else "AND_MASK"
    flux, ivar, mask = sdss_coadd.measured(camera.rows, bits, _BAD)
    spread = sdss_coadd.spread(camera.rows) if "WDISP" in camera else np.zeros(len(loglam))
    edges, centre = edges_of(loglam), grid.wavelength
    made = rebin(flux[order], ivar[order], mask[order], edges, grid.edges)
    reached = (centre > edges[0]) & (centre < edges[-1])
    return made, reached * np.interp(np.log10(centre), loglam, spread[order])


def _mjd(cameras: list[fits.Table]) -> Values:
    """The middle of an exposure, TAI; nothing where its headers do not tell."""
    for camera in cameras:
        begin, end, length = (
            float(fits.value(camera.header, key) or np.nan)
            for key in ("TAI-BEG", "TAI-END", "EXPTIME")
        )
        middle = (begin + end) / 2 if end > begin else begin + length / 2
        if middle > 0:
            return {"mjd": middle / _DAY}
    return {}


def _model(file: fits.File, grid: Grid) -> Values:
    """The survey's fit to the coadd, which is of the same object; none where it is off the grid."""
    try:
        coadd = sdss_coadd.coadd_of(file)
    except RefusedError:
        return {}
    loglam, fit = column(coadd, "LOGLAM"), column(coadd, "MODEL")
    try:
        first = sdss_coadd.first_pixel(loglam, grid)
    except RefusedError:
        # Beyond the grid is no damage.
        if sdss_coadd.is_even(loglam, grid):
            return {}
        raise
    model = np.zeros(grid.size, dtype=np.float32)
    model[first : first + len(fit)] = np.where(np.isfinite(fit), fit, 0)
    sdss_coadd.refuse_beyond("model", model)
    return {"model": model}
