"""Templates: model spectra of stars as an instrument shows them, at rest, without continuum.

The models are those of any `StellarGrid`: the toy's, or the user's BOSZ, PHOENIX or table. A set
is a coarse box of nodes of that grid. Spectra lie on a logarithmic axis, where a velocity is a
shift, fine enough that six points about a place give the flux between them.

Axes: T templates, J points of the axis, M points of the models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import fft, sparse
from torch import Tensor

from pipeline.stars.between import Box
from pipeline.stars.template_set import TemplateSet as TemplateSet
from storage.grid import Float, Grid
from storage.simulation.instrument import C_KMS
from storage.simulation.stellar_grid import PARAMETERS, Index, StellarGrid
from storage.simulation.stellar_population import library

_MODEL_STEP = 8e-6
_PER_SIGMA = 2.5
"Points of the axis in a sigma of the line spread."
_SEARCH = (4, 2, 3, 1)
"Nodes of each parameter among the templates that velocities are searched with."
_BATCH = 16
_MARGIN = 8


@dataclass(frozen=True, kw_only=True)
class Templates:
    """A set of templates in memory; get it from `templates`."""

    chosen: TemplateSet
    "What was asked for."
    axis: Grid
    "Logarithmic, at rest, vacuum."
    box: Box
    "The nodes, and weights of templates between them."
    flux: Tensor
    "(T, J) float64; divided by its own polynomial of `degree`."
    there: Tensor
    "(T,) bool; where no model is, the nearest stands in for spectra between nodes."

    @cached_property
    def search(self) -> Tensor:
        """(S,) the few templates, spread over all, that velocities are searched with."""
        spread = [
            _spread_out(np.arange(len(a)), n) for a, n in zip(self.box.axes, _SEARCH, strict=True)
        ]
        number = np.ravel_multi_index(np.ix_(*spread), self.box.shape).ravel()
        found = torch.from_numpy(number).to(self.there.device)
        kept = found[self.there[found]]
        return kept if len(kept) else self.there.nonzero()[:, 0]

    @cached_property
    def polynomials(self) -> Grid:
        """The observed band, whose ends are -1 and 1 of the polynomials."""
        low, high = np.log10(self.chosen.wavelength)
        return Grid(kind="log", start=0.5 * (low + high), step=0.5 * (high - low), size=1)

    def on(self, device: torch.device) -> Self:
        """The same in the memory of a device."""
        return replace(self, flux=self.flux.to(device), there=self.there.to(device))

    @property
    def step(self) -> float:
        """Of the axis, in the natural logarithm of wavelength."""
        return self.axis.step * float(np.log(10))


def templates(chosen: TemplateSet) -> Templates:
    """The templates of a set; made once in a process.

    Raises
    ------
    ValueError
        When there is no such folder or file, a range holds no node, or a model does not reach over
        the band.
    """
    return _made(chosen)


def line_spread(lsf: ArrayLike, grid: Grid) -> tuple[tuple[float, float], ...]:
    """Sigma of lines as they are observed, pixel included, (A, km/s), for a `TemplateSet`.

    lsf : (L,) sigma of the instrument in pixels of the grid, as surveys give it; what is not above
    0 is not known.

    Raises
    ------
    ValueError
        When lsf has another length, or none of it is known.
    """
    sigma = np.asarray(lsf, np.float64)
    if sigma.shape != (grid.size,):
        raise ValueError(f"lsf: shape {sigma.shape}, expected ({grid.size},) as the grid")
    known = np.isfinite(sigma) & (sigma > 0)
    if not known.any():
        raise ValueError("lsf: no pixel has a line spread; give a number in km/s")
    where = np.linspace(grid.edges[0], grid.edges[-1], 40)
    # The variance of a box is its width squared over 12.
    pixels = np.sqrt(np.interp(where, grid.wavelength[known], sigma[known]) ** 2 + 1 / 12)
    kms = pixels * np.interp(where, grid.wavelength, grid.widths) / where * C_KMS
    return tuple((float(a), float(b)) for a, b in zip(where, kms, strict=True))


@lru_cache(maxsize=4)
def _made(chosen: TemplateSet) -> Templates:
    grid = library(chosen.physics, chosen.models)
    places = [_nodes(chosen, grid, number) for number in range(len(PARAMETERS))]
    number = np.ravel_multi_index(np.ix_(*places), grid.there.shape).ravel()
    there = grid.there.ravel()[number]
    if not there.any():
        raise ValueError(
            f"grid {grid.physics}: none of {there.size} nodes asked for has a model; widen a "
            "range, or ask for more nodes"
        )
    axis = _axis(chosen)
    box = Box(tuple(a[p] for a, p in zip(grid.axes, places, strict=True)))
    flux = np.concatenate(list(_seen(chosen, grid, number[there], axis)))
    flux /= _continuum(flux, axis, chosen)
    whole = flux[_nearest(box.shape, there)]
    return Templates(
        chosen=chosen,
        axis=axis,
        box=box,
        flux=torch.from_numpy(np.ascontiguousarray(whole)),
        there=torch.from_numpy(there),
    )


def _nodes(chosen: TemplateSet, grid: StellarGrid, number: int) -> Index:
    """Nodes of one parameter."""
    name, most = PARAMETERS[number], chosen.nodes[number]
    low, high = getattr(chosen, name)
    nodes = grid.axes[number]
    inside = np.flatnonzero((nodes >= low - 1e-6) & (nodes <= high + 1e-6))
    if not inside.size:
        raise ValueError(
            f"{name} = ({low:g}, {high:g}): grid {grid.physics} has no node there; it has "
            f"{', '.join(f'{node:g}' for node in nodes)}"
        )
    return _spread_out(inside, most)


def _spread_out(every: Index, most: int) -> Index:
    """At most so many of them, evenly, ends included; the middle one, where it is one."""
    if most == 1:
        return every[[every.size // 2]]
    if every.size <= most:
        return every
    return np.asarray(every[np.rint(np.linspace(0, every.size - 1, most)).astype(int)])


def _axis(chosen: TemplateSet) -> Grid:
    low, high = chosen.wavelength
    sigma = chosen.sigma(np.linspace(low, high, 100)).min()
    step = float(sigma / _PER_SIGMA / C_KMS / np.log(10))
    reach = np.log10(1 + 1.1 * chosen.reach_kms / C_KMS)
    start = np.log10(low) - reach - _MARGIN * step
    size = int(np.ceil((np.log10(high) + reach - start) / step)) + _MARGIN
    # Correlations are products of transforms: a size without large factors is a fast one.
    return Grid(kind="log", start=float(start), step=step, size=fft.next_fast_len(size, real=True))


def _seen(chosen: TemplateSet, grid: StellarGrid, nodes: Index, axis: Grid) -> Iterator[Float]:
    """Models with the line spread put on, on the axis, a few at a time."""
    sigma = chosen.sigma(axis.wavelength)
    reach = int(np.ceil(5.5 * sigma.max() / (_MODEL_STEP * np.log(10) * C_KMS)))
    start = np.log10(axis.wavelength[0]) - reach * _MODEL_STEP
    span = axis.step * (axis.size - 1) / _MODEL_STEP
    models = Grid(kind="log", start=float(start), step=_MODEL_STEP, size=int(span) + 2 * reach + 2)
    spread = _spread(axis, models, sigma, reach)
    for first in range(0, nodes.size, _BATCH):
        flux = grid.spectra(nodes[first : first + _BATCH], models)
        yield np.ascontiguousarray((spread @ np.ascontiguousarray(flux.T, np.float64)).T)


def _spread(axis: Grid, models: Grid, sigma: Float, reach: int) -> sparse.csr_array:
    """Gaussian weights (J, M) of the models' points; a row adds up to 1."""
    place = models.pixel(axis.wavelength)
    column = np.rint(place).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    away = (column - place[:, None]) * (models.step * np.log(10) * C_KMS)
    value = np.exp(-0.5 * (away / sigma[:, None]) ** 2)
    value[(column < 0) | (column >= models.size)] = 0
    value /= value.sum(axis=1, keepdims=True)
    row = np.broadcast_to(np.arange(axis.size)[:, None], value.shape)
    used = value > 0
    entries = (value[used], (row[used], column[used]))
    return sparse.coo_array(entries, shape=(axis.size, models.size)).tocsr()


def _continuum(flux: Float, axis: Grid, chosen: TemplateSet) -> Float:
    """The polynomial of each template, (T, J), by least squares."""
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, axis.size), chosen.degree)
    return np.asarray(flux @ np.linalg.pinv(basis).T @ basis.T)


def _nearest(shape: tuple[int, ...], there: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Index:
    """For every node the number, among those that are there, of itself or of the nearest."""
    place = np.stack(np.unravel_index(np.arange(there.size), shape), axis=1) / np.maximum(shape, 2)
    # A neighbour in gravity is the most alike.
    place *= np.array([3.0, 1.0, 2.0, 2.0])
    known = np.flatnonzero(there)
    found = np.empty(there.size, np.intp)
    found[known] = np.arange(known.size)
    for hole in np.flatnonzero(~there):
        found[hole] = ((place[known] - place[hole]) ** 2).sum(axis=1).argmin()
    return found
