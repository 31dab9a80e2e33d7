"""The contract of a line index, and `measure`: indices and errors of many spectra at once.

An index is an entry of ``INDICES`` in a module on the shelf `pipeline.indices`, its bands in AIR
as they were published; they become vacuum once, here. Axes: N spectra, L pixels, K pixels of a
window.
"""

import difflib
import functools
from collections.abc import Iterator, Sequence
from enum import IntFlag
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pipeline.window import Band, Rows, Window, cut
from storage.grid import Grid, air_to_vacuum
from storage.names import resolve, shelf

SHELF = "pipeline.indices"
MISSING = 0.10
"Largest share of a band without data; with more the index is NaN."
ROUNDING = 1e-5
"A smaller share is the rounding of float32 sums."
ROWS_CPU, ROWS_GPU = 1024, 32768
"Rows at a time: windows that stay in cache, or fill a GPU."

Medium = Literal["air", "vacuum"]
Matrix = NDArray[Any] | Tensor


class Flag(IntFlag):
    """What to know about one measured index."""

    MASKED = 1
    "Some of a band has no data; the rest stands for it."
    TOO_MUCH_MASKED = 2
    "More than `MISSING` of a band has no data: NaN."
    OUTSIDE = 4
    "A band leaves the wavelength axis, or the redshift is not a number: NaN."
    CONTINUUM = 8
    "The continuum, or the flux that a magnitude is taken of, is not positive: NaN."
    NO_ERROR = 16
    "The flux came without errors: the error is NaN."


class Index(Protocol):
    """One index; the error comes from the same derivatives as the value."""

    @property
    def name(self) -> str:
        """As cards write it."""
        ...

    @property
    def units(self) -> str:
        """``Angstrom``, ``mag`` or ``1``."""
        ...

    @property
    def reference(self) -> str:
        """The paper that defines the bands."""
        ...

    @property
    def bands(self) -> tuple[Band, ...]:
        """Rest-frame bands, air A."""
        ...

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Value (N,), variance (N,), continuum positive (N,) bool; for the bands in vacuum."""
        ...


class Measured(NamedTuple):
    """Indices of N spectra, in the order that was asked for."""

    value: Tensor
    "(N, index) float64, in the index's units; NaN where the flag says so."
    error: Tensor
    "(N, index) float64, one standard deviation, same units."
    flag: Tensor
    "(N, index) uint8, bits of `Flag`."


@functools.cache
def _catalogue() -> dict[str, Index]:
    found: dict[str, Index] = {}
    for module in shelf(SHELF):
        for index in cast(Sequence[Index], resolve(SHELF, module).INDICES):
            if index.name in found:
                raise ValueError(f"{SHELF}.{module}: index {index.name!r} is there twice")
            found[index.name] = index
    return found


def names() -> list[str]:
    """All indices on the shelf."""
    return list(_catalogue())


def units(name: str) -> str:
    """``Angstrom``, ``mag`` or ``1``."""
    return find(name).units


def find(name: str) -> Index:
    """The index of that name; a dotted one (``mylab.indices.CaT``) is anybody's module's.

    Raises
    ------
    ValueError
        When there is none; names the nearest.
    """
    module, _, last = name.rpartition(".")
    known = {i.name: i for i in resolve(SHELF, module).INDICES} if module else _catalogue()
    if last in known:
        return cast(Index, known[last])
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no index {name!r} (there: {', '.join(known)}){hint}")


def measure(
    wavelength: ArrayLike,
    flux: Matrix,
    ivar: Matrix | None,
    names: Sequence[str],
    z: Matrix | None = None,
    medium: Medium = "vacuum",
    covariance: Matrix | None = None,
) -> Measured:
    """Line indices of N spectra on one axis, with exact fractional pixels and exact errors.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, A, even in A or in log10(A): rest-frame, or observed when z is given.
    flux : (N, L) float
        Flux density per A, in any unit.
    ivar : (N, L) float or None
        Inverse variance, 0 where there is no data. None: all pixels count, errors are NaN.
    names : sequence of str
        Indices, from `names()`.
    z : (N,) float, optional
        Redshifts; the bands of each spectrum are moved by 1 + z. Widths are rest-frame A.
    medium : {"vacuum", "air"}
        Of `wavelength`. The same spectrum in either gives the same index.
    covariance : (N, L) float, optional
        Factor on the variance of a sum over correlated neighbours, where ivar is of single
        pixels (`storage.resample.Rebinned`); a frame's weight has it in it already.

    Raises
    ------
    ValueError
        When a name is unknown, a shape does not fit or the axis is not even.
    """
    chosen = [find(name) for name in names]
    vacuum = [tuple((float(a), float(b)) for a, b in air_to_vacuum(i.bands)) for i in chosen]
    device = flux.device if isinstance(flux, Tensor) else torch.device("cpu")
    edges = torch.as_tensor(_edges(np.asarray(wavelength, dtype=np.float64), medium), device=device)
    _check(flux, ivar, z, covariance, edges.numel() - 1)
    shape = (flux.shape[0], len(chosen))
    value = torch.full(shape, torch.nan, dtype=torch.float64, device=device)
    error, flag = value.clone(), torch.zeros(shape, dtype=torch.uint8, device=device)
    for part, rows in _chunks(edges, flux, ivar, z, covariance):
        for column, (index, bands) in enumerate(zip(chosen, vacuum, strict=True)):
            result = _one(index, rows, bands)
            value[part, column], error[part, column], flag[part, column] = result
    return Measured(value, error, flag)


def _one(index: Index, rows: Rows, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
    window = cut(rows, bands)
    value, variance, sound = index.measure(window, bands)
    shares = zip(window.seen, window.overlap, strict=True)
    missing = torch.stack([1 - seen / overlap.sum(-1) for seen, overlap in shares]).amax(0)
    flag = torch.zeros_like(missing, dtype=torch.uint8)
    for bit, holds in (
        (Flag.MASKED, missing > ROUNDING),
        (Flag.TOO_MUCH_MASKED, missing > MISSING),
        (Flag.OUTSIDE, window.outside),
        (Flag.CONTINUUM, ~sound & ~window.outside & ~(missing > MISSING)),
    ):
        flag |= holds * int(bit)
    lost = (flag & int(Flag.TOO_MUCH_MASKED | Flag.OUTSIDE | Flag.CONTINUUM)) > 0
    if rows.ivar is None:
        flag |= int(Flag.NO_ERROR)
        variance = torch.full_like(variance, torch.nan)
    return value.masked_fill(lost, torch.nan), variance.sqrt().masked_fill(lost, torch.nan), flag


def _edges(wavelength: NDArray[np.float64], medium: Medium) -> NDArray[np.float64]:
    """Pixel edges in vacuum."""
    if medium == "vacuum":
        return Grid.infer(wavelength).edges
    try:
        return air_to_vacuum(Grid.infer(wavelength).edges)
    except ValueError:
        # An even vacuum axis that somebody wrote down in air is even only after the way back.
        return Grid.infer(air_to_vacuum(wavelength)).edges


def _check(
    flux: Matrix, ivar: Matrix | None, z: Matrix | None, covariance: Matrix | None, pixels: int
) -> None:
    if flux.ndim != 2 or flux.shape[1] != pixels:
        raise ValueError(f"flux: shape {tuple(flux.shape)}, expected (N, {pixels}) as wavelength")
    for name, array, shape in (
        ("ivar", ivar, tuple(flux.shape)),
        ("z", z, (flux.shape[0],)),
        ("covariance", covariance, tuple(flux.shape)),
    ):
        if array is not None and tuple(array.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(array.shape)}, expected {shape} as flux")


def _chunks(
    edges: Tensor, flux: Matrix, ivar: Matrix | None, z: Matrix | None, covariance: Matrix | None
) -> Iterator[tuple[slice, Rows]]:
    device = edges.device
    step = ROWS_CPU if device.type == "cpu" else ROWS_GPU
    for start in range(0, flux.shape[0], step):
        part = slice(start, start + step)
        given = [
            None if array is None else _tensor(array[part], device)
            for array in (flux, ivar, covariance, z)
        ]
        pixels, weight, factor, redshift = given
        assert pixels is not None
        stretch = None if redshift is None else 1 + redshift.double()
        yield part, Rows(edges, pixels, weight, factor, stretch)


def _tensor(array: Matrix, device: torch.device) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().to(device)
    # torch shares memory only with native, writeable arrays.
    native = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(native).to(device)
