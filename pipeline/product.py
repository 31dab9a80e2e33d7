"""The product of a checkpoint: the shape of its group, and the model behind it."""

from functools import lru_cache

import torch
import xarray as xr

from storage.schema import FLUX_UNIT, LEDGER, Field, template
from training import checkpoint
from training.checkpoint import Checkpoint
from training.device import worker_device
from training.frame import Frame

EXTRAPOLATED, ABOVE_CEILING, MISFIT = 1, 2, 4
"Bits of a product's flag: outside the footprint, above the S/N ceiling, not the input's galaxy."

_OPTIONAL = ("sigma", "latent", "latent_cov")


def _about(frame: Frame) -> str:
    axis = "rest" if frame.rest else "observed"
    return f"denoised flux density{', dereddened' if frame.dust else ''}, on {axis} wavelengths"


def product(n: int, model: Checkpoint, block: bool = False) -> xr.Dataset:
    """The shape of a product: of n rows with no values held, or of a block to be filled."""
    has = _outputs(str(model.path))
    pixels, latent = ("spectrum", "wavelength"), ("spectrum", "latent")
    fields = {
        "flux": Field(
            dtype="f4",
            units=FLUX_UNIT,
            dims=pixels,
            description=_about(model.frame),
        ),
        "sigma": Field(
            dtype="f4",
            units=FLUX_UNIT,
            dims=pixels,
            description="standard deviation of one pixel; pixels are not independent; where it is "
            "the scatter of an ensemble, a lower bound",
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


@lru_cache(maxsize=8)
def loaded(path: str) -> Checkpoint:
    """A checkpoint, loaded once per process: the path names its digest."""
    return checkpoint.load(path, worker_device())


@lru_cache(maxsize=8)
def _outputs(path: str) -> dict[str, int]:
    """Latents of each thing that a model can say; 0 where it does not say it."""
    model = loaded(path)
    pixels = model.frame.grid.size
    with torch.inference_mode():
        zeros = torch.zeros(1, pixels, device=model.device)
        said = model.model(zeros, torch.ones_like(zeros), zeros[:, 0])
    size = 0 if said.latent is None else said.latent.shape[1]
    return {
        "sigma": int(said.sigma is not None),
        "latent": size,
        "latent_cov": size if said.latent_cov is not None else 0,
    }
