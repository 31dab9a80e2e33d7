"""SDSS and BOSS: files `spec-PLATE-MJD-FIBER.fits`, one coadded spectrum each.

What stands in a file is trusted above its name. The first pixel is that of `loglam`: COEFF0 is
where the plate begins, and a file leaves out the pixels of its fibre that have no data.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import fits, schema, sdss_columns, sdss_format
from storage.border import G_BAND, R_BAND, RefusedError, pixels_in
from storage.grid import Grid
from storage.reader import Format, Source
from storage.schema import Reason, Status
from storage.sdss_columns import observation
from storage.walk import walk

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)

_NAME = re.compile(r"spec-([0-9]{4,6})-([0-9]{5})-([0-9]{4,})\.fits(\.gz)?")
_FILES = 512  # a source; about 45 MB decoded
_OFF_GRID = 0.01  # pixels; float32 loglam is off by up to 0.0024
_LSF_MOST = 100.0  # pixels; above is no line spread

_COADD = ("FLUX", "LOGLAM", "IVAR", "AND_MASK", "MODEL", "WDISP")
_WANTED = sdss_columns.WANTED.union(_COADD)

Values = dict[str, Any]


class Sdss(Format):
    """Spec files below a folder."""

    @property
    def identity(self) -> Literal["position"]:
        """BESTOBJID is often blank."""
        return "position"

    @property
    def configs(self) -> dict[str, Grid]:
        """Every legacy and BOSS file fits."""
        return {"sdss": GRID}

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Sources of up to 512 files below root, in the order of their paths."""
        paths = walk(root, _NAME)
        while files := tuple(islice(paths, _FILES)):
            yield Source(files=files, rows=len(files))

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source; see `storage.reader.Reader`."""
        if config not in self.configs:
            raise ValueError(
                f"config {config!r} is not of reader sdss; expected one of {[*self.configs]}"
            )
        ds = schema.blank(len(source.files), self.configs[config])
        columns = {name: ds[name].to_numpy() for name in schema.SPECTRA}
        with np.errstate(all="ignore"):
            for row, path in enumerate(source.files):
                first, pixels, values = _row(
                    path, os.path.relpath(path, root), self.configs[config]
                )
                for name, value in values.items():
                    columns[name][row] = value
                for name, array in pixels.items():
                    columns[name][row, first : first + len(array)] = array
        return schema.check(ds, source.files[0])

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write rows as `root/PLATE/spec-PLATE-MJD-FIBER.fits`; gives the paths.

        A file holds the pixels from the first to the last that have data or a mask bit. Redshift
        and extinction are float32 there: z and ebv come back to 1e-7 of their value.

        Raises
        ------
        ValueError
            When an observation is not plate-mjd-fiber or is there twice (no file is written then),
            a row has no data, or a text is longer than its column.
        """
        columns = {name: ds[name].to_numpy() for name in schema.SPECTRA}
        keys = [_numbers(str(name)) for name in columns["observation"]]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(
                f"observation {observation(*twice)!r} is there twice; one file holds one spectrum"
            )
        loglam = np.log10(ds["wavelength"].to_numpy())
        return [
            _save(root, key, {name: column[row] for name, column in columns.items()}, loglam)
            for row, key in enumerate(keys)
        ]


def build() -> Sdss:
    """The reader."""
    return Sdss()


def _save(root: str, key: tuple[int, int, int], row: Values, loglam: NDArray[Any]) -> str:
    path = Path(root, f"{key[0]:04d}", f"spec-{observation(*key)}.fits")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_bytes(sdss_format.spec_file(row, *key, loglam))
    whole.replace(path)
    return str(path)


def _numbers(name: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([0-9]{1,6})-([0-9]{5})-([0-9]+)", name)
    if match is None:
        raise ValueError(
            f"observation {name!r} is not plate-mjd-fiber; expected such as '0266-51602-0013'"
        )
    return int(match[1]), int(match[2]), int(match[3])


def _row(path: str, name: str, grid: Grid) -> tuple[int, Values, Values]:
    """First pixel, pixels and columns of a file; no pixels, and the reason, of a bad one."""
    match = _NAME.fullmatch(Path(path).name)
    known: Values = {"source": name}
    if match:
        known["observation"] = observation(*(int(number) for number in match.groups()[:3]))
    try:
        content = Path(path).read_bytes()
        known["digest"] = hashlib.blake2b(content, digest_size=16).hexdigest()
        first, pixels, values = _spectrum(content, grid)
        return first, pixels, known | values | {"status": Status.DONE}
    except RefusedError as error:
        code, what = error.code, str(error)
    except OSError as error:
        code, what = Reason.UNREADABLE, f"{error.strerror or error}; check the path and its rights"
    except fits.FitsError as error:
        code, what = Reason.UNREADABLE, f"{error}; fetch the file again"
    # Columns of another type or shape than the survey's: float(b"x"), row["Z"], rows[0].
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        code, what = Reason.UNREADABLE, f"not a spec file: {error}; fetch the file again"
    reason = {"status": Status.QUARANTINED, "reason_code": code, "reason": f"{name}: {what}"}
    return 0, {}, known | reason


def _spectrum(content: bytes, grid: Grid) -> tuple[int, Values, Values]:
    file = fits.parse(content, _WANTED)
    coadd = _table(file, 0, ("COADD",), _COADD).rows
    catalog = _table(file, 1, ("SPECOBJ", "SPALL"), ("Z", "CLASS"))
    if fits.value(file.header, "VACUUM") == "F":
        raise RefusedError(Reason.BAD_GRID, "wavelengths are in air; only vacuum ones are read")
    first = _first_pixel(_column(coadd, "LOGLAM"), grid)
    pixels = _pixels(coadd)
    values = sdss_columns.columns(catalog, file.header)
    return first, pixels, values | _snr(pixels["flux"], pixels["ivar"], first, grid)


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


def _column(coadd: fits.Rows, name: str, kind: str = "f") -> NDArray[Any]:
    array = coadd[name]
    if array.dtype.kind != kind or array.ndim != 1:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    # Native and contiguous first: every later step is three times as fast.
    return array.astype(f"{kind}4")


def _first_pixel(loglam: NDArray[Any], grid: Grid) -> int:
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


def _pixels(coadd: fits.Rows) -> Values:
    flux = _column(coadd, "FLUX")
    ivar = _column(coadd, "IVAR")
    mask = _column(coadd, "AND_MASK", "i").view(np.uint32)
    finite = np.isfinite(flux) & np.isfinite(ivar)
    if ivar[finite].min(initial=0) < 0:
        raise RefusedError(
            Reason.NEGATIVE_IVAR,
            f"ivar is negative in {int((ivar[finite] < 0).sum())} pixels; fetch the file again",
        )
    good = finite & (ivar > 0) & ((mask & sdss_format.BAD) == 0)
    if not good.any():
        raise _no_data(finite)
    model, wdisp = _column(coadd, "MODEL"), _column(coadd, "WDISP")
    return {
        "flux": np.where(good, flux, 0),
        "ivar": np.where(good, ivar, 0),
        "mask": mask,
        "model": np.where(np.isfinite(model), model, 0),
        "lsf": np.where((wdisp > 0) & (wdisp < _LSF_MOST), wdisp, 0),
    }


def _no_data(finite: NDArray[np.bool_]) -> RefusedError:
    if finite.all():
        return RefusedError(Reason.NO_DATA, "no pixel has ivar > 0 and no mask; leave it out")
    return RefusedError(
        Reason.NOT_FINITE,
        f"flux or ivar is not finite in {int((~finite).sum())} of {finite.size} pixels and no "
        "other is good; fetch the file again",
    )


def _snr(flux: NDArray[Any], ivar: NDArray[Any], first: int, grid: Grid) -> Values:
    snr, good = flux * np.sqrt(ivar), ivar > 0
    found: Values = {"snr": np.median(snr[good])}
    for name, band in (("snr_g", G_BAND), ("snr_r", R_BAND)):
        begin, end = (max(edge - first, 0) for edge in pixels_in(grid, band))
        inside = snr[begin:end][good[begin:end]]
        found[name] = inside.mean(dtype=np.float64) if inside.size else np.nan
    return found
