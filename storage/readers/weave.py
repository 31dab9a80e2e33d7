"""WEAVE: L1 spectra of the William Herschel Telescope's survey, one arm a configuration.

No file of the survey is public: this follows the data model and the software that are. What is
assumed, and how to check it on the first real file, is in docs/weave.md.
"""

import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import field_validator

from storage import fits_scan, fits_whole, schema
from storage.border import RefusedError, admit, beyond, refuse, require_sizes
from storage.fits import FitsError
from storage.fits_unpack import plain
from storage.fits_whole import Whole
from storage.grid import Grid
from storage.reader import Format, Source
from storage.schema import Reason
from storage.walk import walk
from storage.weave import axis as weave_axis
from storage.weave import redshifts as weave_redshifts
from storage.weave import results as weave_results
from storage.weave import table
from storage.weave import write as weave_write
from storage.weave.axis import Medium
from storage.weave.layout import (
    GRIDS,
    MOST_ROWS,
    NAMES,
    Product,
    arm_of,
    config_of,
    extension,
    glance,
    named,
    table_rows,
)
from storage.weave.pixels import Images
from storage.weave.units import flux_scale

_MOST_BYTES = 256 << 20
_PIXEL_BYTES = 18
"flux, ivar, mask, model and lsf."
_RESOLVING = {"lr": 5000.0, "hr": 20000.0}
"Design resolving power with fibres of 1.3 arcsec; those of the large IFU have half of it."
_FWHM = 2.3548


class Weave(Format):
    """The reader.

    Rows are the rows of FIBTABLE. flux = DATA x SENSFUNC, ivar = IVAR / SENSFUNC^2; air becomes
    vacuum, flux is conserved (`storage.weave.axis.onto`). `lsf` is the design value, R about 5000
    and 20000, not a measurement. Redshifts come from the L2 file that names the L1 file, found by
    CNAME, else TARGID. The two arms of a run share CNAME, and so their objects.
    """

    product: Product = "stack"
    """Which L1 files are read: single, stack, superstack or supertarget (WVE_...). Stacks are made
    of singles, superstacks of stacks: the same photons, so one of them."""
    medium: Medium | None = None
    "What the files' wavelengths are in; CTYPE1 says it when None."
    flux_unit: str | None = None
    "Unit of DATA x SENSFUNC; BUNIT says it when None, erg/(s cm2 Angstrom) without one."

    @field_validator("flux_unit")
    @classmethod
    def _is_flux_density(cls, text: str | None) -> str | None:
        flux_scale(None, None, text)
        return text

    @property
    def identity(self) -> Literal["target_id", "position"]:
        """CNAME: one name for one place on the sky."""
        return "target_id"

    @property
    def configs(self) -> dict[str, Grid]:
        """Arms in low and high resolution; vacuum."""
        return GRIDS

    def find(self, root: str, config: str) -> Iterator[Source]:
        """Rows of one file each; of files with one row, many. Names, then headers, decide."""
        most = _MOST_BYTES // (_PIXEL_BYTES * self._grid(config).size)
        found: Counter[str] = Counter()
        alone: list[str] = []
        for path in walk(root, NAMES):
            rows = self._rows(path, config, found)
            if alone and (rows > 1 or len(alone) == most):
                yield Source(files=tuple(alone), rows=len(alone))
                alone = []
            if rows == 1:
                alone.append(path)
            for first in range(0, rows if rows > 1 else 0, most):
                yield Source(files=(path,), rows=min(most, rows - first), start=first)
        if alone:
            yield Source(files=tuple(alone), rows=len(alone))
        if not found[f"{self.product} {config}"]:
            there = ", ".join(f"{count} {what}" for what, count in sorted(found.items()) if count)
            raise FileNotFoundError(
                f"{root}: no {self.product} file of {config} (there: {there}); set survey.config "
                "and survey.options.product to one of these"
            )

    def _rows(self, path: str, config: str, found: Counter[str]) -> int:
        """Rows of a file that is of the configuration, else 0; what it is, is counted."""
        name = named(path)
        assert name is not None, path
        if name.product != self.product:
            found[name.product] += 1
            return 0
        hdus = glance(path)
        try:
            own = config_of(hdus)
        except (RefusedError, FitsError):
            # It does not say what it is of: of each, so that somebody reads why.
            own = config
        found[f"{name.product} {own}"] += 1
        return table_rows(hdus) if own == config else 0

    def read(self, source: Source, root: str, config: str) -> xr.Dataset:
        """The rows of a source; see `storage.reader.Reader`."""
        grid = self._grid(config)
        ds = schema.blank(source.rows, grid)
        each = source.rows if len(source.files) == 1 else 1
        for number, path in enumerate(source.files):
            part = ds.isel(spectrum=slice(number * each, (number + 1) * each))
            first = source.start if len(source.files) == 1 else 0
            part["source"].to_numpy()[:] = os.path.relpath(path, root)
            part["source_row"].to_numpy()[:] = first + np.arange(each)
            self._try(part, path, root, config, slice(first, first + each))
        return admit(ds, grid)

    def _try(self, ds: xr.Dataset, path: str, root: str, config: str, rows: slice) -> None:
        """Fill in rows of a file, or refuse them all."""
        code = Reason.UNREADABLE
        try:
            found = fits_whole.whole(path)
            ds["digest"].to_numpy()[:] = fits_whole.digest(found, self.beside(path, root, config))
            self._fill(ds, path, root, config, rows, found)
            return
        except RefusedError as error:
            code, words = error.code, str(error)
        except FitsError as error:
            words = f"{error}; fetch the file again"
        except OSError as error:
            words = f"{error.strerror or error}; check the path and its rights"
        # Columns and cards of another type or shape than the survey's.
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            words = f"not an L1 file: {type(error).__name__}: {error}; fetch the file again"
        for row in range(ds.sizes["spectrum"]):
            refuse(ds, row, code, words)

    def _fill(
        self, ds: xr.Dataset, path: str, root: str, config: str, rows: slice, whole: Whole
    ) -> None:
        file, grid, name = plain(path), self._grid(config), named(path)
        hdus = fits_scan.scan(file.path)
        fits_scan.require_names(hdu.name for hdu in hdus)
        whole.require()
        if name is None or (own := config_of(hdus)) != config:
            what = "no L1 name" if name is None else f"of {own}"
            raise RefusedError(Reason.BAD_GRID, f"it is {what}, not of {config}; leave it out")
        found = extension(hdus, "FIBTABLE")
        if found.shape and found.shape[0] > MOST_ROWS:
            raise FitsError(f"FIBTABLE has {found.shape[0]} rows, more than {MOST_ROWS}")
        fibres = fits_scan.table(file.path, found, table.COLUMNS)
        if rows.stop > len(fibres.rows):
            raise FitsError(f"FIBTABLE has {len(fibres.rows)} rows, expected {rows.stop}")
        table.require_text(fibres)
        arm = arm_of(hdus)
        table.fill(ds, fibres, hdus[0], name, config.rsplit("-", 1)[1], rows)
        weave_redshifts.fill(ds, fibres, path, root, rows)
        images = self._images(file.path, hdus, arm)
        spectrum = table.spectra_of(fibres, images.count)
        table.refuse_unread(ds, fibres, spectrum, images.count, rows)
        axis = weave_axis.axis_of(images.data, self.medium)
        weave_axis.require_overlap(axis, grid, config)
        _fill_pixels(ds, images, axis, grid, spectrum[rows])
        ds["lsf"].to_numpy()[:] = _lsf(grid, config, hdus[0].value("OBSMODE") or "")

    def _images(self, path: str, hdus: tuple[fits_scan.Hdu, ...], arm: str) -> Images:
        data, ivar, bright = (
            extension(hdus, f"{arm}_{name}") for name in ("DATA", "IVAR", "SENSFUNC")
        )
        scale = flux_scale(bright.value("BUNIT"), data.value("BUNIT"), self.flux_unit)
        return Images(path=path, data=data, ivar=ivar, sensitivity=bright, scale=scale)

    def beside(self, path: str, root: str, config: str) -> tuple[str, ...]:
        """The L2 file that redshifts come from, where there is one."""
        found = weave_results.made_from(path, root)
        return () if found is None else (found,)

    def write(self, ds: xr.Dataset, root: str, config: str) -> list[str]:
        """Write a stack with its redshifts; see `storage.weave.write.write`."""
        return weave_write.write(ds, root, config, self._grid(config))

    def _grid(self, config: str) -> Grid:
        if config not in GRIDS:
            raise ValueError(
                f"config {config!r} is not of reader weave; expected one of {[*GRIDS]}"
            )
        return GRIDS[config]


def build(**options: object) -> Weave:
    """The reader; options are the fields of `Weave`."""
    return Weave.model_validate(options)


def _fill_pixels(
    ds: xr.Dataset, images: Images, axis: weave_axis.Axis, grid: Grid, spectrum: NDArray[np.int64]
) -> None:
    """Flux and ivar of rows that are not refused, a few at a time."""
    flux, ivar = ds["flux"].to_numpy(), ds["ivar"].to_numpy()
    wanted = np.flatnonzero(ds["status"].to_numpy() == schema.Status.PENDING)
    # In the order of the images, so that each part of a file is read once.
    wanted = wanted[np.argsort(spectrum[wanted], kind="stable")]
    for first in range(0, len(wanted), images.step):
        rows = wanted[first : first + images.step]
        found, weight = images.read(spectrum[rows])
        negative = (weight < 0).sum(axis=1)
        for row in np.flatnonzero(negative):
            words = f"ivar is negative in {negative[row]} pixels; fetch the file again"
            refuse(ds, int(rows[row]), Reason.NEGATIVE_IVAR, words)
        for row in np.flatnonzero(_beyond(found, weight)):
            try:
                require_sizes(found[row], weight[row])
            except RefusedError as error:
                refuse(ds, int(rows[row]), error.code, str(error))
        flux[rows], ivar[rows] = weave_axis.onto(axis, grid, found, np.maximum(weight, 0))


def _beyond(flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rows to look at more closely."""
    known = np.isfinite(flux) & np.isfinite(ivar)
    large = [beyond(name, np.where(known, x, 0)) for name, x in (("flux", flux), ("ivar", ivar))]
    return (large[0] + large[1]) > 0


@lru_cache(maxsize=16)
def _lsf(grid: Grid, config: str, mode: str) -> NDArray[np.float16]:
    """Design sigma in pixels, (L,)."""
    resolving = _RESOLVING[config.split("-")[1]] * (0.5 if mode.strip().upper() == "LIFU" else 1.0)
    return (grid.wavelength / (resolving * _FWHM) / grid.step).astype(np.float16)
