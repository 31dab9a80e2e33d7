"""Redshifts of WEAVE spectra: the table CLASS of the L2 file that was made from an L1 file."""

import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import fits
from storage.fits_scan import Hdu, scan, table
from storage.fits_unpack import plain
from storage.walk import walk
from storage.weave.layout import glance
from storage.weave.table import number, text

logger = logging.getLogger(__name__)

_FILES = re.compile(r".*APS\.fits?(?:\.gz)?")
_PART = re.compile(r"(?:single|stack|superstack)(?:ed)?_[0-9A-Za-z]+")
_TARGET = re.compile(r"(WVE_[0-9]+[+-][0-9]+)_00_([BGR]+)_([0-9A-Z]+)")
_TABLES = ("CLASS_TABLE", "CLASS")
_SUFFIX = "_RR"
_VALUES = {"z": "Z", "z_err": "ZERR", "zwarn": "ZWARN", "class": "CLASS", "subclass": "SUBCLASS"}
_KEYS = ("CNAME", "TARGID")
_COLUMNS = frozenset({*_KEYS, *(t + end for t in _VALUES.values() for end in ("", _SUFFIX))})
_NO_WARNING = 0


@dataclass(frozen=True, kw_only=True)
class _Index:
    """L2 files below a folder."""

    made_ns: int
    "When the folder was looked through, Unix time."
    files: dict[str, str]
    "Path of the L2 file by the stem of each L1 file that it names: 'stack_1002046'."


def fill(ds: xr.Dataset, l1: fits.Table, path: str, root: str, rows: slice) -> None:
    """Redshift, error, warning, class and subclass of rows of FIBTABLE; changed in place.

    Nothing is filled in where no L2 file below root names the L1 file, or none of its rows has
    the CNAME, or else the TARGID, of the fibre.
    """
    where = _made_from(path, root)
    if where is None:
        return
    state = Path(where).stat()
    try:
        found = _redshifts(where, state.st_size, state.st_mtime_ns)
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        logger.warning("%s: no redshifts: %s; fetch the file again", where, error)
        return
    for key in reversed(_KEYS):
        _match(ds, text(l1, key)[rows], found[key], found)


def _match(ds: xr.Dataset, wanted: NDArray[Any], names: NDArray[Any], found: Any) -> None:
    first = {name: row for row, name in reversed([*enumerate(names)]) if name}
    place = np.array([first.get(name, -1) for name in wanted])
    known = place >= 0
    for name in _VALUES:
        ds[name].to_numpy()[known] = found[name][place[known]]


@lru_cache(maxsize=4)
def _redshifts(path: str, size: int, time_ns: int) -> dict[str, NDArray[Any]]:
    """Columns of the table CLASS, by our names, and its keys."""
    file = plain(path)
    rows = table(file.path, _class_table(scan(file.path)), _COLUMNS)
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


def _made_from(path: str, root: str) -> str | None:
    """The L2 file below root that names an L1 file; the first in order, if several do."""
    stem = _stem(path)
    changed = os.stat(path).st_ctime_ns  # noqa: PTH116 - links are followed, as they are read
    index = _index(root, 0)
    # A file that came after the folder was looked through may have brought its L2 file along.
    if stem not in index.files and changed > index.made_ns:
        index = _index(root, changed)
    return index.files.get(stem)


def _stem(path: str) -> str:
    return re.sub(r"\.fits?(\.gz)?$", "", Path(path).name)


@lru_cache(maxsize=8)
def _index(root: str, since_ns: int) -> _Index:
    made, files = time.time_ns(), dict[str, str]()
    try:
        for path in walk(root, _FILES):
            for stem in _names(path):
                files.setdefault(stem, path)
    except FileNotFoundError:
        pass
    return _Index(made_ns=made, files=files)


def _names(path: str) -> Iterator[str]:
    """Stems of the L1 files that an L2 file was made from: by its name, else by its header."""
    own = re.sub(r"_?APS$", "", _stem(path))
    if all(_PART.fullmatch(part) for part in own.split("__")):
        yield from own.split("__")
    elif target := _TARGET.fullmatch(own):
        yield from (f"{target[1]}_{arm}{target[3]}" for arm in target[2])
    else:
        for hdu in glance(path, most=1):
            yield from (_stem(hdu.value(f"L1_REF_{arm}") or "") for arm in "BGR")
