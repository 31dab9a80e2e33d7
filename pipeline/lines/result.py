"""Result: what is said of each emission line, and the flags that say what is wrong with it.

Axes: N spectra, L pixels, and `line`, in the order of `pipeline.lines.line_list.LINES`.
"""

from enum import IntFlag
from typing import NamedTuple

from torch import Tensor


class LineFlag(IntFlag):
    """Why a line's numbers are missing, or what to know of them."""

    OUTSIDE = 1
    "The line is beyond the axis: NaN."
    MASKED = 2
    "Part of the line's profile has no data."
    FEW_PIXELS = 4
    "Less than half of it has data, nor has the line that it is tied to: NaN."
    NOT_DETECTED = 8
    "The flux is below three of its errors; `limit` is three errors."
    NO_CONTINUUM = 16
    "The starlight under the line is not above 0: no equivalent width, which is NaN."
    AT_BOUND = 32
    "Velocity or width stopped at the end of what is allowed: a broad line, or none."
    TIED = 64
    "The flux is another line's times a fixed ratio."
    FIXED = 128
    """No lines of its kind stand out: velocity and width are those of the other kind, or, where
    none of either does, 0 and 100 km/s, without errors."""
    NOT_CONVERGED = 256
    "The fit had not settled when it was stopped."
    AS_OBSERVED = 512
    "The line spread of the instrument is not known there: sigma has its width in it."


class Lines(NamedTuple):
    """What `measure_lines` finds."""

    flux: Tensor
    "(N, line) flux unit x A, observed frame; emission positive, and negative where noise wins."
    flux_err: Tensor
    "(N, line) flux unit x A."
    ew: Tensor
    "(N, line) equivalent width, rest-frame A, emission positive."
    ew_err: Tensor
    "(N, line) rest-frame A."
    sigma: Tensor
    "(N, line) Gaussian sigma, km/s, the instrument's taken out where it is known."
    sigma_err: Tensor
    "(N, line) km/s; NaN where no width was fitted."
    velocity: Tensor
    "(N, line) km/s relative to z, positive when receding."
    velocity_err: Tensor
    "(N, line) km/s; NaN where no velocity was fitted."
    continuum: Tensor
    "(N, line) starlight under the line, flux unit."
    limit: Tensor
    "(N, line) three errors of the flux where the line is not detected, else NaN."
    flag: Tensor
    "(N, line) uint16, bits of `LineFlag`."
    chi2: Tensor
    "(N,) chi square per pixel of starlight, outside lines."
    vdisp: Tensor
    """(N,) velocity dispersion of starlight, km/s, the instrument's taken out where it is known;
    NaN where the two together are not between 45 and 450 km/s."""
    emission: Tensor | None = None
    "(N, L) the lines alone, flux unit; with return_model."
    stars: Tensor | None = None
    "(N, L) starlight, flux unit, 0 outside the fitted range; with return_model."
