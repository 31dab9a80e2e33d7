"""A small survey in real SDSS files, what can go wrong with a file, and a simulator that is cheap.

`mock = "tests.pipeline.surveys"` on a mock card takes the simulator: any module with a build().
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from pipeline.card import Card
from storage import schema
from storage.grid import Grid
from storage.mock import Mock, generator
from storage.readers import sdss
from storage.schema import Status
from storage.store import Survey

SDSS = sdss.build()

FILES, REPEATS = 30, 6
GROUP, CHUNK = "spectra/sdss", 8
"Of the store, and its rows in a chunk where a test wants several blocks."
ROWS = FILES + REPEATS
GRID = sdss.GRID
_COVERED = slice(300, 4100)
_PLATES = {"first": 2000, "second": 1000}
"The second exposures come first in the order of the paths, and last in that of the truth."


class Sparse:
    """Flat spectra of unit noise; row i stands at its own place, with its own level."""

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        # Row by row: the same row for every n.
        level, z, ra, dec = generator(seed, stream).random((n, 4)).T
        flux = np.broadcast_to(5 + 45 * level[:, None], (n, grid.size)).astype("f4")
        columns = {"z": 0.02 + 0.18 * z, "ra": 360 * ra, "dec": 120 * dec - 60}
        return xr.Dataset(
            {
                "flux": (schema.PIXELS["flux"].dims, flux, schema.attrs(schema.PIXELS["flux"])),
                **{
                    name: ("spectrum", values, schema.attrs(schema.COLUMNS[name]))
                    for name, values in columns.items()
                },
            },
            coords={"wavelength": schema.wavelength(grid)},
        )

    def observe(
        self,
        truth: xr.Dataset,
        grid: Grid,
        seed: int,
        stream: str,
        snr_g: tuple[float, float] | None = None,
    ) -> xr.Dataset:
        n, flux = truth.sizes["spectrum"], truth["flux"].to_numpy()
        _, step, exposure = stream.split("-")
        ds = schema.blank(n, grid)
        noise = generator(seed, stream).standard_normal(flux.shape, dtype="f4")
        ds["flux"][:, _COVERED] = (flux + noise)[:, _COVERED]
        ds["model"][:, _COVERED] = flux[:, _COVERED]
        ds["ivar"][:, _COVERED] = 1
        ds["lsf"][:, _COVERED] = 1
        for name in ("z", "ra", "dec"):
            ds[name][:] = truth[name].to_numpy()
        plate = _PLATES[exposure] + int(step)
        ds["observation"][:] = [f"{plate:04d}-{plate + 50_000}-{row + 1:04d}" for row in range(n)]
        ds["mjd"][:], ds["status"][:] = plate + 50_000, Status.DONE
        ds["z_err"][:], ds["zwarn"][:], ds["ebv"][:], ds["ebv_known"][:] = 1e-5, 0, 0.05, 1
        ds["class"][:], ds["survey"][:], ds["vdisp"][:] = "GALAXY", "mock", 150
        return schema.check(ds)


def build() -> Mock:
    return Sparse()


def write(root: Path, n: int = FILES, repeats: int = 0) -> list[Path]:
    """Files of n objects, some observed again on another date; in the order of their paths."""
    truth = Sparse().truth(n, GRID, 1, "survey-0")
    for exposure, rows in (("first", n), ("second", repeats)):
        part = truth.isel(spectrum=slice(rows))
        SDSS.write(Sparse().observe(part, GRID, 1, f"survey-0-{exposure}"), str(root), "sdss")
    return paths(root)


def paths(root: Path) -> list[Path]:
    """The files as the reader finds them."""
    return [Path(file) for source in SDSS.find(str(root), "sdss") for file in source.files]


def card(folder: Path, **more: object) -> Card:
    """A card of the files in folder/files, with a store and a run beside them."""
    tables = {"run": {"dir": str(folder / "run")}, **more}
    return Card.model_validate({"survey": {"root": str(folder / "files")}, **tables})


def mock_card(folder: Path, *, n: int = FILES, seed: int = 1, commit_blocks: int = 64) -> Card:
    """A card that simulates its survey with `Sparse`."""
    about = folder / "sparse.toml"
    about.write_text('mock = "tests.pipeline.surveys"\n')
    return card(
        folder,
        run={"dir": str(folder / "run"), "commit_blocks": commit_blocks, "seed": seed},
        simulate={"mock": str(about), "n": n, "repeats": REPEATS / FILES},
    )


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20_000])


def drop_catalog(file: Path) -> None:
    _edit(file, lambda hdus: hdus.pop(2))


def put(hdu: int, column: str, value: float) -> Callable[[Path], None]:
    """Damage that gives a whole column one value."""

    def damage(file: Path) -> None:
        _edit(file, lambda hdus: hdus[hdu].data[column].fill(value))

    return damage


def _edit(file: Path, change: Callable[[fits.HDUList], object]) -> None:
    with fits.open(file, memmap=False) as hdus:
        change(hdus)
        hdus.writeto(file, overwrite=True)


def spectra(card: Card) -> xr.Dataset:
    """The spectra in the store of a card."""
    return Survey.open(card.store).dataset(GROUP).load()


def row_of(ds: xr.Dataset, file: Path, root: Path) -> xr.Dataset:
    """The row that a file became."""
    (row,) = np.flatnonzero(ds["source"].to_numpy() == str(file.relative_to(root)))
    return ds.isel(spectrum=row)
