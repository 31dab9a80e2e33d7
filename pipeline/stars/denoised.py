"""A denoised spectrum as the place where the fit of the noisy one starts."""

import numpy as np
from numpy.typing import ArrayLike

from pipeline.stars.fit import RANGE_KMS, Start, start_values
from pipeline.stars.templates import Templates
from storage.grid import Float, Grid
from training.checkpoint import Checkpoint
from training.frame import Frame


def start_from(
    model: Checkpoint,
    wavelength: ArrayLike,
    flux: ArrayLike,
    ivar: ArrayLike,
    *,
    templates: Templates,
    z: ArrayLike = 0.0,
    ebv: ArrayLike = 0.0,
    range_kms: float = RANGE_KMS,
) -> Start:
    """Where what a model makes of spectra says to start; give it to `measure_stars`.

    Parameters
    ----------
    model : Checkpoint
        Its frame is observed, as ``star`` is.
    wavelength : (L,) float
        Vacuum A, even in A or in log10(A).
    flux, ivar : (N, L) float
        Observed flux and its inverse variance, 0 where there is no data.
    z, ebv : (N,) or number
        Redshift, about which velocities are searched too; Galactic E(B-V), mag.

    Raises
    ------
    ValueError
        When shapes do not fit, wavelengths are not even, or the model's frame is at rest.
    """
    axis, count = observed_axis(model.frame), len(np.asarray(flux))
    z_N, ebv_N = (np.broadcast_to(np.asarray(value, "f8"), count) for value in (z, ebv))
    batch = model.frame.on(Grid.infer(wavelength)).to(flux, ivar, z_N, ebv_N, device=model.device)
    made = model.run(batch).flux
    return start_values(
        axis, made, batch.weight, templates=templates, z0=z_N.copy(), range_kms=range_kms
    )


def observed_axis(frame: Frame) -> Float:
    """Wavelengths of a frame that velocities can be read off from.

    Raises
    ------
    ValueError
        When they are at rest: the redshift that brought them there is what is looked for.
    """
    if frame.rest:
        raise ValueError(
            f"frame {frame.name!r} is at rest, where a star has no velocity any more; start from "
            "a model on an observed frame, such as 'star'"
        )
    return frame.grid.wavelength
