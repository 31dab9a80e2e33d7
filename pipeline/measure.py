"""Measure: line indices with errors of a block of anything that a survey holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from pipeline import index
from pipeline.held import Held
from pipeline.index import Flag, Measured
from pipeline.inputs import Input
from pipeline.product import loaded
from pipeline.stage import grid_of
from storage.schema import LEDGER, Field, ObjectType, Reason, Status, template
from training.apply import ROWS
from training.checkpoint import Checkpoint
from training.device import download, upload, worker_device
from training.norm import NOISELESS

VERSION = 1
"Raised when the same flux gives other values: indices are stale then."


class ErrorKind(IntEnum):
    """Where the error of an index comes from."""

    NONE = 0
    FORMAL = 1
    DRAWS = 2


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Rows of an index group from the flux of one input."""

    config: str
    input: Input
    names: tuple[str, ...]
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
        return ((self.input.group, self.input.variable),)

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        status, code = _ledger(held, self.input.group)
        made = indices(held.block.last - held.block.first, self.names).copy(deep=True)
        made = made.drop_vars("index")
        for name in ("value", "error"):
            # Unlike a pixel, an index that was not measured is not zero.
            made[name].values[:] = np.nan
        if (status == Status.DONE).any():
            found, kind = self._measured(held)
            done = status == Status.DONE
            made["value"].values[done] = download(found.value)[done]
            made["error"].values[done] = download(found.error)[done]
            made["flag"].values[done] = download(found.flag)[done]
            known = done[:, None] & np.isfinite(download(found.error))
            made["error_kind"].values[known] = kind
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(self, held: Held) -> tuple[Measured, ErrorKind]:
        flux = held.values(self.input.group, self.input.variable)
        if self.input.checkpoint:
            return _on_product(loaded(self.input.checkpoint), flux, self, held), ErrorKind.DRAWS
        observed = self.input.variable == "flux" and self.input.group == held.spectra
        # A best fit or a truth has no noise: it has data wherever it is given.
        ivar = held.values(held.spectra, "ivar") if observed else _exact(flux)
        if self.input.frame is None:
            grid, z = grid_of(held.survey, held.spectra), held.values(held.spectra, "z")
            found = index.measure(grid.wavelength, _there(flux), _there(ivar), self.names, z=z)
        else:
            frame = self.input.frame
            batch = held.batch(frame) if observed else held.framed(frame, flux, ivar)
            axis, seen = frame.grid.wavelength, frame.z_seen(batch.z)
            found = index.measure(axis, batch.x, batch.weight, self.names, z=seen)
        if observed:
            return found, ErrorKind.FORMAL
        return found._replace(error=torch.full_like(found.error, torch.nan)), ErrorKind.NONE


def measure_indices(
    wavelength: ArrayLike,
    flux: ArrayLike,
    ivar: ArrayLike | None,
    names: Sequence[str] = ("Dn4000", "HdeltaF", "Mgb"),
    medium: index.Medium = "vacuum",
    z: ArrayLike | None = None,
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

    Returns
    -------
    Dataset
        value and error (spectrum, index) in the units of each index, flag (bits of
        `pipeline.index.Flag`).

    Raises
    ------
    ValueError
        When a name is unknown, a shape does not fit or the axis is not even.
    """
    found = index.measure(
        wavelength,
        np.atleast_2d(np.asarray(flux)),
        None if ivar is None else np.atleast_2d(np.asarray(ivar)),
        names,
        z=None if z is None else np.atleast_1d(np.asarray(z, np.float64)),
        medium=medium,
    )
    values = {n: (("spectrum", "index"), t.numpy()) for n, t in found._asdict().items()}
    return xr.Dataset(values, coords={"index": list(names)}, attrs={"units": units(names)})


def indices(n: int, names: Sequence[str]) -> xr.Dataset:
    """The shape of an index group of n rows, with no values held."""
    shape = template(n, None, _FIELDS, {"index": len(names)})
    words = np.array(names, np.dtypes.StringDType())
    said = {"units": "1", "long_name": "name of the index"}
    return shape.assign_coords(index=("index", words, said))


_CELL = ("spectrum", "index")
_FIELDS = {
    "value": Field(dtype="f8", units="1", dims=_CELL, description="index; attrs has the units"),
    "error": Field(dtype="f4", units="1", dims=_CELL, description="one standard deviation"),
    "error_kind": Field(
        dtype="u1", units="1", dims=_CELL, description="where the error is from", codes=ErrorKind
    ),
    "flag": Field(dtype="u1", units="1", dims=_CELL, description="what to know of the value"),
    **LEDGER,
}


def units(names: Sequence[str]) -> dict[str, str]:
    """Units of indices, by their names."""
    return {name: index.units(name) for name in names}


def _ledger(held: Held, upstream: str) -> tuple[np.ndarray, np.ndarray]:
    """Only what is done upstream, and is of the sky's objects, is measured."""
    before = held.values(upstream, "status")
    quarantined = held.values(held.spectra, "status") == Status.QUARANTINED
    science = held.values(held.spectra, "object_type") == ObjectType.SCIENCE
    cases = [quarantined, ~science, before != Status.DONE]
    reasons = [Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE, Reason.UPSTREAM_NOT_APPLICABLE]
    code = np.select(cases, reasons, Reason.NONE).astype("u2")
    status = np.where(code == Reason.NONE, Status.DONE, Status.NOT_APPLICABLE).astype("u1")
    return status, code


def _on_product(model: Checkpoint, flux: np.ndarray, job: Measure, held: Held) -> Measured:
    """Indices of a denoised block; the error is the scatter over draws of the posterior."""
    wavelength, group = model.frame.grid.wavelength, job.input.group
    z = model.frame.z_seen(held.values(held.spectra, "z"))
    found = index.measure(wavelength, _there(flux), None, job.names, z=z)
    if not held.has(group, "latent_cov"):
        return found
    mean, cov = (_there(held.values(group, name)) for name in ("latent", "latent_cov"))
    error = torch.full_like(found.error, torch.nan)
    for first in range(0, len(mean), ROWS):
        rows = slice(first, first + ROWS)
        there = None if z is None else z[rows]
        # Seeded by the place in the survey: the same on any worker, in any block.
        state = np.random.SeedSequence([job.seed, held.block.first + first]).generate_state(1)
        random = torch.Generator().manual_seed(int(state[0]))
        values = [
            index.measure(wavelength, drawn, None, job.names, z=there).value
            for drawn in posterior(model, mean[rows], cov[rows], job.draws, random)
        ]
        error[rows] = torch.stack(values).std(dim=0)
    flag = torch.where(error.isfinite(), found.flag & ~int(Flag.NO_ERROR), found.flag)
    return Measured(found.value, error, flag)


def _exact(flux: np.ndarray) -> np.ndarray:
    """Inverse variance of flux without noise; 0 where there is none."""
    return np.asarray((flux != 0) * np.float32(NOISELESS))


def _there(values: np.ndarray) -> torch.Tensor:
    """Values where this worker computes."""
    return upload(torch.from_numpy(np.require(values, requirements="W")), worker_device())


@torch.inference_mode()
def posterior(
    model: Checkpoint, mean: torch.Tensor, cov: torch.Tensor, draws: int, random: torch.Generator
) -> list[torch.Tensor]:
    """Draws (N, P) of the posterior of N spectra, in units of the frame.

    mean (N, S), cov (N, S, S): rows whose covariance is 0 give their mean.
    """
    # float32 covariances of a converged fit may miss being positive by their rounding.
    ridge = 1e-7 * cov.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-30)
    factor = torch.linalg.cholesky(
        cov + ridge[:, None, None] * torch.eye(cov.shape[1], device=cov.device)
    )
    # As many as a full batch takes, so that a row's draws do not depend on how many follow it.
    noise = torch.randn(draws, ROWS, mean.shape[1], generator=random)[:, : len(mean)].to(
        mean.device
    )
    return [model.model.decode(mean + torch.einsum("nij,nj->ni", factor, e)) for e in noise]
