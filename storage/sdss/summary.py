"""Paths of spec files as a release's own table states them: specObj, spAll or spAll-lite.

The table of a release has millions of rows of a kB each. Slices of it are read, one after another,
and of a slice the few columns that make a path: memory stays the same, whatever the release.
"""

import os
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage import fits, fits_scan
from storage.sdss.names import observation, observation5

LAYOUTS = {
    "lite": "{run2d}/spectra/lite/{plate:04d}/{name}",
    "full": "{run2d}/spectra/full/{plate:04d}/{name}",
    "flat": "{name}",
    "sdss5": "{run2d}/spectra/lite/{field:06d}/{mjd}/{name}",
    "sdss5-full": "{run2d}/spectra/full/{field:06d}/{mjd}/{name}",
    "sdss5-daily": "{run2d}/spectra/daily/lite/{group}/{field:06d}/{mjd}/{name}",
}
"""Where releases keep their files: DR8 to DR17 (lite, full), SDSS-V to DR19 (sdss5, sdss5-full)
and with idlspec2d 6.2 (sdss5-daily)."""

_PLATES, _FIELDS = ("PLATE", "MJD", "FIBERID"), ("FIELD", "MJD", "CATALOGID")
_COLUMNS = frozenset({*_PLATES, *_FIELDS, "RUN2D", "SPEC_FILE"})
_ROWS = 16_384  # a slice; 14 MB of specObj
_PLACES = {"run2d", "plate", "field", "mjd", "fiberid", "catalogid", "group", "name"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Where the rows of a summary lie in its file."""

    path: str
    "Its file."
    offset: int
    "Byte where its rows begin."
    rows: int
    "Number of spectra."
    dtype: np.dtype[np.void]
    "A row, with the columns that are wanted."


def template(layout: str) -> str:
    """The format string of a layout, by name or as it is written.

    Raises
    ------
    ValueError
        When it is neither.
    """
    found = LAYOUTS.get(layout, layout)
    try:
        places = {place for _, place, _, _ in string.Formatter().parse(found) if place is not None}
    except ValueError as error:
        raise ValueError(f"layout {layout!r}: {error}") from error
    if not places or not places <= _PLACES:
        raise ValueError(
            f"layout {layout!r} is none of {[*LAYOUTS]}, and no path with some of "
            f"{sorted(_PLACES)} in braces, such as {LAYOUTS['lite']!r}"
        )
    return found


def paths(
    path: str, root: str, layout: str, *, primary: bool = False, classes: tuple[str, ...] = ()
) -> Iterator[str]:
    """Paths below root of the files of a table's rows, in the order of the table.

    Nothing is asked of the files: one that is not there is for its reader to tell.

    Raises
    ------
    FileNotFoundError
        When there is no such table, or no row of it is chosen.
    ValueError
        When the table is packed, no FITS table, or lacks a column.
    """
    asked = ("SPECPRIMARY",) * primary + ("CLASS",) * bool(classes)
    table = _open(path, asked)
    form, empty = template(layout), True
    for rows in _slices(table, primary, classes):
        for stated in _stated(rows, form):
            empty = False
            yield os.path.join(root, stated)  # noqa: PTH118 - five million of them
    if empty:
        raise FileNotFoundError(
            f"{path}: none of its {table.rows} rows is chosen; check survey.options primary "
            "and classes"
        )


def _open(path: str, asked: tuple[str, ...]) -> Table:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such table; set survey.options summary to its path")
    with Path(path).open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(
                f"{path} is packed, and cannot be read in slices; gunzip it, and set "
                "survey.options summary to the unpacked table"
            )
    try:
        hdu = next(hdu for hdu in fits_scan.scan(path) if hdu.kind == "BINTABLE")
        fields = int(hdu.value("TFIELDS") or 0)
        _, dtype = fits.layout(hdu.header[640:], fields, hdu.shape[-1], _COLUMNS.union(asked))
    except StopIteration:
        raise ValueError(f"{path}: has no table; expected one such as specObj or spAll") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; fetch it again, or walk the folder") from error
    there = dtype.names or ()
    needed = ("RUN2D", *asked, *(_FIELDS if "CATALOGID" in there else _PLATES))
    if missing := [name for name in needed if name not in there]:
        raise ValueError(f"{path}: has no column {', '.join(missing)}; expected specObj or spAll")
    return Table(path=path, offset=hdu.offset, rows=hdu.shape[0], dtype=dtype)


def _slices(table: Table, primary: bool, classes: tuple[str, ...]) -> Iterator[fits.Rows]:
    """Chosen rows of a table, slice by slice."""
    wanted = np.array([name.encode() for name in classes], dtype="S32")
    with Path(table.path).open("rb") as file:
        file.seek(table.offset)
        for first in range(0, table.rows, _ROWS):
            size = min(_ROWS, table.rows - first) * table.dtype.itemsize
            rows = np.frombuffer(file.read(size), dtype=table.dtype)
            if primary:
                rows = rows[rows["SPECPRIMARY"] > 0]
            if classes:
                rows = rows[np.isin(np.char.strip(rows["CLASS"]), wanted)]
            yield rows


def _stated(rows: fits.Rows, form: str) -> Iterator[str]:
    """Paths that a table's rows state."""
    known = rows.dtype.names or ()

    def texts(name: str) -> list[str]:
        if name not in known:
            return [""] * len(rows)
        return [text.decode("ascii", "replace").strip() for text in rows[name].astype("S").tolist()]

    fifth = "CATALOGID" in known
    numbers = [rows[name].tolist() for name in (_FIELDS if fifth else _PLATES)]
    for a, mjd, b, run2d, file in zip(*numbers, texts("RUN2D"), texts("SPEC_FILE"), strict=True):
        # SDSS-V's own name says how many zeros lead the number.
        name = file or f"spec-{observation5(a, mjd, b) if fifth else observation(a, mjd, b)}.fits"
        yield form.format(
            run2d=run2d,
            plate=a,
            field=a,
            mjd=mjd,
            fiberid=b,
            catalogid=b,
            name=name,
            group=f"{a // 1000:03d}XXX",
        )
