"""BOSZ model spectra: the grid of 2017 (FITS or text) and that of 2024 (text), from a folder.

2017 (Bohlin et al.): ``amm03cp00op00t3500g45v20modrt0b50000rs.fits``, or ``.asc.bz2`` with columns
wavelength, flux, continuum. 2024 (Meszaros et al.): columns flux, continuum in
``bosz2024_mp_t5000_g+4.5_m+0.00_a+0.00_c+0.00_v2_r10000_resam.txt.gz``, and wavelengths of all in
``bosz2024_wave_r10000.txt``.
Wavelengths are A in vacuum, flux per A. Models with another carbon abundance are passed over.
"""

import bz2
import gzip
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float
from storage.simulation.stellar_files import Library, Parameters, folder, opened

_OLD = re.compile(
    r"am(?P<feh>[mp]\d\d)c(?P<c>[mp]\d\d)o(?P<alpha>[mp]\d\d)t(?P<teff>\d+)g(?P<logg>\d\d)"
    r"v\d+modrt\d+b\d+rs\.(fits|asc|asc\.bz2)"
)
_NEW = re.compile(
    r"bosz2024_[a-z]+_t(?P<teff>\d+)_g(?P<logg>[+-][\d.]+)_m(?P<feh>[+-][\d.]+)"
    r"_a(?P<alpha>[+-][\d.]+)_c(?P<c>[+-][\d.]+)_v\d+_r(?P<r>\d+)_resam\.txt(\.gz)?"
)
_LONGEST = 5e7


def bosz(path: str) -> Library:
    """The BOSZ models in a folder and below it.

    Raises
    ------
    ValueError
        When there is no such folder, no model in it, or two files of one model.
    """
    return Library("bosz", _models(folder(path, "BOSZ")), path, read)


def _models(root: Path) -> Iterator[tuple[Parameters, Path]]:
    for path in sorted(root.rglob("*")):
        old, new = _OLD.fullmatch(path.name), _NEW.fullmatch(path.name)
        if old:
            quarters = {k: _quarter(old[k]) for k in ("feh", "c", "alpha")}
            if quarters["c"] == 0:
                logg = int(old["logg"]) / 10
                yield (float(old["teff"]), logg, quarters["feh"], quarters["alpha"]), path
        elif new and float(new["c"]) == 0:
            one = tuple(float(new[k]) + 0.0 for k in ("teff", "logg", "feh", "alpha"))
            yield one, path  # type: ignore[misc]  # four of them


def _quarter(code: str) -> float:
    """Dex from ``m03`` or ``p08``: quarters, whose second decimal is rounded away."""
    size = round(int(code[1:]) / 10 * 4) / 4
    return -size if code[0] == "m" and size else size


def read(path: Path) -> tuple[Float, Float]:
    """Wavelength (vacuum A) and flux of one model.

    Raises
    ------
    ValueError
        When the file is truncated, has other columns or another unit.
    """
    if path.name.endswith(".fits"):
        return _table(path)
    columns = _columns(path)
    new = _NEW.fullmatch(path.name)
    if new is None:
        _expect(path, columns, 3)
        return _in_angstrom(path, columns[:, 0]), columns[:, 1]
    _expect(path, columns, 2)
    return _wave(path, new["r"]), columns[:, 0]


def _table(path: Path) -> tuple[Float, Float]:
    hdus = opened(path)
    names = getattr(hdus[1][0], "names", ()) if len(hdus) > 1 else ()
    if len(names) < 2:
        raise ValueError(f"{path}: no table of wavelength and flux; fetch the file again")
    data, header = hdus[1]
    wavelength, flux = (np.array(data.field(k), np.float64) for k in (0, 1))
    unit = str(header.get("TUNIT1", "ANGSTROM")).strip().upper()
    if not unit.startswith("ANGSTROM"):
        raise ValueError(f"{path}: wavelength is in {unit}, expected Angstrom as BOSZ has it")
    return _in_angstrom(path, wavelength), flux


def _columns(path: Path) -> NDArray[np.float64]:
    """Numbers of a text file, (rows, columns)."""
    openers = {".gz": gzip.open, ".bz2": bz2.open}
    try:
        with openers.get(path.suffix, open)(path, "rt") as file:  # type: ignore[operator]
            lines = file.read().split("\n")
        if lines[-1].strip():
            raise ValueError("its last line has no end")
        return np.loadtxt(lines, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: truncated, or no table ({error}); fetch it again") from error


def _expect(path: Path, columns: NDArray[np.float64], count: int) -> None:
    if columns.shape[1] != count:
        raise ValueError(
            f"{path}: {columns.shape[1]} columns, expected {count} as BOSZ has them in this format"
        )


def _wave(path: Path, resolution: str) -> Float:
    name = f"bosz2024_wave_r{resolution}.txt"
    # Beside the model, or above it: the archive's folders are r10000/m+0.00/.
    for place in (path.parent, *path.parents[1:4]):
        if (place / name).is_file():
            return _wave_file(place / name)
    raise ValueError(f"{path}: {name}, which has its wavelengths, is not beside it or above it")


@lru_cache(maxsize=4)
def _wave_file(path: Path) -> Float:
    columns = _columns(path)
    _expect(path, columns, 1)
    return _in_angstrom(path, columns[:, 0])


def _in_angstrom(path: Path, wavelength: Float) -> Float:
    # 2017 goes to 32 um, 2024 from 50 nm to 32 um: in um or nm all of it would lie below these.
    if not 400.0 < wavelength[0] < wavelength[-1] < _LONGEST:
        raise ValueError(
            f"{path}: wavelengths {wavelength[0]:g} to {wavelength[-1]:g}; expected A, above 400"
        )
    return wavelength
