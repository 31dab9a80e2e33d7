"""A mock SDSS file, its row, and the row after a change: what the tests of the reader share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from storage import schema
from storage.reader import Source
from storage.readers import sdss
from storage.schema import Reason, Status

SDSS = sdss.build()

GRID = sdss.GRID
EDGES = slice(300, 4100)
PIXELS = ("flux", "ivar", "mask", "model", "lsf")


def mock(n: int = 1, seed: int = 1) -> xr.Dataset:
    """Noisy spectra on pixels 300-4100 of the grid, with a gap that is masked."""
    rng = np.random.default_rng(seed)
    ds = schema.blank(n, GRID)
    good = np.zeros((n, GRID.size), dtype=bool)
    good[:, EDGES] = True
    good[:, 1000:1010] = False
    inside = np.zeros_like(good)
    inside[:, EDGES] = True
    ds["ivar"][:] = np.where(good, rng.uniform(1, 4, good.shape), 0)
    ds["flux"][:] = np.where(good, rng.normal(10, 1, good.shape), 0)
    ds["model"][:] = np.where(inside, rng.normal(10, 1, good.shape), 0)
    ds["mask"][:] = np.where(inside & ~good, 1 << 24, 0) | np.where(inside, 1 << 31, 0)
    ds["lsf"][:] = np.where(inside, rng.uniform(0.8, 1.5, good.shape), 0)
    ds["ra"][:], ds["dec"][:] = rng.uniform(0, 360, n), rng.uniform(-90, 90, n)
    ds["z"][:] = rng.uniform(0.01, 0.3, n).astype("f4")
    ds["z_err"][:], ds["zwarn"][:], ds["vdisp"][:] = 1e-5, 4, 123.5
    ds["ebv"][:], ds["ebv_known"][:] = rng.uniform(0.01, 0.1, n), 1
    ds["class"][:], ds["subclass"][:], ds["survey"][:] = "GALAXY", "STARFORMING", "mock"
    ds["target_id"][:] = "1237650795146576091"
    ds["observation"][:] = [f"{266 + row // 640:04d}-51602-{row % 640 + 1:04d}" for row in range(n)]
    ds["mjd"][:], ds["status"][:] = 51602, Status.DONE
    return schema.check(ds)


def load(root: Path) -> xr.Dataset:
    parts = [SDSS.read(source, str(root), "sdss") for source in SDSS.find(str(root), "sdss")]
    return schema.check(xr.concat(parts, "spectrum", data_vars="minimal", join="exact"))


def one(path: Path) -> xr.Dataset:
    ds = SDSS.read(Source(files=(str(path),), rows=1), str(path.parent), "sdss")
    return schema.check(ds).isel(spectrum=0)


def edit(path: Path, change: Callable[[fits.HDUList], None]) -> xr.Dataset:
    """The row of a file after a change made with astropy."""
    with fits.open(path, memmap=False) as hdus:
        change(hdus)
        content = hdus
        content.writeto(path, overwrite=True)
    return one(path)


def refused(row: xr.Dataset, code: Reason, words: str) -> None:
    assert row["status"] == Status.QUARANTINED
    assert row["reason_code"] == code, row["reason"].item()
    assert words in row["reason"].item()
    assert "spec-0266-51602-0001.fits" in row["reason"].item()
    assert row["observation"] == "0266-51602-0001"
    assert row["digest"] != ""
    assert not row["flux"].any()
    assert not row["ivar"].any()
    assert np.isnan(row["z"])
    assert np.isnan(row["ra"])
