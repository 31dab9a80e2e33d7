"""Columns of DESI tables: what a fibre was put on, and the redshift that redrock found."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits_scan, fits_unpack
from storage.border import NO_REDSHIFT, RefusedError
from storage.fits import FitsError, Table
from storage.fits_scan import Hdu
from storage.schema import ObjectType, Reason

STANDARD = 1 << 33 | 1 << 34 | 1 << 35
"DESI_TARGET bits of standard stars, in all surveys: STD_FAINT, STD_WD, STD_BRIGHT."

_TARGETS = ("DESI_TARGET", "SV1_DESI_TARGET", "SV2_DESI_TARGET", "SV3_DESI_TARGET")
_ALWAYS = ("TARGETID", "TARGET_RA", "TARGET_DEC", "OBJTYPE")
_EXPOSED = ("EXPID", "FIBER", "MJD")
_STATUS = ("COADD_FIBERSTATUS", "FIBERSTATUS")
_FIBERMAP = frozenset({"EBV", "MEAN_MJD", "OBSERVATION"}).union(
    _ALWAYS, _EXPOSED, _TARGETS, _STATUS
)
_FITTED = ("TARGETID", "Z", "ZERR", "ZWARN", "SPECTYPE")
_REDSHIFTS = frozenset({"SUBTYPE", "VDISP"}).union(_FITTED)

Values = dict[str, Any]


def fibermap(path: str, hdus: tuple[Hdu, ...], rows: range, exposures: bool) -> Values:
    """Columns of rows of a file, from its FIBERMAP.

    Also ``TARGETID``, ``OBJTYPE`` (text), for exposures ``EXPID`` and ``FIBER``, and of mocks
    ``OBSERVATION``, as the file has them.

    Raises
    ------
    RefusedError
        When the table or a column that every file has is not there.
    FitsError
        When it cannot be read, or ends before those rows.
    """
    table = _table(path, hdus, "FIBERMAP", _FIBERMAP)
    wanted = _ALWAYS + (_EXPOSED if exposures else ())
    lost = [name for name in wanted if name not in table]
    if lost:
        raise RefusedError(
            Reason.MISSING_HDU, f"FIBERMAP has no column {', '.join(lost)}; fetch the file again"
        )
    if rows.stop > len(table.rows):
        raise FitsError(f"FIBERMAP has {len(table.rows)} rows, row {rows.stop - 1} was expected")
    some = Table(name=table.name, rows=table.rows[rows.start : rows.stop])
    ids = _numbers(some, "TARGETID", "i8")
    kind = _text(some, "OBJTYPE")
    standard = _standard(some)
    ebv = _first(some, ("EBV",), np.nan)
    # A fibre on no catalogued target has 0 there, which is no measurement.
    known = np.isfinite(ebv) & ((ebv != 0) | (kind == "TGT"))
    mjd = _first(some, ("MEAN_MJD", "MJD"), np.nan)
    return {
        "TARGETID": ids,
        "OBJTYPE": kind,
        **({"OBSERVATION": _text(some, "OBSERVATION")} if "OBSERVATION" in some else {}),
        **{key: _numbers(some, key, "i8") for key in ("EXPID", "FIBER") if exposures},
        "target_id": ids.astype(np.dtypes.StringDType()),
        "ra": _numbers(some, "TARGET_RA", "f8"),
        "dec": _numbers(some, "TARGET_DEC", "f8"),
        "ebv": np.where(known, ebv, 0),
        "ebv_known": known,
        "object_type": np.select(
            [kind == "SKY", standard], [ObjectType.SKY, ObjectType.STANDARD], ObjectType.SCIENCE
        ),
        "fiberstatus": _first(some, _STATUS, 0),
        "mjd": mjd if (mjd > 0).any() else _mean_mjd(path, hdus, ids),
    }


def redshifts(path: str, ids: NDArray[np.int64]) -> Values:
    """Columns that redrock gives of targets, by their id; path is that of its file.

    Raises
    ------
    RefusedError
        When the file is there and cannot be read.
    """
    n = len(ids)
    found: Values = {
        **{name: np.full(n, np.nan) for name in ("z", "z_err", "vdisp")},
        "zwarn": np.full(n, NO_REDSHIFT),
        **{name: np.full(n, "", np.dtypes.StringDType()) for name in ("class", "subclass")},
    }
    # A link that leads nowhere is no missing file, but a broken one.
    if not os.path.lexists(path):
        return found
    try:
        plain = fits_unpack.plain(path)
        table = _table(plain.path, fits_scan.scan(plain.path), "REDSHIFTS", _REDSHIFTS)
        lost = [name for name in _FITTED if name not in table]
        if lost:
            raise FitsError(f"REDSHIFTS has no column {', '.join(lost)}")
        row, at = _matched(_once(_numbers(table, "TARGETID", "i8"), ids), ids)
        for name, key in (("z", "Z"), ("z_err", "ZERR"), ("vdisp", "VDISP"), ("zwarn", "ZWARN")):
            if key in table:
                found[name][row] = _numbers(table, key, found[name].dtype.str)[at]
        if np.abs(found["zwarn"]).max(initial=0) >= 1 << 31:
            raise FitsError("REDSHIFTS has a ZWARN of more than 31 bits")
        for name, key in (("class", "SPECTYPE"), ("subclass", "SUBTYPE")):
            if key in table:
                found[name][row] = _text(table, key)[at]
    except (FitsError, RefusedError, OSError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        words = said.removesuffix("; fetch the file again")
        raise RefusedError(
            Reason.UNREADABLE, f"{Path(path).name}: {words}; fetch that file again, or remove it"
        ) from error
    return found


def _table(path: str, hdus: tuple[Hdu, ...], name: str, columns: frozenset[str]) -> Table:
    for hdu in hdus:
        if hdu.name == name:
            return fits_scan.table(path, hdu, columns)
    there = ", ".join(hdu.name for hdu in hdus if hdu.name) or "none"
    raise RefusedError(
        Reason.MISSING_HDU, f"no extension {name} (there are: {there}); fetch the file again"
    )


def _once(theirs: NDArray[Any], ours: NDArray[Any]) -> NDArray[Any]:
    """Theirs, none of ours among them twice: nobody could tell which row is whose."""
    there, count = np.unique(theirs, return_counts=True)
    twice = np.intersect1d(there[count > 1], ours)
    if twice.size:
        raise FitsError(f"TARGETID {twice[0]} is there twice, {twice.size} such")
    return theirs


def _matched(theirs: NDArray[Any], ours: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows of ours that are among theirs, and where there; the first, when one is there twice."""
    order = np.argsort(theirs, kind="stable")
    place = np.searchsorted(theirs, ours, sorter=order)
    at = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(ours), int)
    row = np.flatnonzero(theirs[at] == ours) if len(order) else np.zeros(0, int)
    return row, at[row]


def _mean_mjd(path: str, hdus: tuple[Hdu, ...], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean MJD of the exposures of targets, from EXP_FIBERMAP; NaN where there are none."""
    if not any(hdu.name == "EXP_FIBERMAP" for hdu in hdus):
        return np.full(len(ids), np.nan)
    table = _table(path, hdus, "EXP_FIBERMAP", frozenset({"TARGETID", "MJD"}))
    if "TARGETID" not in table or "MJD" not in table:
        return np.full(len(ids), np.nan)
    target, mjd = _numbers(table, "TARGETID", "i8"), _numbers(table, "MJD", "f8")
    dated = mjd > 0
    there, which = np.unique(target[dated], return_inverse=True)
    mean = np.bincount(which, mjd[dated]) / np.maximum(np.bincount(which), 1)
    found = np.full(len(ids), np.nan)
    row, at = _matched(there, ids)
    found[row] = mean[at]
    return found


def _standard(table: Table) -> NDArray[np.bool_]:
    standard = np.zeros(len(table.rows), bool)
    for key in _TARGETS:
        if key in table:
            standard |= (_numbers(table, key, "i8") & STANDARD) != 0
    return standard


def _first(table: Table, names: tuple[str, ...], default: float) -> NDArray[Any]:
    """The first of those columns that is there; the default where none is."""
    for name in names:
        if name in table:
            return _numbers(table, name, "i8" if default == 0 else "f8")
    return np.full(len(table.rows), default)


def _numbers(table: Table, name: str, kind: str) -> NDArray[Any]:
    column = table.rows[name]
    allowed = "iub" if np.dtype(kind).kind == "i" else "fiub"
    if column.ndim != 1 or column.dtype.kind not in allowed:
        raise FitsError(f"{table.name}: {name} is {column.dtype} {column.shape[1:]}")
    return np.asarray(column.astype(kind))


def _text(table: Table, name: str) -> NDArray[Any]:
    column = table.rows[name]
    if column.ndim != 1 or column.dtype.kind != "S":
        raise FitsError(f"{table.name}: {name} is {column.dtype} {column.shape[1:]}, expected text")
    # Not every file has ASCII there; what is not is no name of a class.
    text = np.char.strip(np.char.decode(column, "ascii", "replace"))
    return np.asarray(text.astype(np.dtypes.StringDType()))
