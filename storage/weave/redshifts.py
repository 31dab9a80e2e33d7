"""Redshifts of WEAVE spectra: the table CLASS of the L2 file that was made from an L1 file."""

import os
import re
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import files, fits
from storage.border import RefusedError
from storage.fits_scan import Hdu, scan, table
from storage.fits_unpack import plain
from storage.schema import Reason
from storage.weave.results import made_from
from storage.weave.table import number, text

_TABLES = ("CLASS_TABLE", "CLASS")
_SUFFIX = "_RR"
_VALUES = {"z": "Z", "z_err": "ZERR", "zwarn": "ZWARN", "class": "CLASS", "subclass": "SUBCLASS"}
_NEEDED = ("Z", "ZERR", "ZWARN", "CLASS")
_KEYS = ("CNAME", "TARGID")
_COLUMNS = frozenset({*_KEYS, *(t + end for t in _VALUES.values() for end in ("", _SUFFIX))})
_NO_WARNING = 0


def fill(ds: xr.Dataset, l1: fits.Table, path: str, root: str, rows: slice) -> None:
    """Redshift, error, warning, class and subclass of rows of FIBTABLE; changed in place.

    Nothing is filled in where no L2 file below root names the L1 file, or none of its rows has
    the CNAME, or else the TARGID, of the fibre.

    Raises
    ------
    RefusedError
        When that file cannot be read: its redshifts would be missing without a word.
    """
    where = made_from(path, root)
    if where is None:
        return
    try:
        state = files.regular(where)
        found = _redshifts(where, state.st_size, (state.st_mtime_ns, state.st_ctime_ns))
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RefusedError(
            Reason.UNREADABLE,
            f"no redshifts from {os.path.relpath(where, root)}: {said}; fetch that file again, or "
            "remove it",
        ) from error
    for key in reversed(_KEYS):
        _match(ds, text(l1, key)[rows], found[key], found)


def _match(ds: xr.Dataset, wanted: NDArray[Any], names: NDArray[Any], found: Any) -> None:
    first: dict[str, int] = {}
    shared: set[str] = set()
    for row, name in enumerate(names):
        other = first.setdefault(name, row)
        if found["z"][row] != found["z"][other]:
            shared.add(name)
    # Of a name with several redshifts nobody can tell which is whose: it has none.
    first = {name: row for name, row in first.items() if name and name not in shared}
    place = np.array([first.get(name, -1) for name in wanted])
    known = place >= 0
    for name in _VALUES:
        ds[name].to_numpy()[known] = found[name][place[known]]


@lru_cache(maxsize=4)
def _redshifts(path: str, size: int, times_ns: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Columns of the table CLASS, by our names, and its keys."""
    file = plain(path)
    rows = table(file.path, _class_table(scan(file.path)), _COLUMNS)
    missing = [t for t in _NEEDED if t not in rows and t + _SUFFIX not in rows]
    if missing or not any(key in rows for key in _KEYS):
        lost = missing or [" or ".join(_KEYS)]
        raise fits.FitsError(f"{rows.name} has no column {', '.join(lost)}")
    found: dict[str, NDArray[Any]] = {key: text(rows, key) for key in _KEYS}
    for name, title in _VALUES.items():
        title = title if title in rows else title + _SUFFIX
        if name in ("class", "subclass"):
            found[name] = _best(text(rows, title))
        else:
            found[name] = _best(number(rows, title))
    warned = found["zwarn"]
    found["zwarn"] = np.where(np.isfinite(warned), warned, _NO_WARNING).astype(np.int32)
    found["class"], found["subclass"] = _classes(found["class"], found["subclass"])
    return found


def _class_table(hdus: tuple[Hdu, ...]) -> Hdu:
    for hdu in hdus:
        if hdu.name in _TABLES:
            return hdu
    there = ", ".join(hdu.name for hdu in hdus[1:]) or "none"
    raise fits.FitsError(f"no table {' or '.join(_TABLES)} (there: {there})")


def _best(values: NDArray[Any]) -> NDArray[Any]:
    """The first of several ranked solutions."""
    return values[:, 0] if values.ndim > 1 else values


def _classes(names: NDArray[Any], finer: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """GALAXY, QSO or STAR of such as QSO_HIZ or QSO:::HIZ; the rest is a subclass."""
    strings = np.dtypes.StringDType()
    parts = [re.split(r"[_:]+", name, maxsplit=1) for name in names]
    rest = np.array([part[1] if len(part) > 1 else "" for part in parts], strings)
    return np.array([part[0].upper() for part in parts], strings), np.where(
        finer == "", rest, finer
    )
