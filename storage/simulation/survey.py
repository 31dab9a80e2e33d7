"""What a mock survey says of objects beside their pixels: names, positions, S/N, its shape."""

import hashlib
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import schema
from storage.grid import Float, Grid
from storage.mock import generator
from storage.simulation.instrument import G_BAND, R_BAND, within

Single = NDArray[np.float32]

FIBRES = 640
"Spectra on a plate."


def positions(seed: int, stream: str, rows: NDArray[np.intp]) -> dict[str, Float]:
    """Right ascension and declination: a sequence that keeps its points apart."""
    start = generator(seed, f"sky:{stream}").random(2)
    # The plane's golden ratio: uniform on the sky, and no two of a million within 10 arcsec.
    plastic = 1.32471795724474602596
    u, v = ((start + (rows[:, None] + 1.0) / np.array([plastic, plastic**2])) % 1.0).T
    return {"ra": 130.0 + 110.0 * u, "dec": np.degrees(np.arcsin(v * np.sin(np.radians(60.0))))}


def identity(n: int, seed: int, stream: str) -> dict[str, NDArray[Any]]:
    """Plate, date and fibre: another stream is another night.

    Raises
    ------
    ValueError
        When there are more rows than plates.
    """
    digest = hashlib.blake2b(f"{seed}:{stream}".encode(), digest_size=8).digest()
    plate = 1000 + int.from_bytes(digest[:4], "big") % 5000 + np.arange(n) // FIBRES
    if n and plate[-1] > 9999:
        raise ValueError(f"{n} spectra need plate {plate[-1]}, and plates have 4 digits; take less")
    mjd = 52000 + int.from_bytes(digest[4:], "big") % 5000 + np.arange(n) // FIBRES
    fibre = 1 + np.arange(n) % FIBRES
    names = [f"{p:04d}-{m:05d}-{f:04d}" for p, m, f in zip(plate, mjd, fibre, strict=True)]
    return {"observation": np.array(names, np.dtypes.StringDType()), "mjd": mjd.astype(np.float64)}


def measured_snr(flux: Single, ivar: Single, grid: Grid) -> dict[str, Float]:
    """S/N per good pixel as the catalogue states it, (N,) each; NaN where there is no pixel."""
    each, good = flux * np.sqrt(ivar), ivar > 0
    found = {"snr": _median(each, good)}
    for name, band in (("snr_g", G_BAND), ("snr_r", R_BAND)):
        inside = within(grid.wavelength, band)
        count = good[:, inside].sum(axis=1)
        total = each[:, inside].sum(axis=1, dtype=np.float64)
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _median(values: Single, good: NDArray[np.bool_]) -> Float:
    # A sort of single precision is five times as fast as nanmedian's rows one by one.
    ascending = np.sort(np.where(good, values, np.float32(np.inf)), axis=1)
    count = good.sum(axis=1)
    middle = np.stack([np.maximum(count - 1, 0) // 2, np.minimum(count // 2, good.shape[1] - 1)], 1)
    low, high = np.take_along_axis(ascending, middle, axis=1).T
    return np.where(count > 0, (low + high) / 2, np.nan)


def assemble(n: int, grid: Grid, values: dict[str, Any]) -> xr.Dataset:
    """A survey of n rows with these variables; one value stands for all rows."""
    rest = {k: f for k, f in schema.SPECTRA.items() if k not in schema.PIXELS}
    ds = schema.blank(n, grid, rest)
    for name, value in values.items():
        field = schema.SPECTRA[name]
        full = np.asarray(value, dtype=schema.dtype(field))
        if not full.ndim:
            full = np.full(n, full)
        ds[name] = (field.dims, full, schema.attrs(field))
    return ds
