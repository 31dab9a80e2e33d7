"""Emission lines of many spectra at once: starlight first, then Gaussians on what it leaves.

Axes: N spectra, L pixels, and `line`, in the order of `pipeline.lines.line_list.LINES`.
"""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pipeline.lines.axis import Axis
from pipeline.lines.block import Rows, measured
from pipeline.lines.result import LineFlag, Lines
from pipeline.lines.templates import Basis, analytic, bank
from storage.grid import Grid, air_to_vacuum

VERSION = 2
"Raised when the same spectra give other lines: the products of it are stale then."

__all__ = ["LineFlag", "Lines", "measure_lines"]

Medium = Literal["air", "vacuum"]
Matrix = NDArray[Any] | Tensor
ROWS_CPU, ROWS_GPU = 256, 4096
"Spectra at a time."


def measure_lines(
    wavelength: ArrayLike,
    flux: Matrix,
    ivar: Matrix,
    z: Matrix,
    *,
    lsf: Matrix | None = None,
    templates: Basis | None = None,
    vdisp: Matrix | None = None,
    medium: Medium = "vacuum",
    return_model: bool = False,
) -> Lines:
    """Emission lines of N spectra on one observed axis.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, observed, A, even in A or in log10(A).
    flux, ivar : (N, L) float
        Flux density per A, in any unit in which ivar is below 3e38, and inverse variance of
        independent pixels; where ivar is 0, or one of the two is not finite, there is no data.
    z : (N,) float
        Redshifts; where one is not finite or not above -1, every line is OUTSIDE.
    lsf : (N, L) or (L,) float, optional
        Gaussian sigma of the instrument, pixels, 0 where it is not known. None, or not known:
        widths are as observed.
    templates : Basis, optional
        Populations, of `pipeline.lines.templates`; by default the analytic toy.
    vdisp : (N,) float, optional
        Velocity dispersion of the stars, km/s. None: it is fitted.
    medium : {"vacuum", "air"}
        Of `wavelength`.
    return_model : bool
        Whether the lines and starlight are wanted on the axis, too.

    Raises
    ------
    ValueError
        When a shape does not fit, the axis is not even, or a dispersion is not 0 or above.

    Notes
    -----
    On a CPU the lines of a spectrum are the same to the bit whoever is beside it. With another
    number of threads, or on another machine, they move by their rounding: below 0.1 of an error.

    Errors are of pixels' noise, of kinematics that were fitted, of the level of starlight under a
    line (3 % of it, or less where the pixels around the line say so) and of how much of each
    population there is. All is computed in float32 on spectra of unit level, and in float64 where
    equations are solved.
    """
    axis = _axis(np.asarray(wavelength, dtype=np.float64), medium)
    _check(flux, ivar, z, lsf, vdisp, axis.grid.size)
    device = flux.device if isinstance(flux, Tensor) else torch.device("cpu")
    stock = bank(templates or analytic(), device)
    step = ROWS_CPU if device.type == "cpu" else ROWS_GPU
    parts = []
    for start in range(0, max(len(flux), 1), step):
        part = slice(start, start + step)
        rows = Rows(
            flux=_tensor(flux[part], device).float(),
            ivar=_tensor(ivar[part], device).float(),
            z=_tensor(z[part], device).double(),
            lsf=_lsf(lsf, part, device),
            vdisp=None if vdisp is None else _tensor(vdisp[part], device).double(),
        )
        parts.append(measured(rows, axis, stock, return_model))
    columns = zip(*parts, strict=True)
    return Lines._make(None if each[0] is None else torch.cat(each) for each in columns)


def _axis(wavelength: NDArray[np.float64], medium: Medium) -> Axis:
    try:
        return Axis(Grid.infer(wavelength), medium == "air")
    except ValueError:
        if medium == "vacuum":
            raise
        # An even vacuum axis that somebody wrote down in air is even only after the way back.
        return Axis(Grid.infer(air_to_vacuum(wavelength)), False)


def _check(
    flux: Matrix, ivar: Matrix, z: Matrix, lsf: Matrix | None, vdisp: Matrix | None, pixels: int
) -> None:
    if flux.ndim != 2 or flux.shape[1] != pixels:
        raise ValueError(f"flux: shape {tuple(flux.shape)}, expected (N, {pixels}) as wavelength")
    rows = flux.shape[:1]
    for name, array, shapes in (
        ("ivar", ivar, (flux.shape,)),
        ("z", z, (rows,)),
        ("lsf", lsf, (flux.shape, flux.shape[1:])),
        ("vdisp", vdisp, (rows,)),
    ):
        if array is not None and tuple(array.shape) not in [tuple(shape) for shape in shapes]:
            expected = " or ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"{name}: shape {tuple(array.shape)}, expected {expected} as flux")
    if vdisp is not None and not bool(((vdisp >= 0) & (vdisp < np.inf)).all()):
        raise ValueError("vdisp: expected 0 km/s or above for every spectrum; None: it is fitted")


def _lsf(lsf: Matrix | None, part: slice, device: torch.device) -> Tensor | None:
    if lsf is None:
        return None
    found = _tensor(lsf if lsf.ndim == 1 else lsf[part], device).float()
    return found.nan_to_num(nan=0.0, posinf=0.0).clamp_(min=0.0)


def _tensor(array: Matrix, device: torch.device) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().to(device)
    # torch shares memory only with native, writeable arrays.
    native = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(native).to(device)
