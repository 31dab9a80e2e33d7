"""Spectra between the nodes of a grid: splines along one axis, and never over a hole."""

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.grid import Float, Grid
from storage.simulation.stellar_grid import Nodes

AXIS = Grid(kind="log", start=3.9, step=1e-4, size=8)
WIDE = ((3500.0, 5000.0), (0.0, 5.0), (-1.0, 0.0), (0.0, 0.4))


class Analytic:
    """Models whose flux is known between the nodes, with a model missing where one says so."""

    physics = "analytic"
    axes = (
        np.arange(3500.0, 5001.0, 250.0),
        np.arange(0.0, 5.01, 0.5),
        np.arange(-1.0, 0.01, 0.25),
        np.array([0.0, 0.2, 0.4]),
    )

    def __init__(self, missing: tuple[tuple[int, int, int, int], ...] = ()) -> None:
        self.there: NDArray[np.bool_] = np.ones([a.size for a in self.axes], bool)
        for node in missing:
            self.there[node] = False
        self.asked: list[int] = []

    def spectra(self, nodes: NDArray[np.intp], axis: Grid) -> NDArray[np.float32]:
        assert self.there.ravel()[nodes].all(), "a hole was asked for"
        self.asked += nodes.tolist()
        at = np.unravel_index(nodes, self.there.shape)
        return truth(np.stack([a[i] for a, i in zip(self.axes, at, strict=True)], axis=1))


def truth(values: Float) -> NDArray[np.float32]:
    teff, logg, feh, alpha = values.T
    level = (
        np.exp(-5040.0 / teff) * (1 + 0.1 * np.sin(logg)) * np.exp(0.3 * feh) * (1 + 0.2 * alpha)
    )
    return (level[:, None] * np.linspace(1, 2, AXIS.size)).astype(np.float32)


def nodes(grid: Analytic, ranges: tuple[tuple[float, float], ...] = WIDE) -> Nodes:
    return Nodes(grid, ranges, AXIS, lambda flux: flux)


def test_one_parameter_is_between_nodes_and_three_are_at_them() -> None:
    grid = Analytic()

    places = nodes(grid).places(np.random.default_rng(1).random((400, 3)))

    at_node = np.stack(
        [np.isin(v, a) for v, a in zip(places.values.T, grid.axes, strict=True)], axis=1
    )
    assert (at_node.sum(axis=1) == 3).all()
    np.testing.assert_array_equal(places.axis, at_node.argmin(axis=1))
    assert np.bincount(places.axis).min() > 70  # each as likely: 100 expected


def test_places_are_uniform_along_their_axis() -> None:
    places = nodes(Analytic()).places(np.random.default_rng(2).random((8000, 3)))

    teff = np.sort(places.values[places.axis == 0, 0])
    uniform = 3500.0 + 1500.0 * np.arange(1, teff.size + 1) / teff.size
    # Kolmogorov's 99.9 % limit.
    assert np.abs(teff - uniform).max() / 1500.0 < 1.95 / np.sqrt(teff.size)


def test_a_smooth_spectrum_is_met_between_nodes() -> None:
    made = nodes(Analytic())
    places = made.places(np.random.default_rng(3).random((300, 3)))

    flux = made.blend(places.weights)

    # alpha has three nodes: a straight line, and this flux is linear in it.
    np.testing.assert_allclose(flux, truth(places.values), rtol=2e-4)


def test_at_a_node_the_spectrum_is_that_of_the_node() -> None:
    made = nodes(Analytic())
    u = np.random.default_rng(4).random((200, 3))
    u[:, 2] = 0.0  # the lower end of a piece

    places = made.places(u)

    assert (np.diff(places.weights.indptr) >= 1).all()
    np.testing.assert_allclose(made.blend(places.weights), truth(places.values), rtol=3e-6)


def test_weights_of_a_place_add_up_to_one() -> None:
    places = nodes(Analytic()).places(np.random.default_rng(5).random((200, 3)))

    np.testing.assert_allclose(places.weights.sum(axis=1), 1, rtol=1e-5)


def test_nothing_is_interpolated_over_a_hole_or_with_what_is_beyond_it() -> None:
    hole = (3, 5, 2, 1)
    grid = Analytic(missing=(hole,))
    made = nodes(grid)

    places = made.places(np.random.default_rng(6).random((6000, 3)))
    made.blend(places.weights)  # asserts that no hole is asked for

    around = [
        places.values[
            (places.axis == which)
            & np.logical_and.reduce(
                [places.values[:, k] == grid.axes[k][hole[k]] for k in range(4) if k != which]
            ),
            which,
        ]
        for which in range(4)
    ]
    for which, found in enumerate(around):
        nodes_, middle = grid.axes[which], hole[which]
        low, high = nodes_[middle - 1], nodes_[min(middle + 1, nodes_.size - 1)]
        assert not ((found > low) & (found < high)).any()
    # A piece below the hole takes no node from above it.
    teff = (places.axis == 0) & (places.values[:, 0] < grid.axes[0][2])
    line = teff & np.logical_and.reduce(
        [places.values[:, k] == grid.axes[k][hole[k]] for k in (1, 2, 3)]
    )
    assert line.any()
    for row in np.flatnonzero(line):
        used = np.unravel_index(places.weights[[row]].indices, grid.there.shape)[0]
        assert used.max() < hole[0]


def test_a_range_within_two_nodes_keeps_places_inside_it() -> None:
    ranges = ((4010.0, 4100.0), (2.0, 2.0), (-0.5, -0.5), (0.2, 0.2))

    places = nodes(Analytic(), ranges).places(np.random.default_rng(7).random((50, 3)))

    assert (places.axis == 0).all()
    assert (places.values[:, 0] >= 4010.0).all()
    assert (places.values[:, 0] <= 4100.0).all()


def test_a_range_without_two_neighbours_is_refused() -> None:
    ranges = ((4010.0, 4100.0), (2.1, 2.4), (-0.5, -0.5), (0.2, 0.2))

    with pytest.raises(ValueError, match=r"grid analytic: no two neighbouring models in teff 4010"):
        nodes(Analytic(), ranges)


def test_models_are_made_once() -> None:
    grid = Analytic()
    made = nodes(grid)
    weights = made.places(np.random.default_rng(8).random((50, 3))).weights

    first, again = made.blend(weights), made.blend(weights)

    np.testing.assert_array_equal(first, again)
    assert len(grid.asked) == len(set(grid.asked))
