"""Measure: line indices with errors on everything that a survey holds, raw and denoised."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
import xarray as xr
from distributed import Client
from numpy.typing import ArrayLike

from pipeline import blocks, index
from pipeline.card import Card
from pipeline.denoise import loaded
from pipeline.index import Flag, Measured
from pipeline.inputs import Input, inputs
from pipeline.stage import (
    config_of,
    grid_of,
    origin,
    reading,
    require_ingested,
    snapshot_of,
    target,
)
from storage.schema import LEDGER, Field, ObjectType, Reason, Status, template
from storage.store import Survey, exists
from storage.writer import Writer, writing
from training.apply import ROWS
from training.checkpoint import Checkpoint


class ErrorKind(IntEnum):
    """Where the error of an index comes from."""

    NONE = 0
    FORMAL = 1
    DRAWS = 2


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Rows of an index group: what a worker does."""

    store: str
    snapshot: str
    config: str
    input: Input
    names: tuple[str, ...]
    draws: int
    seed: int

    def __call__(self, block: blocks.Block) -> xr.Dataset:
        """Measure a block."""
        survey = reading(self.store, self.snapshot)
        upstream = survey.dataset(self.input.group).isel(spectrum=block.rows)
        spectra = survey.dataset(f"spectra/{self.config}").isel(spectrum=block.rows)
        status, code = _ledger(upstream, spectra)
        made = template(block.last - block.first, None, _FIELDS, {"index": len(self.names)})
        made = made.copy(deep=True)
        for name in ("value", "error"):
            # Unlike a pixel, an index that was not measured is not zero.
            made[name].values[:] = np.nan
        if (status == Status.DONE).any():
            found, kind = self._measured(survey, upstream, spectra, block)
            done = status == Status.DONE
            made["value"].values[done] = found.value.numpy()[done]
            made["error"].values[done] = found.error.numpy()[done]
            made["flag"].values[done] = found.flag.numpy()[done]
            known = done[:, None] & np.isfinite(found.error.numpy())
            made["error_kind"].values[known] = kind
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(
        self, survey: Survey, upstream: xr.Dataset, spectra: xr.Dataset, block: blocks.Block
    ) -> tuple[Measured, ErrorKind]:
        flux = upstream[self.input.variable].to_numpy()
        if self.input.checkpoint:
            model, wavelength = loaded(self.input.checkpoint), upstream["wavelength"].to_numpy()
            return _on_product(model, upstream, flux, wavelength, self, block), ErrorKind.DRAWS
        z = spectra["z"].to_numpy()
        observed = self.input.variable == "flux" and self.input.group.startswith("spectra/")
        # A best fit or a truth has no noise: it has data wherever it is given.
        ivar = spectra["ivar"].to_numpy() if observed else (flux != 0).astype("f4")
        if self.input.frame is None:
            grid = grid_of(survey, f"spectra/{self.config}")
            found = index.measure(grid.wavelength, flux, ivar, self.names, z=z)
        else:
            mapper = self.input.frame.on(grid_of(survey, f"spectra/{self.config}"))
            batch = mapper.to(flux, ivar, z, spectra["ebv"].to_numpy())
            axis = self.input.frame.grid.wavelength
            found = index.measure(axis, batch.x, batch.weight, self.names)
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
    return xr.Dataset(values, coords={"index": list(names)}, attrs={"units": _units(names)})


def measure(card: Card, client: Client) -> dict[str, blocks.Tally]:
    """Fill the index groups of every input of the card; a tally of each.

    Raises
    ------
    ValueError
        When an input is not there or an index is unknown.
    """
    config = config_of(card)
    require_ingested(Survey.open(card.store), f"spectra/{config}")
    tallies = {}
    with writing(card.store, "measure") as writer:
        survey = Survey.open(card.store)
        for given in inputs(card, survey):
            group = f"indices/{config}/{given.name}"
            _prepare(writer, card, survey, given, group)
            make = Measure(
                store=card.store,
                snapshot=survey.snapshot,
                config=config,
                input=given,
                names=card.measure.indices,
                draws=card.measure.draws,
                seed=card.run.seed,
            )
            pixels = grid_of(survey, f"spectra/{config}").size
            where = target(card, writer, group, pixels)
            tallies[group] = blocks.run(make, target=where, client=client)
    return tallies


def is_done(card: Card) -> bool:
    """Whether every index group of the card is there, with no row pending."""
    if not exists(card.store):
        return False
    survey, config = Survey.open(card.store), config_of(card)
    for given in inputs(card, survey):
        group = f"indices/{config}/{given.name}"
        if group not in survey or survey.attrs(group)["recipe"] != _recipe(card, survey, given):
            return False
        if (survey.dataset(group)["status"] == Status.PENDING).any():
            return False
    return True


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


def _units(names: Sequence[str]) -> dict[str, str]:
    return {name: index.units(name) for name in names}


def _recipe(card: Card, survey: Survey, given: Input) -> list[Any]:
    """What an index group depends on: what is measured, how, and the flux as it is now."""
    flux = snapshot_of(survey, given.group)
    return [list(card.measure.indices), card.measure.draws, card.run.seed, flux]


def _prepare(writer: Writer, card: Card, survey: Survey, given: Input, group: str) -> None:
    recipe = _recipe(card, survey, given)
    if group in writer:
        if writer.attrs(group)["recipe"] == recipe:
            return
        writer.delete_group(group)
    names = card.measure.indices
    shape = template(survey.rows(given.group), None, _FIELDS, {"index": len(names)})
    words = np.array(names, np.dtypes.StringDType())
    said = {"units": "1", "long_name": "name of the index"}
    shape = shape.assign_coords(index=("index", words, said))
    about = {
        "recipe": recipe,
        "input": given.group,
        "input_snapshot": survey.snapshot,
        "alias": given.alias,
        "frame": given.frame.label if given.frame else survey.attrs(given.group).get("frame", ""),
        "units": _units(names),
        "flags": {int(flag): flag.name for flag in Flag},
        "emission_subtracted": False,
        "checkpoint_digest": survey.attrs(given.group).get("checkpoint_digest", ""),
        **origin(card),
    }
    writer.create_group(group, shape, about)
    writer.commit(f"{group}: room for {survey.rows(given.group)} rows", {"group": group})


def _ledger(upstream: xr.Dataset, spectra: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Only what is done upstream, and is of the sky's objects, is measured."""
    before = upstream["status"].to_numpy()
    quarantined = spectra["status"].to_numpy() == Status.QUARANTINED
    science = spectra["object_type"].to_numpy() == ObjectType.SCIENCE
    cases = [quarantined, ~science, before != Status.DONE]
    reasons = [Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE, Reason.UPSTREAM_NOT_APPLICABLE]
    code = np.select(cases, reasons, Reason.NONE).astype("u2")
    status = np.where(code == Reason.NONE, Status.DONE, Status.NOT_APPLICABLE).astype("u1")
    return status, code


def _on_product(
    model: Checkpoint,
    upstream: xr.Dataset,
    flux: np.ndarray,
    wavelength: np.ndarray,
    job: Measure,
    block: blocks.Block,
) -> Measured:
    """Indices of a denoised block; the error is the scatter over draws of the posterior."""
    found = index.measure(wavelength, flux, None, job.names)
    if "latent_cov" not in upstream:
        return found
    mean = torch.from_numpy(upstream["latent"].to_numpy())
    cov = torch.from_numpy(upstream["latent_cov"].to_numpy())
    error = torch.full_like(found.error, torch.nan)
    for first in range(0, len(mean), ROWS):
        rows = slice(first, first + ROWS)
        # Seeded by the place in the survey: the same on any worker, in any block.
        seed = np.random.SeedSequence([job.seed, block.first + first]).generate_state(1)[0]
        random = torch.Generator().manual_seed(int(seed))
        values = [
            index.measure(wavelength, drawn, None, job.names).value
            for drawn in posterior(model, mean[rows], cov[rows], job.draws, random)
        ]
        error[rows] = torch.stack(values).std(dim=0)
    flag = torch.where(error.isfinite(), found.flag & ~int(Flag.NO_ERROR), found.flag)
    return Measured(found.value, error, flag)


@torch.inference_mode()
def posterior(
    model: Checkpoint, mean: torch.Tensor, cov: torch.Tensor, draws: int, random: torch.Generator
) -> list[torch.Tensor]:
    """Draws (N, P) of the posterior of N spectra, in units of the frame.

    mean (N, S), cov (N, S, S): rows whose covariance is 0 give their mean.
    """
    # float32 covariances of a converged fit may miss being positive by their rounding.
    ridge = 1e-7 * cov.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-30)
    factor = torch.linalg.cholesky(cov + ridge[:, None, None] * torch.eye(cov.shape[1]))
    # As many as a full batch takes, so that a row's draws do not depend on how many follow it.
    noise = torch.randn(draws, ROWS, mean.shape[1], generator=random)[:, : len(mean)]
    return [model.model.decode(mean + torch.einsum("nij,nj->ni", factor, e)) for e in noise]
