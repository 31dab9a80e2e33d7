"""Between nodes: what each template weighs in a spectrum whose parameters lie between them.

Cubic splines along each parameter, multiplied. A spline is linear in the values it goes through:
the weight of a node is the spline through 1 there and 0 elsewhere.

Axes: N spectra, T templates, n nodes of one parameter.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from storage.grid import Float


class Box:
    """A full box of nodes.

    Examples
    --------
    >>> box = Box((np.array([1.0, 2.0, 4.0]), np.array([0.0, 5.0])))
    >>> box.weights(torch.tensor([[2.0, 5.0]]))[0]
    tensor([[0., 0., 0., 1., 0., 0.]], dtype=torch.float64)
    """

    def __init__(self, axes: Sequence[Float]) -> None:
        self.axes = tuple(axes)
        self.shape = tuple(len(nodes) for nodes in axes)
        self._pieces = [_pieces(nodes) for nodes in axes]
        self._nodes = [torch.from_numpy(nodes.astype(np.float64)) for nodes in axes]

    @property
    def ends(self) -> Tensor:
        """(2, parameters) the lowest and the highest of each."""
        return torch.stack([torch.stack([nodes[0], nodes[-1]]) for nodes in self._nodes], dim=1)

    @property
    def parameters(self) -> Tensor:
        """(T, parameters) of the templates."""
        return torch.cartesian_prod(*self._nodes).reshape(-1, len(self._nodes))

    def weights(self, values: Tensor) -> Tensor:
        """Weights of templates (1 + parameters, N, T) for values (N, parameters) inside the box.

        The first are those of the spectrum, the others of its derivatives.
        """
        single = [self._along(number, values[:, number]) for number in range(len(self.axes))]
        found = [_product([at for at, _ in single])]
        for number in range(len(single)):
            found.append(_product([pair[k == number] for k, pair in enumerate(single)]))
        return torch.stack(found)

    def index(self, values: Tensor) -> Tensor:
        """Fractional number of the node, (N, parameters), of values."""
        found = []
        for number, nodes in enumerate(self._nodes):
            nodes, value = nodes.to(values.device), values[:, number].contiguous()
            if len(nodes) == 1:
                found.append(torch.zeros_like(value))
                continue
            left = (torch.searchsorted(nodes, value, right=True) - 1).clamp(0, len(nodes) - 2)
            found.append(left + (value - nodes[left]) / (nodes[left + 1] - nodes[left]))
        return torch.stack(found, dim=1)

    def value(self, index: Tensor) -> Tensor:
        """Values (N, parameters) at fractional numbers of nodes: the inverse of `index`."""
        found = []
        for number, nodes in enumerate(self._nodes):
            nodes, place = nodes.to(index.device), index[:, number]
            left = place.floor().clamp(0, max(len(nodes) - 2, 0)).long()
            right = (left + 1).clamp(max=len(nodes) - 1)
            found.append(torch.lerp(nodes[left], nodes[right], place - left))
        return torch.stack(found, dim=1)

    def _along(self, number: int, value: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of nodes and their derivatives, (N, n) each."""
        pieces, nodes = (a[number].to(value.device) for a in (self._pieces, self._nodes))
        left = (torch.searchsorted(nodes, value.contiguous(), right=True) - 1).clamp(
            0, pieces.shape[1] - 1
        )
        u = (value - nodes[left])[:, None]
        a, b, c, d = pieces[:, left]
        return ((a * u + b) * u + c) * u + d, (3 * a * u + 2 * b) * u + c


def _pieces(nodes: Float) -> Tensor:
    """Coefficients (4, n - 1, n) of the splines, highest power first."""
    if len(nodes) == 1:
        return torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
    return torch.from_numpy(CubicSpline(nodes, np.eye(len(nodes))).c.copy())


def _product(single: Sequence[Tensor]) -> Tensor:
    """Outer product (N, T) of weights (N, n) of each parameter."""
    whole = single[0]
    for other in single[1:]:
        whole = (whole[:, :, None] * other[:, None, :]).flatten(1)
    return whole
