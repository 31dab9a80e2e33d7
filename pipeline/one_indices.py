"""Indices of spectra on a frame, as they were seen and denoised: columns, no store needed."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import xarray as xr

from pipeline import errors
from pipeline.card import Card
from pipeline.index_rules import Rules
from storage import schema
from storage.schema import Field, Status
from training.batch import Batch
from training.checkpoint import Checkpoint
from training.device import download, upload

RAW, DENOISED = "raw@frame", "denoised"
"What is measured, as cards say it; columns are <input>.<index>."
_OUTPUTS = ("flux", "latent", "latent_cov")
PARTS = {
    "value": "",
    "error": "_error",
    "flag": "_flag",
    "kind": "_error_kind",
    "deshrunk": "_deshrunk",
    "deshrunk_error": "_deshrunk_error",
}
"What a column holds, and how its name ends."


def measured(
    model: Checkpoint, batch: Batch, ds: xr.Dataset, made: xr.Dataset, card: Card, first: int
) -> dict[str, xr.Variable]:
    """Columns of every index of the card, on the input and on the product.

    Rows that are not done have NaN. The error on the input is formal; that on the product is as
    `pipeline.errors` has it.

    ds : the spectra; made : their product; first : place of the first row, for the draws.
    """
    rules = Rules.of(card.measure)
    axis, seen = model.frame.grid.wavelength, model.frame.z_seen(batch.z)
    raw = rules(axis, batch.x, batch.weight, z=seen)
    has = {
        name: upload(torch.from_numpy(made[name].to_numpy()), model.device)
        for name in _OUTPUTS
        if name in made
    }
    rows = errors.Denoised(
        flux=has["flux"],
        latent=has.get("latent"),
        cov=has.get("latent_cov"),
        kind=ds["class"].to_numpy(),
        z=ds["z"].to_numpy(),
        snr=ds["snr_g"].to_numpy(),
        first=first,
    )
    own = errors.measured(model, rows, rules, draws=card.measure.draws, seed=card.run.seed)
    done = made["status"].to_numpy() == Status.DONE
    given = {name: download(value) for name, value in raw._asdict().items()}
    return {
        **dict(_columns(RAW, given, rules.units, done)),
        **dict(_columns(DENOISED, vars(own), rules.units, done)),
    }


def names_of(columns: Iterable[object]) -> list[str]:
    """The indices that columns are of."""
    head, tails = f"{DENOISED}.", tuple(suffix for suffix in PARTS.values() if suffix)
    found = (str(name) for name in columns if str(name).startswith(head))
    return [name.removeprefix(head) for name in found if not name.endswith(tails)]


def _columns(
    said: str, found: dict[str, np.ndarray], units: dict[str, str], done: np.ndarray
) -> Iterator[tuple[str, xr.Variable]]:
    for place, name in enumerate(units):
        for part, suffix in PARTS.items():
            if part not in found:
                continue
            values = found[part][:, place]
            number = values.dtype.kind == "f"
            about = Field(
                dtype="f8" if number else "u1",
                units=units[name] if number else "1",
                description=f"{name}{suffix} on {said}",
                codes=errors.ErrorKind if part == "kind" else None,
            )
            kept = np.where(done, values, np.nan if number else 0).astype(about.dtype)
            yield (
                f"{said}.{name}{suffix}",
                xr.Variable("spectrum", kept, schema.attrs(about)),
            )
