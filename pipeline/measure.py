"""Measure: line indices with errors of a block of anything that a survey holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from pipeline import errors, index, user_indices
from pipeline.errors import Denoised, Found
from pipeline.errors import ErrorKind as ErrorKind
from pipeline.held import Held
from pipeline.index_lick import on_axis
from pipeline.index_rules import Rules
from pipeline.inputs import Input, ledger
from pipeline.product import loaded
from pipeline.stage import grid_of
from storage.schema import LEDGER, Field, Status, template
from training import calibrated
from training.checkpoint import Checkpoint
from training.device import download, upload, worker_device
from training.frame import Frame
from training.norm import NOISELESS

VERSION = 3
"Raised when the same flux gives other values: indices are stale then."


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Rows of an index group from the flux of one input."""

    config: str
    input: Input
    rules: Rules
    draws: int
    seed: int
    precision: str = "float32"
    "Of the product, as the card asks for it."

    @property
    def group(self) -> str:
        """The indices."""
        return f"indices/{self.config}/{self.input.name}"

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What it always reads: (group, variable)."""
        own = ((self.input.group, self.input.variable),)
        if not self.input.checkpoint:
            return own
        # The spectra themselves, from which a product is told apart.
        return (*own, *((f"spectra/{self.config}", n) for n in ("flux", "ivar", "z", "ebv")))

    @property
    def names(self) -> tuple[str, ...]:
        """The indices."""
        return self.rules.names

    @property
    def errors(self) -> str:
        """Digest of the table that errors on a product are from; empty where there is none."""
        return calibrated.digest(self.input.checkpoint) if self.input.checkpoint else ""

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        status, code = ledger(held, self.input.group)
        rows = held.block.last - held.block.first
        made = indices(rows, self.names, bool(self.input.checkpoint)).copy(deep=True)
        made = made.drop_vars("index")
        for name, variable in made.data_vars.items():
            if variable.dtype.kind == "f":
                # Unlike a pixel, an index that was not measured is not zero.
                made[name].values[:] = np.nan
        done = status == Status.DONE
        if done.any():
            for name, values in self._measured(held).items():
                made[name].values[done] = values[done]
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(self, held: Held) -> dict[str, np.ndarray]:
        """Variables (N, index) of the group, for all rows of a block."""
        flux = held.values(self.input.group, self.input.variable)
        if self.input.checkpoint:
            model = loaded(self.input.checkpoint)
            found = self._denoised(held, model, flux)
            return _variables(found) | {"difference": self._difference(held, model, found.value)}
        observed = self.input.variable == "flux" and self.input.group == held.spectra
        # A best fit or a truth has no noise: it has data wherever it is given.
        ivar = held.values(held.spectra, "ivar") if observed else _exact(flux)
        if self.input.frame is None:
            grid, z = grid_of(held.survey, held.spectra), held.values(held.spectra, "z")
            rows = _there(flux), _there(ivar)
            lsf, vdisp = self._lsf(held, None), self._vdisp(held)
            plain = self.rules(grid.wavelength, *rows, z=z, lsf=lsf, vdisp=vdisp)
        else:
            frame = self.input.frame
            batch = held.batch(frame) if observed else held.framed(frame, flux, ivar)
            axis, seen = frame.grid.wavelength, frame.z_seen(batch.z)
            lsf, vdisp = self._lsf(held, frame), self._vdisp(held)
            plain = self.rules(axis, batch.x, batch.weight, z=seen, lsf=lsf, vdisp=vdisp)
        value, error, flag = map(download, plain)
        if not observed:
            error = np.full_like(error, np.nan)
        kind = np.where(np.isfinite(error), ErrorKind.FORMAL, ErrorKind.NONE)
        return {"value": value, "error": error, "flag": flag, "error_kind": kind}

    def _denoised(self, held: Held, model: Checkpoint, flux: np.ndarray) -> Found:
        group, spectra = self.input.group, held.spectra
        latent, cov = (
            _there(held.values(group, name)) if held.has(group, "latent_cov") else None
            for name in ("latent", "latent_cov")
        )
        rows = Denoised(
            flux=_there(flux),
            latent=latent,
            cov=cov,
            kind=held.values(spectra, "class"),
            z=held.values(spectra, "z"),
            snr=held.values(spectra, "snr_g"),
            first=held.block.first,
            lsf=self._lsf(held, model.frame),
            vdisp=self._vdisp(held),
        )
        return errors.measured(model, rows, self.rules, draws=self.draws, seed=self.seed)

    def _difference(self, held: Held, model: Checkpoint, value: np.ndarray) -> np.ndarray:
        """Values (N, index) minus those of the noisy spectra on the frame of a model.

        NaN where emission lines were taken out: the noisy spectra have theirs still.
        """
        if self.rules.products_lose_lines:
            return np.full_like(value, np.nan)
        frame = model.frame
        group = f"indices/{self.config}/raw@{frame.label}"
        if group in held.made and "raw@frame" not in self.rules.without_lines:
            return np.asarray(value - held.values(group, "value"))
        batch = held.batch(frame)
        axis, z = frame.grid.wavelength, frame.z_seen(batch.z)
        lsf, vdisp = self._lsf(held, frame), self._vdisp(held)
        noisy = self.rules(axis, batch.x, batch.weight, z=z, lsf=lsf, vdisp=vdisp).value
        return np.asarray(value - download(noisy))

    def _lsf(self, held: Held, frame: Frame | None) -> torch.Tensor | None:
        """Line spread, pixels, of the spectra or on a frame, where the rules look at it."""
        if not self.rules.wants_spread:
            return None
        lsf, z = (held.values(held.spectra, name) for name in ("lsf", "z"))
        if frame is not None:
            grid = grid_of(held.survey, held.spectra)
            lsf = on_axis(lsf, grid, frame.grid, z if frame.rest else None)
        return _there(lsf.astype(np.float32))

    def _vdisp(self, held: Held) -> torch.Tensor | None:
        """Velocity dispersion of the stars, km/s, where the rules correct for it."""
        if self.rules.dispersion is None:
            return None
        return torch.from_numpy(held.values(held.spectra, "vdisp").astype(np.float32))


def _variables(found: Found) -> dict[str, np.ndarray]:
    """As an index group names them."""
    return {
        "value": found.value,
        "error": found.error,
        "error_kind": found.kind,
        "flag": found.flag,
        "deshrunk": found.deshrunk,
        "deshrunk_error": found.deshrunk_error,
    }


def measure_indices(
    wavelength: ArrayLike,
    flux: ArrayLike,
    ivar: ArrayLike | None,
    names: Sequence[str] = ("Dn4000", "HdeltaF", "Mgb"),
    medium: index.Medium = "vacuum",
    z: ArrayLike | None = None,
    tables: Sequence[str] = (),
) -> xr.Dataset:
    """Line indices of N spectra, no store needed.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, A, even in A or in log10(A); rest-frame, or observed when z is given.
    flux : (N, L) or (L,) float
        Flux density per A, in any unit.
    ivar : (N, L) or (L,) float, optional
        Inverse variance, 0 where there is no data; without it there are no errors.
    names : sequence of str
        Indices; `specmill list indices` shows them.
    medium : {"vacuum", "air"}
        Of the wavelengths.
    z : (N,) float, optional
        Redshifts of observed spectra.
    tables : sequence of str
        Files of indices of your own, TOML or ECSV, whose names may be asked for too.

    Returns
    -------
    Dataset
        value and error (spectrum, index) in the units of each index, flag (bits of
        `pipeline.index.Flag`).

    Raises
    ------
    ValueError
        When a name is unknown, a shape does not fit, the axis is not even or a table is wrong.
    FileNotFoundError
        When a table is not there.
    """
    chosen = user_indices.chosen(names, tables)
    found = index.measure(
        wavelength,
        np.atleast_2d(np.asarray(flux)),
        None if ivar is None else np.atleast_2d(np.asarray(ivar)),
        chosen,
        z=None if z is None else np.atleast_1d(np.asarray(z, np.float64)),
        medium=medium,
    )
    values = {n: (("spectrum", "index"), t.numpy()) for n, t in found._asdict().items()}
    units = {each.name: each.units for each in chosen}
    return xr.Dataset(
        values, coords={"index": [each.name for each in chosen]}, attrs={"units": units}
    )


def indices(n: int, names: Sequence[str], denoised: bool) -> xr.Dataset:
    """The shape of an index group of n rows, with no values held.

    denoised : of a product, whose values also come with the shrinkage taken out, and as differences
    from those of the noisy spectra.
    """
    fields = _FIELDS | (_OF_PRODUCT if denoised else {}) | LEDGER
    shape = template(n, None, fields, {"index": len(names)})
    words = np.array(names, np.dtypes.StringDType())
    said = {"units": "1", "long_name": "name of the index"}
    return shape.assign_coords(index=("index", words, said))


def _cell(dtype: str, description: str, codes: type[ErrorKind] | None = None) -> Field:
    return Field(
        dtype=dtype, units="1", dims=("spectrum", "index"), description=description, codes=codes
    )


_FIELDS = {
    "value": _cell("f8", "index; attrs has the units"),
    "error": _cell("f4", "one standard deviation"),
    "error_kind": _cell("u1", "where the error is from", ErrorKind),
    "flag": _cell("u1", "what to know of the value"),
}
_OF_PRODUCT = {
    "deshrunk": _cell("f4", "value with the shrinkage taken out, as mocks show it"),
    "deshrunk_error": _cell("f4", "one standard deviation of deshrunk"),
    "difference": _cell("f4", "value minus that of the noisy spectrum on the same frame"),
}


def _exact(flux: np.ndarray) -> np.ndarray:
    """Inverse variance of flux without noise; 0 where there is none."""
    return np.asarray((flux != 0) * np.float32(NOISELESS))


def _there(values: np.ndarray) -> torch.Tensor:
    """Values where this worker computes."""
    return upload(torch.from_numpy(np.require(values, requirements="W")), worker_device())
