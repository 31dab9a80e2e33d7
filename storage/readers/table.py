"""Any survey without a reader of its own: spectra in tables, in 1-D images, or for specutils.

Each spectrum is brought to vacuum, to the Sun's frame and to the house's unit, then rebinned to
the grid of the options. What a file does not say and no option tells is refused, never guessed.
"""

import fnmatch
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import fits_whole, schema
from storage.border import RefusedError, admit, refuse, require_sizes, single
from storage.grid import Grid
from storage.reader import Source
from storage.schema import Reason
from storage.table import files as table_files
from storage.table import row as table_row
from storage.table import units
from storage.table import write as table_write
from storage.table.options import FIELDS, Options
from storage.table.rebin import Overlaps, overlaps
from storage.table.spectra import Float, Spectra
from storage.velocity import to_heliocentric
from storage.walk import walk

_FILES = 512  # a source of single spectra
_DECODED = 1 << 28  # bytes of a source
_EACH = 100  # bytes decoded a pixel, what the file has included

Values = dict[str, Any]


class Table(Options):
    """Files of tables or images below a folder."""

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Sources below root in the order of their paths; files of many spectra stand alone."""
        if self.loader:
            table_files.specutils_of(self)
        if self.catalog and Path(root).is_dir():
            table_row.catalog(self, root)
        single: list[str] = []
        most = min(_FILES, self._most)
        for path in walk(root, _names(self.pattern)):
            rows = table_files.count(path, self)
            if rows == 1:
                single.append(path)
            if single and (rows > 1 or len(single) == most):
                yield Source(files=tuple(single), rows=len(single))
                single = []
            if rows > 1:
                yield from self._parts(path, rows)
        if single:
            yield Source(files=tuple(single), rows=len(single))

    @property
    def _most(self) -> int:
        return max(1, _DECODED // (self.grid.size * _EACH))

    def _parts(self, path: str, rows: int) -> Iterator[Source]:
        for start in range(0, rows, self._most):
            yield Source(files=(path,), rows=min(self._most, rows - start), start=start)

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source; see `storage.reader.Reader`."""
        if config not in self.configs:
            raise ValueError(
                f"config {config!r} is not of reader table; expected one of {[*self.configs]}"
            )
        ds = schema.blank(source.rows, self.grid, {**schema.SPECTRA, **FIELDS})
        # Looked up once: xarray takes longer to find a variable than numpy to fill it.
        columns = {str(name): variable.to_numpy() for name, variable in ds.data_vars.items()}
        each = 1 if len(source.files) > 1 else source.rows
        rows = range(source.start, source.start + each)
        with np.errstate(all="ignore"):
            for number, path in enumerate(source.files):
                self._fill(ds, columns, number * each, path, root, rows)
            self._fill_lsf(ds)
            return admit(ds, self.grid, self.flux_unit == units.RELATIVE)

    def beside(self, path: str, root: str, config: str) -> tuple[str, ...]:
        """The catalogue, where the options name one."""
        return (str(Path(root, self.catalog)),) if self.catalog else ()

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write one FITS table for each row as `root/OBSERVATION.fits`; gives the paths.

        Raises
        ------
        ValueError
            When two rows have one name.
        """
        return table_write.write(ds, root)

    def _fill(
        self, ds: xr.Dataset, columns: Values, first: int, path: str, root: str, rows: range
    ) -> None:
        """Rows of one file into the dataset, from its row `first` on."""
        name = os.path.relpath(path, root)
        here = slice(first, first + len(rows))
        columns["source"][here] = name
        columns["source_row"][here] = rows
        many = rows.start > 0 or len(rows) > 1
        columns["observation"][here] = _observations(path, rows, many)
        try:
            whole = fits_whole.whole(path)
            columns["digest"][here] = fits_whole.digest(whole, self.beside(path, root, ""))
            spectra = table_files.load(path, self, rows.start, len(rows))
            many = spectra.total > 1
            columns["observation"][here] = _observations(path, rows, many)
            if whole.damage:
                raise RefusedError(Reason.UNREADABLE, f"{whole.damage}; fetch the file again")
            listed = table_row.entries(path, root, self, rows, many)
            self._fill_spectra(ds, columns, first, spectra, listed)
        except RefusedError as error:
            code, words = error.code, str(error)
        except OSError as error:
            code = Reason.UNREADABLE
            words = f"{error.strerror or error}; check the path and its rights"
        else:
            return
        for number in range(first, first + len(rows)):
            refuse(ds, number, code, words)

    def _fill_spectra(
        self,
        ds: xr.Dataset,
        columns: Values,
        first: int,
        spectra: Spectra,
        entries: list[table_row.Entry],
    ) -> None:
        if len(spectra.flux) != len(entries):
            raise RefusedError(
                Reason.BAD_GRID,
                f"holds {len(spectra.flux)} spectra where {len(entries)} were found; find the "
                "files again, with survey.options.one_per_file = false (of ECSV and specutils one "
                "a file is read)",
            )
        listed = table_row.values(spectra, self, entries)
        pixels = _Pixels(spectra, self, listed)
        for row, values in enumerate(listed, start=first):
            values["flux_relative"] = self.flux_unit == units.RELATIVE
            values["ivar_estimated"] = pixels.estimated
            for key, value in values.items():
                columns[key][row] = value
            try:
                found = pixels.row(row - first)
            except RefusedError as error:
                refuse(ds, row, error.code, str(error))
                continue
            flux, ivar, mask = found
            for key, array in (("flux", single(flux)), ("ivar", single(ivar)), ("mask", mask)):
                columns[key][row] = array

    def _fill_lsf(self, ds: xr.Dataset) -> None:
        if self.resolution is None:
            return
        sigma = self.grid.wavelength / self.resolution / np.sqrt(8 * np.log(2)) / self.grid.widths
        ds["lsf"].to_numpy()[:] = np.where(ds["ivar"].to_numpy() > 0, sigma, 0)


class _Pixels:
    """Pixels of one file's spectra, brought to the grid row by row."""

    def __init__(self, spectra: Spectra, options: Options, rows: list[Values]) -> None:
        cards = spectra.cards
        self.grid: Grid = options.grid
        self.file_wavelength = units.angstrom(spectra, options)
        self.vacuum = units.vacuum(self.file_wavelength, units.medium(cards, options))
        frame = units.frame(cards, options)
        self.velocity = table_row.velocities(spectra, options, frame, rows)
        factor = units.flux_factor(spectra, options, self.file_wavelength)
        self.estimated = options.error == "estimate" and spectra.uncertainty is None
        ivar = (
            units.estimated_ivar(spectra.flux) if self.estimated else units.ivar(spectra, options)
        )
        self.flux, self.ivar = spectra.flux * factor, ivar / factor**2
        self.relative = options.flux_unit == units.RELATIVE
        self.mask = spectra.mask
        if self.mask is not None:
            self.ivar[(self.mask & np.uint32(options.bad_bits)) != 0] = 0
        if options.negative == "no-data":
            self.ivar[self.ivar < 0] = 0
        # Most files have one axis for all of their rows.
        self.overlaps = lru_cache(maxsize=4)(self._overlaps)

    def row(self, number: int) -> tuple[Float, Float, NDArray[np.uint32]]:
        """Flux, ivar and mask on the grid."""
        axis = self.vacuum if self.vacuum.ndim == 1 else self.vacuum[number]
        flux, ivar = self.flux[number], self.ivar[number]
        negative = int((np.isfinite(ivar) & (ivar < 0)).sum())
        if negative:
            raise RefusedError(
                Reason.NEGATIVE_IVAR,
                f"ivar or variance is negative in {negative} pixels; fetch the file again, or set "
                "survey.options.negative to 'no-data'",
            )
        if not self.relative:
            require_sizes(flux, ivar)
        found, order = self.overlaps(axis.tobytes(), float(self.velocity[number]))
        mask = None if self.mask is None else self.mask[number][order]
        return found(flux[order], ivar[order], mask)

    def _overlaps(self, axis: bytes, velocity: float) -> tuple[Overlaps, NDArray[np.intp]]:
        return overlaps(to_heliocentric(np.frombuffer(axis), velocity), self.grid)


def build(**options: Any) -> Table:
    """The reader."""
    return Table(**options)


def _names(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


def _observations(path: str, rows: range, many: bool) -> list[str]:
    name = table_row.stem(path)
    return [f"{name}:{row}" if many else name for row in rows]
