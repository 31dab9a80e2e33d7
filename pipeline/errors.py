"""Indices of denoised spectra with their errors, and their values with the shrinkage taken out.

Denoised pixels are not independent: no error comes from the sigma of single ones. It is the scatter
of the index over draws of the model's posterior, as far as mocks say that this is right, or what
mocks say alone (`training.calibrated`). Axes: N spectra, P pixels, S latents, I indices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.index import Flag, Measured
from pipeline.index_dispersion import Correction
from pipeline.index_rules import Rules
from training.calibrated import NUMBERS
from training.checkpoint import Checkpoint
from training.device import download
from training.draws import scatter

Array = NDArray[np.float64]

LEAST_SLOPE = 0.2
"Of output on truth: below it a de-shrunk value would be five times its noise, and is NaN."


class ErrorKind(IntEnum):
    """Where the error of an index comes from."""

    NONE = 0
    FORMAL = 1
    DRAWS = 2
    CALIBRATED_DRAWS = 3
    CALIBRATED = 4


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """N rows of a product, and what the survey says of them."""

    flux: Tensor
    "(N, P) on the frame of the model, in any unit."
    latent: Tensor | None
    "(N, S) mean of the posterior; None for a model without one."
    cov: Tensor | None
    "(N, S, S) its covariance."
    kind: NDArray[Any]
    "(N,) class."
    z: Array
    "(N,) redshift."
    snr: NDArray[Any]
    "(N,) S/N per pixel in g."
    first: int = 0
    "Number of the first row in the survey, by which its draws are seeded."
    lsf: Tensor | None = None
    "(N, P) line spread of the spectra, pixels, for rules that look at it."
    vdisp: Tensor | None = None
    "(N,) velocity dispersion of the stars, km/s, for rules that correct for it."


@dataclass(frozen=True, kw_only=True)
class Found:
    """Indices of N denoised spectra, in their units."""

    value: Array
    "(N, I) as measured; NaN where the flag says so."
    flag: NDArray[np.uint8]
    "(N, I) bits of `pipeline.index.Flag`."
    error: Array
    "(N, I) one standard deviation: 68.3 % of the values are nearer to the truth."
    kind: NDArray[np.uint8]
    "(N, I) `ErrorKind`."
    deshrunk: Array
    "(N, I) value whose mean over objects of one truth is that truth."
    deshrunk_error: Array
    "(N, I) one standard deviation of it; larger than error."


def measured(model: Checkpoint, rows: Denoised, rules: Rules, *, draws: int, seed: int) -> Found:
    """Indices of rows of a product, with errors.

    Parameters
    ----------
    rules : Rules
        Indices, and how they are measured.
    draws, seed : int
        Draws of the posterior for an error, and the seed of the run.
    """
    axis, z = model.frame.grid.wavelength, model.frame.z_seen(torch.from_numpy(rows.z))
    # The correction for velocity dispersion is linear: its error follows from that without it.
    seen, change = rules.as_seen, rules.correction(axis, len(rows.flux), z, rows.lsf, rows.vdisp)

    def values(flux: Tensor, part: Tensor) -> Tensor:
        there, lsf = (None if of is None else of[part] for of in (z, rows.lsf))
        return seen(axis, flux, None, z=there, lsf=lsf).value

    plain = seen(axis, rows.flux, None, z=z, lsf=rows.lsf)
    drawn = None
    if rows.latent is not None and rows.cov is not None:
        about = {"draws": draws, "seed": seed, "first": rows.first}
        drawn = download(scatter(model.model, rows.latent, rows.cov, values, **about))
    table = model.errors
    known = None if table is None else table.look_up(rules.keys, rows.kind, rows.z, rows.snr)
    found = errors_of(download(plain.value), download(plain.flag), drawn, known)
    return found if change is None else _corrected(found, change)


def _corrected(found: Found, change: Correction) -> Found:
    """Indices without the velocity dispersion of the stars."""
    given = (found.value, found.error, found.flag)
    value, error, flag = change.of(Measured(*map(torch.from_numpy, given)))
    pair = (torch.from_numpy(each) for each in (found.deshrunk, found.deshrunk_error))
    deshrunk, wide = change.apply(*pair)
    return Found(
        value=download(value),
        error=download(error),
        flag=download(flag),
        kind=np.where(error.isnan(), np.uint8(ErrorKind.NONE), found.kind),
        deshrunk=download(deshrunk),
        deshrunk_error=download(wide),
    )


def errors_of(
    value: Array, flag: NDArray[np.uint8], drawn: Array | None, table: Mapping[str, Array] | None
) -> Found:
    """Indices with errors.

    Parameters
    ----------
    value, flag : (N, I) array
        As measured.
    drawn : (N, I) float, optional
        Scatter over draws of the posterior; None for a model without one.
    table : mapping of `training.calibrated.NUMBERS` to (N, I) float, optional
        What mocks say of these rows, NaN where nothing; None for a model without a table.

    Notes
    -----
    The error is the first of these that is a number: the draws times their factor, the number of
    the table, the draws as they are.
    """
    nothing = np.full(value.shape, np.nan)
    # Draws that are all alike say nothing.
    drawn = nothing if drawn is None else np.where(drawn > 0, drawn, np.nan)
    known = dict.fromkeys(NUMBERS, nothing) | dict(table or {})
    error, kind = nothing, np.full(value.shape, ErrorKind.NONE, np.uint8)
    for name, candidate in (
        (ErrorKind.CALIBRATED_DRAWS, drawn * known["factor"]),
        (ErrorKind.CALIBRATED, known["error"]),
        (ErrorKind.DRAWS, drawn),
    ):
        better = np.isnan(error) & np.isfinite(candidate) & np.isfinite(value)
        error, kind = np.where(better, candidate, error), np.where(better, name, kind)
    # A model that paints one galaxy for all has nothing that could be stretched.
    slope = np.where(known["slope"] >= LEAST_SLOPE, known["slope"], np.nan)
    deshrunk, wide = (value - known["intercept"]) / slope, drawn * known["deshrunk_factor"]
    wide = np.where(np.isfinite(wide), wide, known["deshrunk"])
    return Found(
        value=value,
        flag=np.where(np.isfinite(error), flag & ~np.uint8(Flag.NO_ERROR), flag),
        error=error,
        kind=kind.astype(np.uint8),
        deshrunk=deshrunk,
        deshrunk_error=np.where(np.isfinite(deshrunk), wide, np.nan),
    )
