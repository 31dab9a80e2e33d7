"""Spectra written as FITS tables with the default columns and keywords of the reader `table`."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from storage.fits_write import card, primary, table
from storage.schema import FLUX_UNIT, ObjectType

_COLUMNS = np.dtype([("wavelength", ">f8"), ("flux", ">f4"), ("ivar", ">f4"), ("mask", ">i4")])
_CARDS = {
    **{"RA": "ra", "DEC": "dec", "Z": "z", "Z_ERR": "z_err", "EBV": "ebv", "MJD": "mjd"},
    **{"VDISP": "vdisp", "CLASS": "class", "SUBCLASS": "subclass", "TARGETID": "target_id"},
    **{"OBS_ID": "observation", "SURVEY": "survey", "ZWARN": "zwarn"},
}


def write(ds: xr.Dataset, root: str) -> list[str]:
    """Write rows as `root/OBSERVATION.fits`, vacuum A and heliocentric; gives the paths."""
    names = [re.sub(r"[^\w.+-]", "_", str(name)) for name in ds["observation"].to_numpy()]
    if len(set(names)) < len(names) or "" in names:
        twice = next(name for name in names if names.count(name) > 1 or not name)
        raise ValueError(f"observation {twice!r} is there twice or empty; a file needs its name")
    columns = {name: ds[name].to_numpy() for name in (*_CARDS.values(), "object_type")}
    pixels = {name: ds[name].to_numpy() for name in ("flux", "ivar", "mask")}
    wavelength = ds["wavelength"].to_numpy()
    paths = []
    for row, name in enumerate(names):
        rows = np.zeros(len(wavelength), dtype=_COLUMNS)
        rows["wavelength"] = wavelength
        for key in ("flux", "ivar"):
            rows[key] = pixels[key][row]
        rows["mask"] = pixels["mask"][row].view("i4")
        header = _cards({key: column[row] for key, column in columns.items()})
        paths.append(_save(Path(root, f"{name}.fits"), primary(header) + _table(rows)))
    return paths


def _cards(values: dict[str, Any]) -> list[bytes]:
    found = [card("SPECSYS", "HELIOCEN"), card("VACUUM", True)]
    for key, name in _CARDS.items():
        value = values[name]
        if isinstance(value, str):
            found.append(card(key, value))
        elif np.isfinite(value):
            found.append(card(key, value.item()))
    return [*found, card("OBJ_TYPE", ObjectType(values["object_type"]).name)]


def _table(rows: np.ndarray[Any, np.dtype[np.void]]) -> bytes:
    """A table with the units of its columns, in place of the padding of its header."""
    content = table("SPECTRUM", rows)
    units = [card("TUNIT1", "Angstrom"), card("TUNIT2", FLUX_UNIT)]
    end = b"END".ljust(80)
    at = content.index(end)
    header = content[:at] + b"".join(units) + end
    return header.ljust(2880) + content[2880:]


def _save(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_bytes(content)
    whole.replace(path)
    return str(path)
