"""A grid of stellar models, and spectra between its nodes.

A spectrum lies on a line through the grid: one parameter is interpolated, the other three are at
nodes (Pal & Dobos 2024, section 2.1). Which one is drawn, and told. Lines stop where a model is
missing: nothing is extrapolated, and nothing is interpolated over a hole.

Axes: K nodes or N spectra, M pixels of the fine axis, P numbers that are kept of a spectrum.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import CubicSpline

from storage.grid import Float, Grid

Single = NDArray[np.float32]
Index = NDArray[np.intp]
Range = tuple[float, float]

PARAMETERS = ("teff", "logg", "feh", "alpha_m")
"The four axes: K, log10 of cm s-2, [Fe/H], [alpha/M]."
_SPLINE = 4
_BEYOND = 1
"Nodes of a line that are used beyond those on both sides of the range."
_BATCH = 16


class StellarGrid(Protocol):
    """Where spectra of stars come from."""

    @property
    def physics(self) -> str:
        """What made them, for the record: ``toy``, or the format of the files."""
        ...

    @property
    def axes(self) -> tuple[Float, ...]:
        """The nodes along each of `PARAMETERS`, ascending."""
        ...

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether there is a model, with an axis for each of `PARAMETERS`."""
        ...

    def spectra(self, nodes: Index, axis: Grid) -> Single:
        """Mean flux per A over the pixels of an axis at rest, (K, M), of nodes by their number in
        `there`, flattened; in one unit, the same for all.

        Raises
        ------
        ValueError
            When a node has no model, or a model does not reach over the axis.
        """
        ...


class Places(NamedTuple):
    """N places between nodes."""

    values: Float
    "(N, 4) `PARAMETERS`."
    axis: Index
    "(N,) which of them is interpolated."
    weights: sparse.csr_array
    "(N, nodes) of the spectra at nodes; a row adds up to 1."


class _Segments(NamedTuple):
    """Pieces of lines along one axis, between nodes that both have a model, (S,) each."""

    line: Index
    "(S, n) numbers of all nodes of the line."
    low: Float
    high: Float
    start: Index
    "First node of the unbroken run that the piece belongs to."
    stop: Index
    "Last node of it."


class Nodes:
    """What is kept of the spectra of a grid: made when first asked for.

    keep : what is made of spectra (K, M) on the axis, (K, P), row by row.
    """

    def __init__(
        self,
        grid: StellarGrid,
        ranges: tuple[Range, ...],
        axis: Grid,
        keep: Callable[[Single], Single],
    ) -> None:
        self.grid, self.axis = grid, axis
        self._keep = keep
        self._lines = [_segments(grid, number, ranges) for number in range(len(PARAMETERS))]
        self._open = np.flatnonzero([piece.low.size for piece in self._lines])
        if not self._open.size:
            asked = ", ".join(
                f"{n} {r[0]:g} to {r[1]:g}" for n, r in zip(PARAMETERS, ranges, strict=True)
            )
            raise ValueError(
                f"grid {grid.physics}: no two neighbouring models in {asked}; widen a range, or "
                "add the models between"
            )
        self._made = np.zeros(grid.there.size, bool)
        self._kept: Single | None = None

    def places(self, u: Float) -> Places:
        """Places drawn by numbers (N, 3) between 0 and 1: the axis, the line, the point on it.

        All axes that can be interpolated are as likely; along one, each stretch by its length.
        """
        axis = self._open[np.minimum((u[:, 0] * self._open.size).astype(int), self._open.size - 1)]
        values = np.empty((len(u), len(PARAMETERS)))
        weights = sparse.csr_array((len(u), self._made.size), dtype=np.float32)
        for which in self._open:
            rows = np.flatnonzero(axis == which)
            found, some = self._along(int(which), u[rows, 1], u[rows, 2])
            values[rows] = found
            spread = (np.ones(rows.size, np.float32), (rows, np.arange(rows.size)))
            weights += sparse.csr_array(spread, shape=(len(u), rows.size)) @ some
        # One order of the terms, whatever rows there are: the sum has the same bits.
        whole = sparse.csr_array(weights)
        whole.sort_indices()
        return Places(values, axis, whole)

    def blend(self, weights: sparse.csr_array) -> Single:
        """What is kept (N, P) by its weights (N, nodes)."""
        needed = np.unique(weights.indices).astype(np.intp)
        missing = needed[~self._made[needed]]
        for first in range(0, missing.size, _BATCH):
            some = missing[first : first + _BATCH]
            made = self._keep(self.grid.spectra(some, self.axis))
            if self._kept is None:
                # Never touched, never taken: the system gives memory for the rows that are filled.
                self._kept = np.empty((self._made.size, made.shape[1]), np.float32)
            self._kept[some] = made
            self._made[some] = True
        if self._kept is None:
            return np.empty((0, 0), np.float32)
        return np.asarray(weights @ self._kept)

    def _along(self, axis: int, u: Float, v: Float) -> tuple[Float, sparse.csr_array]:
        """Parameters (n, 4) and weights (n, nodes) of points along one axis."""
        pieces = self._lines[axis]
        ends = np.cumsum(pieces.high - pieces.low)
        piece = np.minimum(np.searchsorted(ends, u * ends[-1], side="right"), ends.size - 1)
        place = pieces.low[piece] + v * (pieces.high[piece] - pieces.low[piece])
        lines = pieces.line[piece]
        node = np.unravel_index(lines[:, 0], self.grid.there.shape)
        values = np.stack([a[i] for a, i in zip(self.grid.axes, node, strict=True)], axis=1)
        values[:, axis] = place
        shares = _shares(self.grid.axes[axis], place, pieces.start[piece], pieces.stop[piece])
        rows = np.repeat(np.arange(u.size), lines.shape[1])
        entries = (shares.astype(np.float32).ravel(), (rows, lines.ravel()))
        weights = sparse.coo_array(entries, shape=(u.size, self._made.size)).tocsr()
        weights.eliminate_zeros()
        return values, weights


def _segments(grid: StellarGrid, axis: int, ranges: tuple[Range, ...]) -> _Segments:
    there = np.moveaxis(grid.there, axis, -1)
    lines = np.moveaxis(np.arange(there.size).reshape(grid.there.shape), axis, -1)
    wanted = [
        (nodes >= low - 1e-6) & (nodes <= high + 1e-6)
        for number, (nodes, (low, high)) in enumerate(zip(grid.axes, ranges, strict=True))
        if number != axis
    ]
    count = grid.axes[axis].size
    inside = np.ix_(*wanted)
    every: Index = lines[inside].reshape(-1, count)
    there = there[inside].reshape(-1, count)
    nodes = grid.axes[axis]
    near = np.searchsorted(nodes, ranges[axis], side="left")
    # Nodes far outside the range have hardly a weight: they are not asked for.
    place = np.arange(count)
    there = there & (place >= near[0] - 1 - _BEYOND) & (place <= near[1] + _BEYOND)
    low = np.maximum(nodes[:-1], ranges[axis][0])
    high = np.minimum(nodes[1:], ranges[axis][1])
    line, left = np.nonzero(there[:, :-1] & there[:, 1:] & (high > low))
    start, stop = _runs(there)
    return _Segments(every[line], low[left], high[left], start[line, left], stop[line, left])


def _runs(there: NDArray[np.bool_]) -> tuple[Index, Index]:
    """First and last node, (lines, n), of the unbroken run that each node is in."""
    place = np.arange(there.shape[1])
    before = np.maximum.accumulate(np.where(there, -1, place), axis=1)
    after = np.minimum.accumulate(np.where(there, there.shape[1], place)[:, ::-1], axis=1)
    return before + 1, after[:, ::-1] - 1


def _shares(nodes: Float, place: Float, start: Index, stop: Index) -> Float:
    """Weights (n, nodes) of a cubic spline through each run, or of a line through a short one.

    A spline is linear in the values it goes through: the weight of a node is the spline through 1
    there and 0 elsewhere.
    """
    shares = np.zeros((place.size, nodes.size))
    for first, last in np.unique(np.stack([start, stop], axis=1), axis=0):
        rows = np.flatnonzero((start == first) & (stop == last))
        run = nodes[first : last + 1]
        shares[np.ix_(rows, np.arange(first, last + 1))] = (
            CubicSpline(run, np.eye(run.size))(place[rows])
            if run.size >= _SPLINE
            else np.stack([np.interp(place[rows], run, one) for one in np.eye(run.size)], axis=1)
        )
    return shares
