"""Denoise: the routes' models over the pending blocks of a survey, one product per checkpoint."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from distributed import Client

from pipeline import blocks, route
from pipeline.card import Card, digest8
from pipeline.stage import (
    config_of,
    footprint_columns,
    grid_of,
    origin,
    reading,
    require_ingested,
    target,
)
from pipeline.trust import LIMIT, misfit
from storage.schema import COLUMNS, FLUX_UNIT, LEDGER, Field, Reason, Status, template
from storage.store import Survey, exists
from storage.writer import Writer, writing
from training import checkpoint
from training.checkpoint import Checkpoint
from training.footprint import Footprint
from training.frame import Batch, named
from training.model import Output

EXTRAPOLATED, ABOVE_CEILING, MISFIT = 1, 2, 4
"Bits of a product's flag: outside the footprint, above the S/N ceiling, not the input's galaxy."


_LOOKED_AT = ("status", "object_type", "z", "ebv")


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Rows of a product from the spectra: what a worker does."""

    store: str
    snapshot: str
    config: str
    plan: route.Plan
    chosen: route.Chosen
    outside: str

    def __call__(self, block: blocks.Block) -> xr.Dataset:
        """Denoise a block."""
        survey, model = reading(self.store, self.snapshot), loaded(self.chosen.path)
        group = f"spectra/{self.config}"
        ds = survey.dataset(group).isel(spectrum=block.rows)
        # Text decodes slowly: only what the rules look at is read.
        wanted = {*_LOOKED_AT, *self.plan.columns(COLUMNS)}
        columns = {name: ds[name].to_numpy() for name in sorted(wanted)}
        n = block.last - block.first
        status, code, number = self.plan.ledger(columns, n, self.chosen)
        made = product(n, model, block=True)
        made["route"].values[:] = number
        made["reason"].values[:] = self.plan.words(number, code)
        if (status == Status.DONE).any():
            batch = model.frame.on(grid_of(survey, group)).to(
                ds["flux"].to_numpy(), ds["ivar"].to_numpy(), columns["z"], columns["ebv"]
            )
            _judge(made, model.footprint, ds, batch, (status, code), self.outside)
            _fill(made, model.run(batch), batch, status == Status.DONE)
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made


def product(n: int, model: Checkpoint, block: bool = False) -> xr.Dataset:
    """The shape of a product: of n rows with no values held, or of a block to be filled."""
    has = _outputs(str(model.path))
    pixels, latent = ("spectrum", "wavelength"), ("spectrum", "latent")
    fields = {
        "flux": Field(
            dtype="f4",
            units=FLUX_UNIT,
            dims=pixels,
            description="denoised flux density, dereddened, on rest wavelengths",
        ),
        "sigma": Field(
            dtype="f4",
            units=FLUX_UNIT,
            dims=pixels,
            description="standard deviation of one pixel; pixels are not independent",
        ),
        "latent": Field(dtype="f4", units="1", dims=latent, description="latent coordinates"),
        "latent_cov": Field(
            dtype="f4", units="1", dims=(*latent, "latent_2"), description="covariance of latents"
        ),
        "scale": Field(dtype="f4", units=FLUX_UNIT, description="flux of the frame's window"),
        "flag": Field(dtype="u1", units="1", description="what to know of the spectrum, bits"),
        "misfit": Field(
            dtype="f4",
            units="1",
            description="mean chi^2 of bands of input minus output",
        ),
        "route": Field(dtype="u1", units="1", description="number of the route; 255 is none"),
        "reason": Field(dtype="str", units="1", description="why it is outside the footprint"),
        **LEDGER,
    }
    given = {name: field for name, field in fields.items() if name not in _OPTIONAL or has[name]}
    sizes = {"latent": has["latent"], "latent_2": has["latent"]}
    made = template(n, model.frame.grid, given, sizes)
    # xarray takes a variable named like its axis for a coordinate, which blocks do not write.
    made = made.reset_coords("latent") if "latent" in made else made
    bits = {"flag_masks": [EXTRAPOLATED, ABOVE_CEILING, MISFIT]}
    made["flag"].attrs |= bits | {"flag_meanings": "extrapolated above_ceiling misfit"}
    return made.drop_vars("wavelength").copy(deep=True) if block else made


_OPTIONAL = ("sigma", "latent", "latent_cov")


def denoise(card: Card, client: Client) -> dict[str, blocks.Tally]:
    """Fill the product of every checkpoint that the card's routes name; a tally of each.

    Raises
    ------
    ValueError, FileNotFoundError
        As `route.plan`; or when the survey is not ingested, or a model is of another frame.
    """
    plan, config = route.plan(card), config_of(card)
    require_ingested(Survey.open(card.store), f"spectra/{config}")
    for chosen in plan.checkpoints:
        # Its indices are compared with those of the noisy spectra on the card's frame.
        loaded(chosen.path).require_frame(named(card.frame.name))
    tallies = {}
    with writing(card.store, "denoise") as writer:
        survey = Survey.open(card.store)
        for chosen in plan.checkpoints:
            group = group_of(config, chosen)
            model = loaded(chosen.path)
            _prepare(writer, card, plan, chosen, survey, group)
            make = Denoise(
                store=card.store,
                snapshot=survey.snapshot,
                config=config,
                plan=plan,
                chosen=chosen,
                outside=card.denoise.outside,
            )
            where = target(card, writer, group, model.frame.grid.size)
            tallies[group] = blocks.run(make, target=where, client=client)
    return tallies


def is_done(card: Card) -> bool:
    """Whether every product of the card is there, of these routes, with no row pending."""
    if not exists(card.store):
        return False
    survey, plan = Survey.open(card.store), route.plan(card)
    for chosen in plan.checkpoints:
        group = group_of(config_of(card), chosen)
        if group not in survey or survey.attrs(group)["recipe"] != _recipe(card, plan):
            return False
        if survey.attrs(group)["verdict"] != chosen.verdict:
            return False
        if (survey.dataset(group)["status"] == Status.PENDING).any():
            return False
    return True


def group_of(config: str, chosen: route.Chosen) -> str:
    """The group of a checkpoint's product."""
    return f"denoised/{config}/{Path(chosen.path).name}"


@lru_cache(maxsize=8)
def loaded(path: str) -> Checkpoint:
    """A checkpoint, loaded once per process: the path names its digest."""
    return checkpoint.load(path)


@lru_cache(maxsize=8)
def _outputs(path: str) -> dict[str, int]:
    """Latents of each thing that a model can say; 0 where it does not say it."""
    model = loaded(path)
    pixels = model.frame.grid.size
    with torch.inference_mode():
        said = model.model(torch.zeros(1, pixels), torch.ones(1, pixels), torch.zeros(1))
    size = 0 if said.latent is None else said.latent.shape[1]
    return {
        "sigma": int(said.sigma is not None),
        "latent": size,
        "latent_cov": size if said.latent_cov is not None else 0,
    }


def _recipe(card: Card, plan: route.Plan) -> str:
    """What a product depends on besides its checkpoint and its input."""
    # A checkpoint by its name, which has its digest in it: a run may be moved.
    models = [Path(chosen.path).name if chosen else "" for chosen in plan.chosen]
    rules = [list(rule) for rule in zip(plan.where, models, strict=True)]
    return digest8([rules, card.denoise.outside])


def _prepare(
    writer: Writer, card: Card, plan: route.Plan, chosen: route.Chosen, survey: Survey, group: str
) -> None:
    """Make the group of a product, anew when the routes that fill it have changed."""
    recipe = _recipe(card, plan)
    if group in writer:
        if writer.attrs(group)["recipe"] == recipe:
            if writer.attrs(group)["verdict"] != chosen.verdict:
                writer.set_attrs(group, {"verdict": chosen.verdict})
                writer.commit(f"{group}: verdict {chosen.verdict}", {"group": group})
            return
        writer.delete_group(group)
    model = loaded(chosen.path)
    spectra = f"spectra/{config_of(card)}"
    shape = product(survey.rows(spectra), model)
    about = {
        "recipe": recipe,
        "alias": chosen.alias,
        "checkpoint": model.label,
        "checkpoint_digest": model.digest,
        "verdict": chosen.verdict,
        "frame": model.frame.label,
        "frame_json": model.frame.model_dump(mode="json"),
        "grid": model.frame.grid.model_dump(mode="json"),
        "input": spectra,
        "input_snapshot": survey.snapshot,
        **origin(card),
    }
    writer.create_group(group, shape, about)
    writer.commit(f"{group}: room for {survey.rows(spectra)} rows", {"group": group})


def _judge(
    made: xr.Dataset,
    footprint: Footprint | None,
    spectra: xr.Dataset,
    batch: Batch,
    ledger: tuple[np.ndarray, np.ndarray],
    outside: str,
) -> None:
    """Footprint and ceiling of the model, row by row; takes rows out, or flags them."""
    status, code = ledger
    if footprint is None:
        raise ValueError("the checkpoint has no footprint; train the model again")
    columns = footprint_columns(spectra)
    missing = batch.missing.numpy()
    inside, words = footprint.judge(columns, missing)
    mine = status == Status.DONE
    # A row that the frame cannot hold has nothing to extrapolate from.
    hopeless = mine & ~batch.ok.numpy()
    out = mine & (~inside | hopeless)
    flag, reason = made["flag"].to_numpy(), made["reason"].to_numpy()
    reason[out] = words[out]
    reason[hopeless & inside] = "the frame's normalisation window has no usable flux"
    skipped = out if outside == "skip" else hopeless
    status[skipped], code[skipped] = Status.NOT_APPLICABLE, Reason.OUTSIDE_FOOTPRINT
    flag[out & ~skipped] |= EXTRAPOLATED
    flag[mine & ~skipped & footprint.above_ceiling(columns)] |= ABOVE_CEILING


def _fill(made: xr.Dataset, said: Output, batch: Batch, done: np.ndarray) -> None:
    """Put what the model said into the product, in the survey's unit, where rows are done."""
    left = misfit(batch.x, batch.weight, said.flux)
    made["misfit"].values[done] = left[done]
    made["flag"].values[done & (left > LIMIT)] |= MISFIT
    scale = batch.scale[:, None]
    values = {
        "flux": said.flux * scale,
        "sigma": None if said.sigma is None else said.sigma * scale,
        "latent": said.latent,
        "latent_cov": said.latent_cov,
        "scale": batch.scale,
    }
    for name, value in values.items():
        if name in made and value is not None:
            made[name].values[done] = value.numpy()[done]
