"""One spectrum with a Gaussian line, written in the many ways in which surveys write theirs."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from storage.grid import Grid, vacuum_to_air
from storage.readers import table
from storage.readers.table import Table as Reader

LINE, SIGMA, FLUX, CONTINUUM = 6000.0, 8.0, 300.0, 2.0
"Vacuum A of the line's centre, its width in A, flux in 1e-17 erg/s/cm2, level beneath it."
GRID = Grid(kind="linear", start=5800, step=1.0, size=401)
HOUSE = 1e-17 * u.erg / u.s / u.cm**2 / u.AA
SAID: dict[str, Any] = {"SPECSYS": "HELIOCEN", "VACUUM": True}
PLACE: dict[str, Any] = {"RA": 150.0, "DEC": 2.0, "Z": 0.1}


def density(wavelength: Any) -> Any:
    """Flux density (house unit) at vacuum A."""
    line = np.exp(-(((wavelength - LINE) / SIGMA) ** 2) / 2) / SIGMA / np.sqrt(2 * np.pi)
    return CONTINUUM + FLUX * line


def axis(medium: str = "vacuum", log: bool = False) -> Any:
    """Pixels of 0.7 A or so, even in the medium: (L,), and vacuum A of each."""
    even = np.arange(5700.0, 6300.0, 0.7)
    even = 10 ** np.linspace(np.log10(5700), np.log10(6300), 900) if log else even
    vacuum = even
    for _ in range(3 if medium == "air" else 0):
        vacuum = vacuum + even - vacuum_to_air(vacuum)
    return even, vacuum


def write_table(path: Path, columns: dict[str, Any], **cards: Any) -> Path:
    """A table of columns with keywords: FITS, ECSV or Parquet, as the suffix says."""
    made = Table(columns, meta={**PLACE, **SAID, **cards})
    made.meta = {key: value for key, value in made.meta.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    form = {".fits": "fits", ".ecsv": "ascii.ecsv"}[path.suffix]
    made.write(path, format=form, overwrite=True)
    return path


def columns(**more: Any) -> dict[str, Any]:
    """Columns of the line in house units; None leaves one out."""
    wave, vacuum = axis()
    found = {
        "wavelength": wave * u.AA,
        "flux": density(vacuum) * HOUSE,
        "ivar": np.full(wave.size, 4.0) / HOUSE**2,
        **more,
    }
    return {name: values for name, values in found.items() if values is not None}


def write_image(path: Path, data: Any, *extensions: Any, **cards: Any) -> Path:
    """An image with keywords, and extensions (name, data)."""
    header = fits.Header({k: v for k, v in {**PLACE, **SAID, **cards}.items() if v is not None})
    hdus = [fits.PrimaryHDU(np.asarray(data, dtype="f4"), header=header)]
    hdus += [fits.ImageHDU(np.asarray(array), name=name) for name, array in extensions]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def reader(**options: Any) -> Reader:
    """The reader, on the grid of the tests."""
    return table.build(**{"grid": GRID, **options})


def read(root: Path, **options: Any) -> Any:
    """All rows below a folder."""
    import xarray as xr

    made = reader(**options)
    parts = [made.read(source, str(root), "table") for source in made.find(str(root), "table")]
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")


def centre(ds: Any, row: int = 0) -> float:
    """Centroid of the line, A."""
    line = ds["flux"].to_numpy()[row].astype("f8") - CONTINUUM
    return float((line * GRID.wavelength).sum() / line.sum())


def total(ds: Any, row: int = 0) -> float:
    """Flux of the line, 1e-17 erg/s/cm2."""
    line = ds["flux"].to_numpy()[row].astype("f8") - CONTINUUM
    return float((line * GRID.widths).sum())
