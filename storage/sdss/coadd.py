"""The coadded spectrum of an SDSS spec file: its pixels, where they begin on the grid, its S/N."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits
from storage.border import G_BAND, R_BAND, RefusedError, beyond, pixels_in, too_large
from storage.grid import Grid
from storage.schema import Reason, Status
from storage.sdss import columns as sdss_columns
from storage.sdss import format as sdss_format

_OFF_GRID = 0.01  # pixels; float32 loglam is off by up to 0.0024
_LSF_MOST = 100.0  # pixels; above is no line spread

_COADD = ("FLUX", "LOGLAM", "IVAR", "AND_MASK", "MODEL", "WDISP")
WANTED = sdss_columns.WANTED.union(_COADD)
"Columns to read."

Values = dict[str, Any]

DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError)
"What reading a bad file raises: float(b'x'), row['Z'], rows[0]. FitsError is a ValueError."


def refusal(error: Exception, name: str) -> Values:
    """What a quarantined row says of the error that its file gave."""
    if isinstance(error, RefusedError):
        code, what = error.code, str(error)
    elif isinstance(error, OSError):
        code, what = Reason.UNREADABLE, f"{error.strerror or error}; check the path and its rights"
    elif isinstance(error, fits.FitsError):
        code, what = Reason.UNREADABLE, f"{error}; fetch the file again"
    else:
        code, what = Reason.UNREADABLE, f"not a spec file: {error}; fetch the file again"
    return {"status": Status.QUARANTINED, "reason_code": code, "reason": f"{name}: {what}"}


def spectrum(content: bytes, grid: Grid) -> tuple[int, Values, Values]:
    """First pixel on the grid, pixels and columns of a file.

    Raises
    ------
    RefusedError, FitsError
        When it must not enter the survey; says why. Damage may raise any of `DAMAGE`.
    """
    file = fits.parse(content, WANTED)
    coadd, catalog = coadd_of(file), catalog_of(file)
    first = first_pixel(column(coadd, "LOGLAM"), grid)
    pixels = _pixels(coadd)
    values = sdss_columns.columns(catalog, file.header)
    return first, pixels, values | snr(pixels["flux"], pixels["ivar"], first, grid)


def coadd_of(file: fits.File) -> fits.Rows:
    """The pixels of the coadded spectrum."""
    return _table(file, 0, ("COADD",), _COADD).rows


def catalog_of(file: fits.File) -> fits.Table:
    """What the survey says of the object: one row, in vacuum."""
    if fits.value(file.header, "VACUUM") == "F":
        raise RefusedError(Reason.BAD_GRID, "wavelengths are in air; only vacuum ones are read")
    return _table(file, 1, ("SPECOBJ", "SPALL"), ("Z", "CLASS"))


def _table(
    file: fits.File, position: int, names: tuple[str, ...], columns: tuple[str, ...]
) -> fits.Table:
    """An extension by its name, else the one at its place if it has the columns."""
    tables = [table for table in file.extensions if table is not None]
    for table in tables:
        if table.name in names and len(table.rows):
            return table
    there = file.extensions[position] if position < len(file.extensions) else None
    if there is not None and len(there.rows) and all(column in there for column in columns):
        return there
    raise RefusedError(
        Reason.MISSING_HDU,
        f"no table {' or '.join(names)} with {', '.join(columns)} (tables: "
        f"{', '.join(table.name or 'unnamed' for table in tables) or 'none'}); "
        "fetch the file again",
    )


def column(coadd: fits.Rows, name: str, kind: str = "f") -> NDArray[Any]:
    """A column of pixels (L,), float32 or int32."""
    array = coadd[name]
    if array.dtype.kind != kind or array.ndim != 1:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    # Native and contiguous first: every later step is three times as fast.
    return array.astype(f"{kind}4")


def first_pixel(loglam: NDArray[Any], grid: Grid) -> int:
    """Where a spectrum begins on the grid.

    Raises
    ------
    RefusedError
        When a pixel is off the grid, or beyond its ends.
    """
    pixel = (loglam.astype(np.float64) - grid.start) / grid.step
    first, last = float(pixel[0]), float(pixel[-1])
    if not (first > -0.5 and last < grid.size - 0.5):
        raise RefusedError(
            Reason.BAD_GRID,
            f"loglam {loglam[0]:.4f} to {loglam[-1]:.4f} leaves the grid, {grid.start} to "
            f"{grid.start + grid.step * (grid.size - 1):.4f}; use a configuration that covers it",
        )
    start = round(first)
    off = float(np.abs(pixel - (start + np.arange(pixel.size))).max())
    if not off <= _OFF_GRID:
        raise RefusedError(
            Reason.BAD_GRID,
            f"pixels are off the grid by up to {off:.3g} pixel, at most {_OFF_GRID} is allowed; "
            "rebin it, or read it with a reader of your own",
        )
    return start


def is_even(loglam: NDArray[Any], grid: Grid) -> bool:
    """Whether a spectrum has the steps of the grid, wherever it begins."""
    pixel = loglam.astype(np.float64) / grid.step - np.arange(loglam.size)
    return bool(np.ptp(pixel) <= 2 * _OFF_GRID)


def _pixels(coadd: fits.Rows) -> Values:
    flux, ivar, mask = measured(coadd, "AND_MASK", sdss_format.BAD)
    if not ivar.any():
        raise no_data(coadd)
    model = column(coadd, "MODEL")
    model = np.where(np.isfinite(model), model, 0)
    refuse_beyond("model", model)
    return {
        "flux": flux,
        "ivar": ivar,
        "mask": mask,
        "model": model,
        "lsf": spread(coadd),
    }


def measured(rows: fits.Rows, bits: str, bad: np.uint32) -> tuple[NDArray[Any], ...]:
    """Flux, ivar and mask of pixels, flux and ivar 0 where one of the bad bits is set.

    Raises
    ------
    RefusedError
        When an ivar is negative, or a value absurd.
    """
    flux, ivar = column(rows, "FLUX"), column(rows, "IVAR")
    mask = column(rows, bits, "i").view(np.uint32)
    finite = np.isfinite(flux) & np.isfinite(ivar)
    if ivar[finite].min(initial=0) < 0:
        raise RefusedError(
            Reason.NEGATIVE_IVAR,
            f"ivar is negative in {int((ivar[finite] < 0).sum())} pixels; fetch the file again",
        )
    good = finite & (ivar > 0) & ((mask & bad) == 0)
    flux, ivar = np.where(good, flux, 0), np.where(good, ivar, 0)
    for name, values in (("flux", flux), ("ivar", ivar)):
        refuse_beyond(name, values)
    return flux, ivar, mask


def refuse_beyond(name: str, values: NDArray[Any]) -> None:
    """Refuse a variable with an absurd value.

    Raises
    ------
    RefusedError
        Says in how many pixels.
    """
    if count := int(beyond(name, values)):
        raise RefusedError(Reason.ABSURD, too_large(name, count))


def spread(rows: fits.Rows) -> NDArray[Any]:
    """Line spread of pixels, Gaussian sigma in steps of 1e-4 dex; 0 where unknown."""
    wdisp = column(rows, "WDISP")
    return np.where((wdisp > 0) & (wdisp < _LSF_MOST), wdisp, 0)


def no_data(*parts: fits.Rows) -> RefusedError:
    """Why a spectrum without a good pixel has none."""
    finite = np.concatenate([np.isfinite(p["FLUX"]) & np.isfinite(p["IVAR"]) for p in parts])
    if finite.all():
        return RefusedError(Reason.NO_DATA, "no pixel has ivar > 0 and no mask; leave it out")
    return RefusedError(
        Reason.NOT_FINITE,
        f"flux or ivar is not finite in {int((~finite).sum())} of {finite.size} pixels and no "
        "other is good; fetch the file again",
    )


def snr(flux: NDArray[Any], ivar: NDArray[Any], first: int, grid: Grid) -> Values:
    """S/N per pixel: the median, and the means over g and r."""
    each, good = flux * np.sqrt(ivar), ivar > 0
    found: Values = {"snr": np.median(each[good])}
    for name, band in (("snr_g", G_BAND), ("snr_r", R_BAND)):
        begin, end = (max(edge - first, 0) for edge in pixels_in(grid, band))
        inside = each[begin:end][good[begin:end]]
        found[name] = inside.mean(dtype=np.float64) if inside.size else np.nan
    return found
