"""The product of rows that were read from a file: denoised, judged and measured, with no store.

Flux, sigma, flags and reasons are those that the survey's product would have; the columns of the
spectra and the input on the frame stand beside them.
"""

from typing import cast

import numpy as np
import torch
import xarray as xr

from pipeline import denoise, one_indices
from pipeline.card import Card
from pipeline.product import loaded, product
from pipeline.stage import footprint_columns
from storage import schema
from storage.grid import Grid
from storage.schema import FLUX_UNIT, IVAR_UNIT, Field, ObjectType, Reason, Status
from training import apply
from training.batch import Batch
from training.checkpoint import Checkpoint
from training.device import download, worker_device
from training.model import Output

ROWS = 1024
"Rows that are denoised at a time: four batches of a model."
COLUMNS = (
    *("observation", "target_id", "survey", "source", "source_row", "digest", "mjd", "ra", "dec"),
    *("z", "z_err", "zwarn", "class", "subclass", "object_type", "ebv", "ebv_known", "vdisp"),
    *("snr", "snr_g", "snr_r"),
)
"Of the spectra, that stand in the product."
NO_REDSHIFT = "no redshift: give it with --z (0 for a star at rest)"
_PIXELS = ("spectrum", "wavelength")
_FLUXES = frozenset({"flux", "sigma", "scale", "input", "weight"})
_INPUT = {
    "input": Field(
        dtype="f4",
        units=FLUX_UNIT,
        dims=_PIXELS,
        description="what the model saw; 0 where there is no data",
    ),
    "weight": Field(
        dtype="f4",
        units=IVAR_UNIT,
        dims=_PIXELS,
        description="inverse variance of the input, as it counts in sums of pixels; 0 = no data",
    ),
}


def product_of(ds: xr.Dataset, grid: Grid, path: str, card: Card, first: int = 0) -> xr.Dataset:
    """What a checkpoint makes of rows, as a reader gave them.

    Parameters
    ----------
    ds : Dataset
        N rows on the grid, as `storage.reader.Reader.read` gives them.
    path : str
        Folder of the checkpoint.
    card : Card
        Its denoise.outside says what becomes of rows outside the footprint; its [measure] which
        indices are measured, and with how many draws.
    first : int
        Place of the first row, from which the random numbers of the errors are.

    Returns
    -------
    Dataset
        flux, sigma, input and weight on the frame's wavelengths (vacuum A); the columns of the
        spectra; status, reason, flag, misfit; ``raw@frame.<index>`` and ``denoised.<index>``,
        each with ``_error`` and ``_flag``.
    """
    model, parts = loaded(path), []
    for start in range(0, ds.sizes["spectrum"], ROWS):
        rows = ds.isel(spectrum=slice(start, start + ROWS))
        parts.append(_product_of(rows, grid, model, card, first + start))
    return joined(parts)


def joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Products of one checkpoint, one after another."""
    if len(parts) == 1:
        return parts[0]
    return xr.concat(parts, "spectrum", data_vars="minimal", combine_attrs="override")


def _product_of(
    ds: xr.Dataset, grid: Grid, model: Checkpoint, card: Card, first: int
) -> xr.Dataset:
    status, code = _ledger(ds)
    made = product(len(status), model, block=True).drop_vars("route")
    made["reason"].values[:] = ds["reason"].to_numpy()
    flux, ivar, z, ebv = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
    # Not every reader gives 0 where it is unknown.
    ebv = np.where(ds["ebv_known"].to_numpy() > 0, ebv, 0)
    batch = model.frame.on(grid).to(flux, ivar, z, ebv, device=worker_device())
    columns = footprint_columns(ds, grid)
    denoise.judge(made, model.footprint, columns, batch, (status, code), card.denoise.outside)
    lost = (status == Status.NOT_APPLICABLE) & np.isnan(z) & (code == Reason.OUTSIDE_FOOTPRINT)
    made["reason"].to_numpy()[lost] = NO_REDSHIFT
    done = status == Status.DONE
    if done.any():
        denoise.fill(made, _run(model, batch), batch, done)
    made["status"].values[:], made["reason_code"].values[:] = status, code
    found = {
        **{str(name): made[name].variable for name in made},
        **{name: ds[name].variable for name in COLUMNS},
        **_input(batch),
        **one_indices.measured(model, batch, ds, made, card, first),
    }
    if _is_relative(ds):
        for name in _FLUXES & found.keys():
            found[name].attrs |= {"units": "1"}
    return xr.Dataset(found, coords={"wavelength": schema.wavelength(model.frame.grid)})


def _run(model: Checkpoint, batch: Batch) -> Output:
    """What the model says of a batch.

    A survey's batches are padded to 256 rows, so that a product is the same to the bit however it
    is cut; of a file with one spectrum that would be 256 times the work.
    """
    if len(batch.x) >= apply.ROWS or model.device.type != "cpu":
        return model.run(batch)
    with torch.no_grad():
        return cast(Output, model.model(batch.x, batch.weight, batch.z))


def _ledger(ds: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Status and reason of rows before the model has seen them.

    A survey's product leaves standard stars out, too; of a file somebody asked for this one.
    """
    sky = ds["object_type"].to_numpy() == ObjectType.SKY
    before = ds["status"].to_numpy()
    left = sky & (before == Status.DONE)
    code = np.where(left, Reason.NOT_SCIENCE, ds["reason_code"].to_numpy()).astype("u2")
    return np.where(left, Status.NOT_APPLICABLE, before).astype("u1"), code


def _input(batch: Batch) -> dict[str, xr.Variable]:
    scale = torch.where(batch.ok, batch.scale, 1)[:, None]
    has = batch.weight > 0
    values = {"input": batch.x * scale * has, "weight": batch.weight / scale.square()}
    return {
        name: xr.Variable(_PIXELS, download(values[name]), schema.attrs(field))
        for name, field in _INPUT.items()
    }


def _is_relative(ds: xr.Dataset) -> bool:
    """Whether flux is in units of its own."""
    return "flux_relative" in ds and bool(ds["flux_relative"].any())
