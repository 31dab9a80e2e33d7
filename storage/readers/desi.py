"""DESI: `coadd-*.fits` and `spectra-*.fits` of many targets, with `redrock-*.fits` beside them.

Files of many GB are read by rows; nothing is resampled, the arms lie on the grid already. Redshifts
are matched by TARGETID. Fibre trouble is not cut here: `fiberstatus == 0` is what DESI users keep.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from storage import border, fits_scan, fits_unpack, fits_whole, schema
from storage.border import RefusedError
from storage.desi import arms as desi_arms
from storage.desi import columns
from storage.desi import format as desi_format
from storage.fits import FitsError
from storage.fits_whole import Whole
from storage.grid import Grid
from storage.reader import Format, Source
from storage.schema import Field, Reason
from storage.walk import walk

GRID = Grid(kind="linear", start=3600, step=0.8, size=7781)
DIAGONALS = 11
"Of the resolution matrix that DESI gives."

_ONE = (
    r"(?:(?P<tile>[0-9]+-[0-9]+-(?P<night>[0-9A-Za-z]+))|(?P<pixel>[a-z][a-z0-9]*-[a-z0-9]+-[0-9]+))"
    r"\.fits(?:\.gz)?"
)
_NAMES = {"desi": re.compile(f"coadd-{_ONE}"), "desi-exposure": re.compile(f"spectra-{_ONE}")}
_SOURCE = 256 << 20  # bytes, decoded
_BYTES = 18  # a pixel, of all variables of the schema
_DEFLATED = 1032  # bytes that one of gzip can stand for, at most


class Desi(Format):
    """Coadds, or single exposures, of tiles or of healpix pixels.

    Without redrock's file, or its row, a spectrum enters without a redshift: z is NaN and zwarn
    `storage.border.NO_REDSHIFT`. A fibre of OBJTYPE BAD is quarantined. A camera that a file
    lacks altogether is no fault: its pixels have no data.

    `desi` has one row a target and coadd; the same target in another tile or programme is another
    row of the same object. `desi-exposure` has one row an exposure, each with noise of its own.
    """

    grouping: Literal["auto", "tile", "healpix"] = "auto"
    "Healpix coadds contain the exposures of the tiles' coadds: below a root, one kind is read."
    resolution: Literal["sigma", "diagonals"] = "sigma"
    "With diagonals the rows have the resolution matrix, too; 342 kB a spectrum."

    @property
    def identity(self) -> Literal["target_id"]:
        """TARGETID is one target in all programmes."""
        return "target_id"

    @property
    def configs(self) -> dict[str, Grid]:
        """Coadds, and exposures."""
        return {"desi": GRID, "desi-exposure": GRID}

    @property
    def fields(self) -> dict[str, Field]:
        """Fibre status, and the resolution matrix when it is asked for."""
        found = {
            "fiberstatus": Field(
                dtype="i4",
                units="1",
                description="bits of fibre trouble (COADD_FIBERSTATUS)",
            )
        }
        if self.resolution == "diagonals":
            found["resolution"] = Field(
                dtype="f4",
                units="1",
                dims=("spectrum", "diagonal", "wavelength"),
                description="resolution matrix as in scipy.sparse.dia_matrix, offsets 5, 4 ... -5",
            )
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Diagonals of the resolution matrix."""
        return {"diagonal": DIAGONALS} if self.resolution == "diagonals" else {}

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Rows of the files below root, in the order of paths; see `storage.reader.Reader`.

        All names are looked at before the first source is given.

        Raises
        ------
        ValueError
            When files of several kinds hold the same exposures.
        """
        pattern = _NAMES[self._known(config)]
        paths = self._grouped(root, [*walk(root, pattern)], pattern)
        each = GRID.size * (_BYTES + 4 * sum(self.sizes.values()))
        most = max(1, _SOURCE // each)
        for path in paths:
            rows = _rows(path)
            for start in range(0, rows, most):
                yield Source(files=(path,), rows=min(most, rows - start), start=start)

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source; see `storage.reader.Reader`.

        A row without a redshift has z NaN, and zwarn says so (`storage.border.NO_REDSHIFT`). A
        redrock file that is there and cannot be read refuses the rows: redshifts would be missing
        without a word.
        """
        grid = self.configs[self._known(config)]
        fields = {**schema.SPECTRA, **self.fields}
        ds = schema.template(source.rows, grid, fields, self.sizes).copy(deep=True)
        if len(source.files) == 1:
            rows = range(source.start, source.start + source.rows)
            self._read_file(ds, source.files[0], rows, root, config)
        else:
            for row, path in enumerate(source.files):
                # Slices are views: what is filled in stands in the whole.
                part = ds.isel(spectrum=slice(row, row + 1))
                self._read_file(part, path, range(1), root, config)
        return border.admit(ds, grid)

    def beside(self, path: str, root: str, config: str) -> tuple[str, ...]:
        """Redrock's file, where there is one."""
        found = _redrock(path)
        return (found,) if os.path.lexists(found) else ()

    def _read_file(self, ds: xr.Dataset, path: str, rows: range, root: str, config: str) -> None:
        """Fill in rows of a file, or refuse them all."""
        ds["source"][:], ds["source_row"][:] = os.path.relpath(path, root), rows
        try:
            found = fits_whole.whole(path)
            ds["digest"][:] = fits_whole.digest(found, self.beside(path, root, config))
            with np.errstate(all="ignore"):
                self._fill(ds, path, rows, config == "desi-exposure", found)
        except RefusedError as error:
            _refuse(ds, error.code, str(error))
        except FitsError as error:
            _refuse(ds, Reason.UNREADABLE, f"{error}; fetch the file again")
        except OSError as error:
            words = f"{error.strerror or error}; check the path and its rights"
            _refuse(ds, Reason.UNREADABLE, words)
        # Columns of another type or shape than the survey's.
        except (ValueError, TypeError, KeyError, IndexError, ArithmeticError) as error:
            _refuse(ds, Reason.UNREADABLE, f"not a DESI file: {error}; fetch the file again")

    def _known(self, config: str) -> str:
        if config not in self.configs:
            raise ValueError(
                f"config {config!r} is not of reader desi; expected one of {[*self.configs]}"
            )
        return config

    def _grouped(self, root: str, paths: list[str], pattern: re.Pattern[str]) -> list[str]:
        """Those of the paths that are read.

        Raises
        ------
        ValueError
            When they are of several kinds.
        FileNotFoundError
            When none is of the kind that is asked for.
        """
        kinds: dict[str, list[str]] = {}
        for path in paths:
            kinds.setdefault(_kind(path, pattern), []).append(path)
        if self.grouping != "auto":
            kinds = {kind: some for kind, some in kinds.items() if kind.startswith(self.grouping)}
        if not kinds:
            raise FileNotFoundError(
                f"{root}: no file of {self.grouping}s here or below; set survey.options.grouping "
                "to 'auto', or survey.root to their folder"
            )
        if len(kinds) > 1:
            raise ValueError(
                f"{root}: files of a {' and of a '.join(sorted(kinds))} "
                f"({', '.join(Path(some[0]).name for _, some in sorted(kinds.items()))}) hold the "
                "same exposures; set survey.options.grouping to 'tile' or 'healpix', or "
                "survey.root to a folder of one kind"
            )
        return next(iter(kinds.values()))

    def _fill(self, ds: xr.Dataset, path: str, rows: range, exposures: bool, found: Whole) -> None:
        plain = fits_unpack.plain(path)
        hdus = fits_scan.scan(plain.path)
        fits_scan.require_names(hdu.name for hdu in hdus)
        found.require()
        values = columns.fibermap(plain.path, hdus, rows, exposures)
        values |= columns.redshifts(_redrock(path), values["TARGETID"])
        for name, column in values.items():
            if name in ds:
                ds[name].to_numpy()[:] = column
        ds["survey"][:] = "desi"
        ds["observation"][:] = _observation(path, values)
        total = next(hdu.shape[0] for hdu in hdus if hdu.name == "FIBERMAP")
        arms = desi_arms.find(plain.path, hdus, GRID, total)
        diagonals = self.sizes.get("diagonal", 0)
        for start, block in desi_arms.join(plain.path, arms, rows, GRID, diagonals):
            for name, array in block.items():
                ds[name].to_numpy()[start : start + len(array)] = array
        for row in np.flatnonzero(values["OBJTYPE"] == "BAD"):
            words = "OBJTYPE is BAD, a fibre on no target; leave it out"
            border.refuse(ds, int(row), Reason.NO_DATA, words)

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write rows as healpix files of survey sv9, with redrock's; see `storage.desi.format`."""
        return desi_format.write(ds, root, self._known(config) == "desi-exposure", GRID)


def build(**options: Any) -> Desi:
    """The reader."""
    return Desi(**options)


def _kind(path: str, pattern: re.Pattern[str]) -> str:
    match = pattern.fullmatch(Path(path).name)
    assert match is not None, path
    if match["pixel"]:
        return "healpix pixel"
    if match["night"].startswith("thru"):
        return "tile through its nights"
    return "tile in one night" if match["night"].isdigit() else "tile in part"


def _rows(path: str) -> int:
    """Number of spectra of a file, by the first header that says so; 1 where none does."""
    try:
        packed = path.endswith(".gz")
        most = Path(path).stat().st_size * (_DEFLATED if packed else 1)
        with fits_unpack.open_file(path) as file:
            for hdu in fits_scan.headers(file):
                if hdu.name == "FIBERMAP" or hdu.name.endswith("_FLUX"):
                    true = hdu.size <= most and 8 * hdu.image[0] <= hdu.size
                    return hdu.image[0] if true else 1
    except (OSError, FitsError, IndexError):
        pass
    return 1


def _redrock(path: str) -> str:
    """Redrock's file beside a file, whether either is in gzip or not."""
    name = Path(path).name.removesuffix(".gz")
    beside = Path(path).with_name("redrock-" + name.partition("-")[2])
    packed = beside.with_name(f"{beside.name}.gz")
    return str(packed if os.path.lexists(packed) and not os.path.lexists(beside) else beside)


def _observation(path: str, values: dict[str, Any]) -> Any:
    """Names of spectra: of an exposure its number, fibre and target; of a coadd file and target.

    Mocks bring their own: truth is matched by it.
    """
    text = np.dtypes.StringDType()
    if "EXPID" in values:
        exposure = np.strings.zfill(values["EXPID"].astype(text), 8)
        fiber = np.strings.zfill(values["FIBER"].astype(text), 4)
        names = exposure + "-" + fiber + "-" + values["target_id"]
    else:
        stem = Path(path).name.partition("-")[2].partition(".")[0]
        names = np.strings.add(f"{stem}-", values["target_id"])
    own = values.get("OBSERVATION", names)
    return np.where(own == "", names, own)


def _refuse(ds: xr.Dataset, code: Reason, words: str) -> None:
    for row in range(ds.sizes["spectrum"]):
        border.refuse(ds, row, code, words)
