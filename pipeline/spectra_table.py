"""Spectra as a FITS binary table: one row a spectrum, its pixels in vector columns.

It is written some rows at a time, through astropy's StreamingHDU: memory does not grow with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy import units
from astropy.io import fits

STEP_ROWS = 1024
"Rows that are held at a time."
_CODES = {"i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "u1": "B"}
# FITS has no unsigned numbers but bytes: they are stored less half their range.
_UNSIGNED = {"u2": "i2", "u4": "i4", "u8": "i8"}


def write(
    ds: xr.Dataset,
    names: Sequence[str],
    path: str | Path,
    about: Mapping[str, str],
    *,
    spectra: bool = False,
) -> None:
    """Write columns, and the pixel arrays where wanted, as extension SPECTRA of a new file.

    With the spectra comes an extension WAVELENGTH: vacuum A of the pixels, once for all rows.

    Parameters
    ----------
    about : mapping
        Header cards: name to text.
    """
    axes = ("spectrum", "wavelength")
    pixels = [str(n) for n, v in ds.data_vars.items() if v.dims == axes] if spectra else []
    chosen = ds[[*names, *pixels]]
    first = fits.PrimaryHDU()
    first.writeto(path, overwrite=True)
    plans = {name: _plan(chosen[name]) for name in [*names, *pixels]}
    stream = fits.StreamingHDU(str(path), _header(plans, ds.sizes["spectrum"], about))
    try:
        row = np.dtype([(name, plan["dtype"], plan["shape"]) for name, plan in plans.items()])
        for part in _parts(chosen):
            table = np.empty(part.sizes["spectrum"], row)
            for name in plans:
                table[name] = _coded(part[name].to_numpy(), plans[name]["dtype"])
            if len(table):
                stream.write(table.view("u1"))
    finally:
        stream.close()
    if pixels:
        unit = ds["wavelength"].attrs.get("units", "Angstrom")
        column = fits.Column("wavelength", "D", unit=unit, array=ds["wavelength"].to_numpy())
        fits.append(str(path), *_table(column))


def _table(column: fits.Column) -> tuple[Any, fits.Header]:
    made = fits.BinTableHDU.from_columns([column], name="WAVELENGTH")
    return made.data, made.header


def _parts(ds: xr.Dataset) -> Iterator[xr.Dataset]:
    for first in range(0, ds.sizes["spectrum"], STEP_ROWS):
        yield ds.isel(spectrum=slice(first, first + STEP_ROWS)).compute()


def _plan(column: xr.DataArray) -> dict[str, Any]:
    """How a variable is stored: its dtype on the disk, its shape in a row, its column."""
    shape, width = column.shape[1:], int(np.prod(column.shape[1:], dtype=int))
    kind = column.dtype.kind
    code, zero = column.dtype.str[1:], None
    if kind in "TOU":
        longest = max((_longest(part) for part in _parts(column.to_dataset(name="x"))), default=1)
        stored, form = np.dtype(f"S{longest}"), f"{longest}A"
    elif kind == "b":
        stored, form = np.dtype("S1"), f"{width if column.ndim > 1 else ''}L"
    else:
        if code in _UNSIGNED:
            zero = 1 << (8 * column.dtype.itemsize - 1)
        code = {"f2": "f4", "i1": "i2"}.get(code, _UNSIGNED.get(code, code))
        stored = np.dtype(f">{code}")
        form = f"{width if column.ndim > 1 else ''}{_CODES[code]}"
    unit = column.attrs.get("units", "1")
    made = fits.Column(str(column.name), form, unit=_unit(unit), bzero=zero)
    return {"dtype": stored, "shape": shape, "column": made}


def _longest(part: xr.Dataset) -> int:
    text = part["x"].to_numpy().astype(np.dtypes.StringDType())
    return max(1, int(np.strings.str_len(text).max(initial=1)))


def _unit(text: str) -> str | None:
    """A unit as FITS spells it: 10**-17 for 1e-17."""
    if text == "1":
        return None
    try:
        return str(units.Unit(text).to_string("fits"))
    except ValueError:
        # FITS has no dex: the word itself still tells the reader.
        return text


def _header(plans: Mapping[str, Any], rows: int, about: Mapping[str, str]) -> fits.Header:
    columns = fits.ColDefs([plan["column"] for plan in plans.values()])
    header: fits.Header = fits.BinTableHDU.from_columns(columns, nrows=0, name="SPECTRA").header
    header["NAXIS2"] = rows
    for key, value in about.items():
        header[key.upper()[:8]] = value
    return header


def _coded(values: np.ndarray, stored: np.dtype[Any]) -> np.ndarray:
    """Values as they are on the disk."""
    if values.dtype.kind == "b":
        return np.where(values, b"T", b"F")
    if stored.kind == "S":
        text = values.astype(f"U{stored.itemsize}")
        return np.asarray(np.strings.encode(text, "ascii", "replace"))
    if values.dtype.kind == "u" and stored.kind == "i":
        half = values.dtype.type(1 << (8 * values.dtype.itemsize - 1))
        return np.asarray((values ^ half).view(stored.newbyteorder("=")))
    return values
