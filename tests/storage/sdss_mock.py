"""A mock SDSS file, its row, and the row after a change: what the tests of the reader share."""

import shutil
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
LINE = 800.0  # flux of the exposures' line at 6000 A


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


def load(root: Path, config: str = "sdss", **options: object) -> xr.Dataset:
    reader = sdss.build(**options)
    parts = [reader.read(source, str(root), config) for source in reader.find(str(root), config)]
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


FIFTH = "spec-015143-59205-04544940698.fits"


def fifth(folder: Path, name: str = FIFTH, **changed: object) -> Path:
    """A file as SDSS-V publishes it: COADD, SPALL, checksums; `changed` columns of SPALL."""
    (written,) = SDSS.write(mock(), str(folder / "draft"), "sdss")
    row = {
        **{"FIELD": 15143, "MJD": 59205, "CATALOGID": 4544940698, "SDSS_ID": 54398204},
        **{"SURVEY": "BHM", "OBJTYPE": "science", "CLASS": "QSO", "SUBCLASS": "BROADLINE"},
        **{"RACAT": 213.5, "DECCAT": 52.25, "PLUG_RA": np.nan, "PLUG_DEC": np.nan},
        **{"FIBER_RA": 213.6, "FIBER_DEC": 52.3, "Z": 1.5, "Z_ERR": 1e-4, "ZWARNING": 0},
        **{"VDISP": 0.0, "EBV": 0.02, **changed},
    }
    kinds = {int: "K", float: "D", str: "20A"}
    columns = [fits.Column(n, kinds[type(v)], array=[v]) for n, v in row.items() if v is not None]
    path = folder / name
    with fits.open(written, memmap=False) as hdus:
        made = [hdus[0], hdus[1], fits.BinTableHDU.from_columns(columns, name="SPALL")]
        fits.HDUList(made).writeto(path, checksum=True)
    shutil.rmtree(folder / "draft")
    return path


def cameras(path: Path, seeds: dict[str, int], **cards: float) -> None:
    """Add single exposures to a file: of each number a blue and a red one, of a line at 6000 A.

    Uneven pixels, the blue ones from red to blue, a continuum of 10 with noise of 0.5.
    """
    with fits.open(path, memmap=False) as hdus:
        for number, seed in seeds.items():
            for camera, first, last in (("B1", 3.58, 3.79), ("R1", 3.76, 3.96)):
                hdus.append(_camera(f"{camera}-{number}-00000009-00000010", first, last, seed))
                hdus[-1].header.update(cards)
        hdus.writeto(path, overwrite=True)


def _camera(name: str, first: float, last: float, seed: int) -> fits.BinTableHDU:
    rng = np.random.default_rng([seed, ord(name[0])])
    share = np.linspace(0, 1, 2000)
    loglam = first + (last - first) * (share + 0.05 * share * (1 - share))
    flux = 10 + LINE / np.sqrt(2 * np.pi) / 5 * np.exp(-0.5 * ((10**loglam - 6000) / 5) ** 2)
    values = {
        "flux": flux + rng.normal(0, 0.5, loglam.size),
        "loglam": loglam,
        "ivar": np.full(loglam.size, 4.0),
        "mask": np.zeros(loglam.size, dtype="i4"),
        "wdisp": np.full(loglam.size, 1.1),
    }
    order = slice(None, None, -1 if name.startswith("B") else 1)
    columns = [
        fits.Column(key, "J" if key == "mask" else "E", array=value[order])
        for key, value in values.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=name)
