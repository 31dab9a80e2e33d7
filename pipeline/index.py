"""`measure`: indices and errors of many spectra at once.

Bands are in AIR, as they were published; they become vacuum once, here. Axes: N spectra, L pixels,
K pixels of a window. The contract of an index is in pipeline/index_names.py.
"""

import functools
from collections.abc import Iterator, Sequence
from enum import IntFlag
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pipeline.index_coarse import coarse
from pipeline.index_lick import at_lick
from pipeline.index_names import Index as Index
from pipeline.index_names import find as find
from pipeline.index_names import names as names
from pipeline.index_names import units as units
from pipeline.window import Band, Rows, cut
from storage.grid import Grid, air_to_vacuum

MISSING = 0.10
"Largest share of a band without data, unless one says otherwise; with more the index is NaN."
ROUNDING = 1e-5
"A smaller share is the rounding of float32 sums."
ROWS_CPU, ROWS_GPU = 2048, 32768
"Rows at a time: windows that stay in cache, or fill a GPU."
ROWS_LICK = 64
"The same where each pixel is smoothed by its own Gaussian: 100 numbers for each."

Medium = Literal["air", "vacuum"]
Matrix = NDArray[Any] | Tensor


class Flag(IntFlag):
    """What to know about one measured index."""

    MASKED = 1
    "Some of a band has no data, or flux that is no number; the rest stands for it."
    TOO_MUCH_MASKED = 2
    "More of a band has none than is tolerated: NaN."
    OUTSIDE = 4
    "A band leaves the wavelength axis, or the redshift is not a number: NaN."
    CONTINUUM = 8
    "The continuum, or what a magnitude or root is taken of, is not positive: NaN."
    NO_ERROR = 16
    "The flux came without errors, or with some that are no numbers: the error is NaN."
    COARSE = 32
    "A band is narrower than two pixels of the axis: NaN."
    RESOLUTION = 64
    "The spectrum is broader than was asked for, or its line spread is not known: NaN."
    DISPERSION = 128
    "It was to be corrected for a velocity dispersion that is not known, or too large: NaN."


NOTHING = (
    Flag.TOO_MUCH_MASKED
    | Flag.OUTSIDE
    | Flag.CONTINUUM
    | Flag.COARSE
    | Flag.RESOLUTION
    | Flag.DISPERSION
)
"With any of these there is no value."


class Measured(NamedTuple):
    """Indices of N spectra, in the order that was asked for."""

    value: Tensor
    "(N, index) float64, in the index's units; NaN where the flag says so."
    error: Tensor
    "(N, index) float64, one standard deviation, same units."
    flag: Tensor
    "(N, index) uint8, bits of `Flag`."


def measure(
    wavelength: ArrayLike,
    flux: Matrix,
    ivar: Matrix | None,
    names: Sequence[str | Index],
    z: Matrix | None = None,
    medium: Medium = "vacuum",
    covariance: Matrix | None = None,
    missing: float = MISSING,
    lsf: Matrix | None = None,
) -> Measured:
    """Line indices of N spectra on one axis, with exact fractional pixels and exact errors.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, A, even in A or in log10(A): rest-frame, or observed when z is given.
    flux : (N, L) float
        Flux density per A, in any unit; what is not finite is no data.
    ivar : (N, L) float or None
        Inverse variance, 0 where there is no data. None: all pixels count, errors are NaN.
    names : sequence of str or Index
        Names from `names()`, or indices themselves (`pipeline.user_indices`).
    z : (N,) float, optional
        Redshifts; the bands of each spectrum are moved by 1 + z. Widths are rest-frame A.
    medium : {"vacuum", "air"}
        Of `wavelength`. The same spectrum in either gives the same index.
    covariance : (N, L) float, optional
        Factor on the variance of a sum over correlated neighbours, where ivar is of single
        pixels (`storage.resample.Rebinned`); a frame's weight has it in it already.
    missing : float
        Share of a band that may be without data.
    lsf : (N, L) float, optional
        Line spread of the spectra, Gaussian sigma in pixels, 0 where it is not known. With it the
        indices are at the resolution of Lick/IDS; without, at that of the spectra.

    Raises
    ------
    ValueError
        When a name is unknown, a shape does not fit or the axis is not even.
    """
    chosen = [find(name) if isinstance(name, str) else name for name in names]
    vacuum = tuple(_in_vacuum(tuple((a, b) for a, b in index.bands)) for index in chosen)
    device = flux.device if isinstance(flux, Tensor) else torch.device("cpu")
    grid, edges = _axis(np.asarray(wavelength, dtype=np.float64), medium)
    _check(flux, ivar, z, covariance, lsf, grid.size)
    shape = (flux.shape[0], len(chosen))
    value = torch.full(shape, torch.nan, dtype=torch.float64, device=device)
    error, flag = value.clone(), torch.zeros(shape, dtype=torch.uint8, device=device)
    every = torch.as_tensor(edges, device=device)
    for part, rows, spread in _chunks(every, flux, ivar, z, covariance, lsf):
        for column, (index, bands) in enumerate(zip(chosen, vacuum, strict=True)):
            result = _one(index, rows, bands, missing, spread)
            value[part, column], error[part, column], flag[part, column] = result
    return _without_coarse(Measured(value, error, flag), grid, vacuum, z)


@functools.lru_cache(maxsize=1024)
def _in_vacuum(bands: tuple[Band, ...]) -> tuple[Band, ...]:
    return tuple((float(low), float(high)) for low, high in air_to_vacuum(bands))


def _one(
    index: Index, rows: Rows, bands: tuple[Band, ...], tolerated: float, lsf: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if lsf is None:
        window = cut(rows, bands)
        value, variance, sound = index.measure(window, bands)
        broad = torch.zeros_like(window.outside)
    else:
        window, value, variance, sound, broad = at_lick(index, rows, lsf, bands)
    missing = window.missing
    lost = missing > max(tolerated, ROUNDING)
    flag = torch.zeros_like(missing, dtype=torch.uint8)
    for bit, holds in (
        (Flag.MASKED, missing > ROUNDING),
        (Flag.TOO_MUCH_MASKED, lost),
        (Flag.OUTSIDE, window.outside),
        (Flag.CONTINUUM, ~(sound & value.isfinite()) & ~window.outside & ~lost),
        (Flag.RESOLUTION, broad & ~window.outside),
    ):
        flag |= holds * int(bit)
    nothing = (flag & int(NOTHING)) > 0
    if rows.ivar is None:
        variance = torch.full_like(variance, torch.nan)
    unknown = ~variance.isfinite()
    flag |= (unknown if rows.ivar is None else unknown & ~nothing) * int(Flag.NO_ERROR)
    error = variance.sqrt().masked_fill(nothing | unknown, torch.nan)
    return value.masked_fill(nothing, torch.nan), error, flag


def _without_coarse(
    found: Measured, grid: Grid, bands: tuple[tuple[Band, ...], ...], z: Matrix | None
) -> Measured:
    """NaN and a flag where the pixels are too wide for a band."""
    stretch = None if z is None else 1 + np.asarray(torch.as_tensor(z).cpu(), np.float64)
    bad = coarse(grid, bands, stretch)
    if bad is None:
        return found
    where = torch.as_tensor(bad, device=found.flag.device).expand(found.flag.shape)
    value, error = (each.masked_fill(where, torch.nan) for each in (found.value, found.error))
    return Measured(value, error, found.flag | (where * int(Flag.COARSE)).to(torch.uint8))


def _axis(wavelength: NDArray[np.float64], medium: Medium) -> tuple[Grid, NDArray[np.float64]]:
    """The grid of an axis, and its pixel edges in vacuum."""
    try:
        grid = Grid.infer(wavelength)
    except ValueError:
        if medium == "vacuum":
            raise
        # An even vacuum axis that somebody wrote down in air is even only after the way back.
        grid = Grid.infer(air_to_vacuum(wavelength))
        return grid, grid.edges
    return grid, grid.edges if medium == "vacuum" else air_to_vacuum(grid.edges)


def _check(
    flux: Matrix,
    ivar: Matrix | None,
    z: Matrix | None,
    covariance: Matrix | None,
    lsf: Matrix | None,
    pixels: int,
) -> None:
    if flux.ndim != 2 or flux.shape[1] != pixels:
        raise ValueError(f"flux: shape {tuple(flux.shape)}, expected (N, {pixels}) as wavelength")
    for name, array, shape in (
        ("ivar", ivar, tuple(flux.shape)),
        ("z", z, (flux.shape[0],)),
        ("covariance", covariance, tuple(flux.shape)),
        ("lsf", lsf, tuple(flux.shape)),
    ):
        if array is not None and tuple(array.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(array.shape)}, expected {shape} as flux")


def _chunks(
    edges: Tensor,
    flux: Matrix,
    ivar: Matrix | None,
    z: Matrix | None,
    covariance: Matrix | None,
    lsf: Matrix | None,
) -> Iterator[tuple[slice, Rows, Tensor | None]]:
    device = edges.device
    step = ROWS_LICK if lsf is not None else ROWS_CPU if device.type == "cpu" else ROWS_GPU
    for start in range(0, flux.shape[0], step):
        part = slice(start, start + step)
        given = [
            None if array is None else _tensor(array[part], device)
            for array in (flux, ivar, covariance, z, lsf)
        ]
        pixels, weight, factor, redshift, spread = given
        assert pixels is not None
        stretch = None if redshift is None else 1 + redshift.double()
        yield part, Rows(edges, pixels, weight, factor, stretch), spread


def _tensor(array: Matrix, device: torch.device) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().to(device)
    # torch shares memory only with native, writeable arrays that run forward.
    kind, foreign = array.dtype.newbyteorder("="), not array.flags.writeable
    native = array.astype(kind, order="C", copy=foreign)
    return torch.from_numpy(native).to(device)
