"""SDSS, BOSS and SDSS-V: files `spec-PLATE-MJD-FIBER` or `spec-FIELD-MJD-CATALOGID.fits`.

What stands in a file is trusted above its name. The first pixel is that of `loglam`: COEFF0 is
where the plate begins, and a file leaves out the pixels of its fibre that have no data. Files of
SDSS-V are read as their published data model has them (idlspec2d 6, DR18 and DR19).
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import model_validator

from storage import files, schema
from storage.border import RefusedError
from storage.grid import Grid
from storage.reader import Format, Source
from storage.schema import Reason, Status
from storage.sdss import coadd as sdss_coadd
from storage.sdss import exposures as sdss_exposures
from storage.sdss import format as sdss_format
from storage.sdss import names as sdss_names
from storage.sdss import summary as sdss_summary
from storage.sdss.coadd import DAMAGE, Values
from storage.walk import walk

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)
EXPOSURES = "sdss-exposure"

_FILES = 512  # a source; about 45 MB decoded

Row = tuple[int, Values, Values]


class Sdss(Format):
    """Spec files below a folder, found by walking it or through the table of a release."""

    summary: str = ""
    "Path of specObj, spAll or spAll-lite, absolute or below the root; empty: the root is walked."
    layout: str = "lite"
    "Where the table's files are, a name or a format string; see `storage.sdss.summary.LAYOUTS`."
    primary: bool = False
    "Whether only the table's rows with SPECPRIMARY are read."
    classes: tuple[str, ...] = ()
    "The table's CLASS of rows that are read, such as GALAXY; empty: all."

    @model_validator(mode="after")
    def _choose_from_a_table(self) -> Self:
        sdss_summary.template(self.layout)
        given = self.model_fields_set - {"summary"}
        if given and not self.summary:
            raise ValueError(f"{', '.join(sorted(given))}: of a table's rows; set summary, too")
        return self

    @property
    def identity(self) -> Literal["position"]:
        """BESTOBJID is often blank."""
        return "position"

    @property
    def configs(self) -> dict[str, Grid]:
        """Coadds as they are; single exposures, of full files, rebinned to the same grid."""
        return {"sdss": GRID, EXPOSURES: GRID}

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Sources of up to 512 files, in the order of their paths, or of the table.

        Exposures: one source a file, whose headers are read to count them.
        """
        self._require(config)
        paths = self._paths(root)
        if config == EXPOSURES:
            yield from self._find_exposures(paths, root)
            return
        while files := tuple(sorted(islice(paths, _FILES))):
            yield Source(files=files, rows=len(files))

    def _paths(self, root: str) -> Iterator[str]:
        if not self.summary:
            return walk(root, sdss_names.FILE)
        if not Path(root).is_dir():
            raise FileNotFoundError(f"{root}: no such folder; set survey.root to the files' folder")
        return sdss_summary.paths(
            str(Path(root, self.summary)),
            root,
            self.layout,
            primary=self.primary,
            classes=self.classes,
        )

    def _find_exposures(self, paths: Iterator[str], root: str) -> Iterator[Source]:
        number, empty = 0, True
        for path in paths:
            number += 1
            if rows := 1 if self._leads_out(path, root) else sdss_exposures.count(path):
                empty = False
                yield Source(files=(path,), rows=rows)
        if empty:
            raise FileNotFoundError(
                f"{root}: none of its {number} spec files has single exposures; they are in the "
                "full files of a release (spectra/full), not in the lite ones"
            )

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source; see `storage.reader.Reader`."""
        self._require(config)
        ds = schema.blank(source.rows, self.configs[config])
        columns = {name: ds[name].to_numpy() for name in schema.SPECTRA}
        with np.errstate(all="ignore"):
            for row, (first, pixels, values) in enumerate(self._rows(source, root, config)):
                for name, value in values.items():
                    columns[name][row] = value
                for name, array in pixels.items():
                    columns[name][row, first : first + len(array)] = array
        return schema.check(ds, source.files[0])

    def _require(self, config: str) -> None:
        if config not in self.configs:
            raise ValueError(
                f"config {config!r} is not of reader sdss; expected one of {[*self.configs]}"
            )

    def _rows(self, source: Source, root: str, config: str) -> Iterator[Row]:
        """First pixel, pixels and columns of rows; no pixels, and the reason, of a bad one."""
        rows = range(source.start, source.start + source.rows)
        for path in source.files:
            each = rows if len(source.files) == 1 else range(1)
            known: Values = {
                "source": os.path.relpath(path, root),
                "observation": sdss_names.of_file(path),
            }
            try:
                content = self._content(path, root)
                known["digest"] = files.of_content(content)
                if config == EXPOSURES:
                    found = sdss_exposures.spectra(content, each, GRID)
                    yield from (
                        _exposure(*f, known, row) for f, row in zip(found, each, strict=True)
                    )
                else:
                    first, pixels, values = sdss_coadd.spectrum(content, GRID)
                    yield first, pixels, known | values | {"status": Status.DONE}
            except DAMAGE as error:
                refused = known | self._refusal(error, known["source"])
                yield from ((0, {}, refused | {"source_row": row}) for row in each)

    def _content(self, path: str, root: str) -> bytes:
        if self._leads_out(path, root):
            raise RefusedError(Reason.BAD_PATH, f"leads out of {root}; check {self.summary}")
        return files.content(path)

    def _leads_out(self, path: str, root: str) -> bool:
        # What a walk finds is below the root, whatever its links are called.
        return bool(self.summary) and sdss_names.leads_out(path, root)

    def _refusal(self, error: Exception, name: str) -> Values:
        refused = sdss_coadd.refusal(error, name)
        if self.summary and isinstance(error, FileNotFoundError):
            words = f"{error.strerror}, but {self.summary} names it; fetch it, or check layout"
            return refused | {"reason": f"{name}: {words}"}
        return refused

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write rows as `root/PLATE/spec-PLATE-MJD-FIBER.fits`; gives the paths.

        A file holds the pixels from the first to the last that have data or a mask bit. Redshift
        and extinction are float32 there: z and ebv come back to 1e-7 of their value.

        Raises
        ------
        ValueError
            When an observation is not plate-mjd-fiber or is there twice (no file is written then),
            a row has no data, or a text is longer than its column; for single exposures, which are
            only read.
        """
        if config == EXPOSURES:
            raise ValueError(f"{EXPOSURES}: exposures are only read; simulate with 'sdss'")
        columns = {name: ds[name].to_numpy() for name in schema.SPECTRA}
        keys = [sdss_names.plate_mjd_fiber(str(name)) for name in columns["observation"]]
        if len(set(keys)) < len(keys):
            twice = sdss_names.observation(*next(key for key in keys if keys.count(key) > 1))
            raise ValueError(f"observation {twice!r} is there twice; one file holds one spectrum")
        loglam = np.log10(ds["wavelength"].to_numpy())
        return [
            _save(root, key, {name: column[row] for name, column in columns.items()}, loglam)
            for row, key in enumerate(keys)
        ]


def build(**options: Any) -> Sdss:
    """The reader, with `[survey.options]` of a card."""
    return Sdss(**options)


def _exposure(pixels: Values, values: Values, known: Values, row: int) -> Row:
    """A row of an exposure; of a bad one, its reason."""
    known = known | {"source_row": row}
    values = dict(values)
    if error := values.pop("error", None):
        return 0, {}, known | sdss_coadd.refusal(error, f"{known['source']} exposure {row}")
    coadd, number = values.get("observation", known["observation"]), values.pop("number")
    return 0, pixels, known | values | {"observation": f"{coadd}-{number}"}


def _save(root: str, key: tuple[int, int, int], row: Values, loglam: NDArray[Any]) -> str:
    path = Path(root, f"{key[0]:04d}", f"spec-{sdss_names.observation(*key)}.fits")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    whole.write_bytes(sdss_format.spec_file(row, *key, loglam))
    whole.replace(path)
    return str(path)
