"""FIBTABLE of a WEAVE L1 file: who is on each fibre, and where its spectrum is."""

import re
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import fits
from storage.border import RefusedError, refuse
from storage.fits_scan import Hdu
from storage.schema import ObjectType, Reason
from storage.weave.layout import Name

MOCK = "MOCK_"
"Begins the names of columns that only files of ours have: what WEAVE does not tell of a mock."
MOCKED = ("observation", "mjd", "ebv", "ebv_known", "vdisp")
"Variables that a mock file tells of itself."
COLUMNS = frozenset(
    {
        *("NSPEC", "FIBREID", "CNAME", "TARGID", "STATUS", "TARGUSE"),
        *("TARGRA", "TARGDEC", "FIBRERA", "FIBREDEC"),
        *(f"{MOCK}{name.upper()}" for name in MOCKED),
    }
)
_USES = {"T": ObjectType.SCIENCE, "S": ObjectType.SKY}
_UNIX_EPOCH = 40587
"MJD of 1970-01-01."


def text(table: fits.Table, name: str) -> NDArray[Any]:
    """A column as text, stripped; blank where it, or its value, is missing."""
    strings = np.dtypes.StringDType()
    if name not in table:
        return np.zeros(len(table.rows), strings)
    found = table.rows[name]
    if found.dtype.kind == "S":
        found = np.char.decode(found, "ascii", "replace")
    # numpy writes big-endian numbers out as if they were little-endian.
    native = found.astype(found.dtype.newbyteorder("="))
    found = np.strings.strip(native.astype(strings))
    # What the survey's software writes for "none".
    return np.where(np.isin(found, ["nan", "None", "-1"]), np.array("", strings), found)


def number(table: fits.Table, name: str) -> NDArray[np.float64]:
    """A column as numbers; NaN where there is none."""
    if name not in table:
        return np.full(len(table.rows), np.nan)
    return np.asarray(table.rows[name], np.float64)


def spectra_of(table: fits.Table, images: int) -> NDArray[np.int64]:
    """Row of the images, from 0, of each row of the table; what NSPEC says, from 1.

    Raises
    ------
    RefusedError
        When the table has no NSPEC, and there is more than one spectrum.
    """
    if "NSPEC" in table:
        return np.asarray(table.rows["NSPEC"], np.int64) - 1
    if images == len(table.rows) == 1:
        return np.zeros(1, np.int64)
    raise RefusedError(
        Reason.MISSING_HDU,
        "FIBTABLE has no column NSPEC: which spectrum is whose, nobody can tell; fetch it again",
    )


def refuse_unread(
    ds: xr.Dataset, table: fits.Table, spectrum: NDArray[np.int64], images: int, rows: slice
) -> None:
    """Quarantine rows of a part of the table whose fibre saw nothing, or whose NSPEC is absurd."""
    status = text(table, "STATUS")
    _, inverse, count = np.unique(spectrum, return_inverse=True, return_counts=True)
    # Fibres that saw nothing may share the NSPEC of none, -1.
    outside = (spectrum < 0) | (spectrum >= images)
    for row in range(rows.start, rows.stop):
        mark, nspec = status[row], spectrum[row] + 1
        if mark not in ("", "A"):
            code, words = Reason.NO_DATA, f"its fibre's STATUS is {mark}, not A: it saw no target"
        elif outside[row]:
            code, words = Reason.UNREADABLE, f"NSPEC is {nspec}, expected 1 to {images}"
        elif count[inverse[row]] > 1:
            code, words = Reason.UNREADABLE, f"NSPEC {nspec} is in {count[inverse[row]]} rows"
        else:
            continue
        refuse(ds, row - rows.start, code, f"{words}; leave it out")


def require_text(table: fits.Table) -> None:
    """Refuse columns of another kind than they have.

    Raises
    ------
    FitsError
        Says which.
    """
    for name in ("CNAME", "TARGID", "STATUS", "TARGUSE"):
        if name in table and table.rows[name].dtype.kind != "S":
            raise fits.FitsError(f"{name} is {table.rows[name].dtype}, expected text")


def fill(ds: xr.Dataset, table: fits.Table, header: Hdu, name: Name, arm: str, rows: slice) -> None:
    """Columns of a dataset from rows of a table, without redshifts; changed in place."""
    use = [_USES.get(mark, ObjectType.STANDARD) for mark in text(table, "TARGUSE")[rows]]
    # The single row of a supertarget has no TARGUSE: it is always a target.
    known = "TARGUSE" in table
    found: dict[str, Any] = {
        "target_id": text(table, "CNAME")[rows],
        "observation": _observations(table, name, arm)[rows],
        "survey": "weave",
        "mjd": mjd(header),
        "ra": _first_finite(table, "TARGRA", "FIBRERA")[rows],
        "dec": _first_finite(table, "TARGDEC", "FIBREDEC")[rows],
        "object_type": use if known else ObjectType.SCIENCE,
        "ebv": 0.0,
        "ebv_known": 0,
    }
    for column in MOCKED:
        title = f"{MOCK}{column.upper()}"
        if title in table:
            read = text if column == "observation" else number
            found[column] = read(table, title)[rows]
    for column, values in found.items():
        ds[column].to_numpy()[:] = values


def _first_finite(table: fits.Table, *names: str) -> NDArray[np.float64]:
    one, other = (number(table, name) for name in names)
    return np.where(np.isfinite(one), one, other)


def _observations(table: fits.Table, name: Name, arm: str) -> NDArray[Any]:
    """<product>-<run>-<arm>-<CNAME>; with the fibre where it has no CNAME or shares it."""
    strings = np.dtypes.StringDType()
    who, fibre = text(table, "CNAME"), text(table, "FIBREID")
    numbers = np.arange(len(who)).astype(strings)
    fibre = np.where(fibre == "", np.strings.add("row", numbers), np.strings.add("fibre", fibre))
    _, inverse, count = np.unique(who, return_inverse=True, return_counts=True)
    shared = np.strings.add(np.strings.add(who, np.where(who == "", "", "-")), fibre)
    own = np.where((who == "") | (count[inverse] > 1), shared, who)
    return np.strings.add(f"{name.product}-{name.run}-{arm.lower()}-", own)


def mjd(header: Hdu) -> float:
    """When it was observed: MJD-OBS, else DATE-OBS, of the primary header; NaN without."""
    try:
        return float((header.value("MJD-OBS") or "").replace("D", "E"))
    except ValueError:
        pass
    date = re.match(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?", header.value("DATE-OBS") or "")
    try:
        moment = np.datetime64(date[0] if date else "NaT", "s")
    except ValueError:
        return float("nan")
    if np.isnat(moment):
        return float("nan")
    return _UNIX_EPOCH + float(moment.astype(np.int64)) / 86400
