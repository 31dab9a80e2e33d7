"""Parameters: first values of Teff, log g, [Fe/H] and [alpha/M] from chi^2 at the nodes.

All templates at the star's velocity; then the mean of the best node and its neighbours, each by
its likelihood. The minimum of a quadratic through the same nodes is further from the truth than
the best node alone (nodes are far apart), the mean of all nodes, nearer to the truth, is often
between two minima, and a fit from there takes more steps.

Axes: N spectra, T templates, B a node and its neighbours.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.stars.seen import Sums, at, explained
from pipeline.stars.templates import Templates


class First(NamedTuple):
    """First values of N stars."""

    values: Tensor
    "(N, 4) teff, logg, feh, alpha_m."
    chi2: Tensor
    "(N,) of the best node."


def first_values(found: Sums, templates: Templates, lag: Tensor) -> First:
    """The mean of the best node and its neighbours, by their likelihood."""
    chi2 = node_chi2(found, templates, lag)
    lowest, best = chi2.min(dim=1)
    near, there = _neighbours(best, templates.box.shape)
    values = torch.where(there, chi2.gather(1, near), torch.inf)
    share = torch.softmax(-0.5 * (values - lowest[:, None]), dim=1)
    nodes = templates.box.parameters.to(chi2.device)[near]
    return First((share[:, :, None] * nodes).sum(dim=1), lowest)


def node_chi2(found: Sums, templates: Templates, lag: Tensor) -> Tensor:
    """chi^2 (N, T) at shifts (N,) in points of the axis; infinite where there is no model."""
    moved = at(found, lag)
    flux = templates.flux
    pull, hold = moved.pull @ flux.T, moved.hold @ flux.square().T
    chi2 = found.power[:, None] - explained(pull.unbind(1), hold.unbind(1))
    return torch.where(templates.there, chi2, torch.inf)


def _neighbours(node: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Numbers (N, B) of nodes at most one away along each parameter; which of them there are."""
    offset = torch.tensor(list(product((-1, 0, 1), repeat=len(shape))), device=node.device)
    number, there = torch.zeros_like(node)[:, None], torch.ones_like(node)[:, None] > 0
    for axis, place in enumerate(torch.unravel_index(node, shape)):
        near = place[:, None] + offset[:, axis]
        there = there & (near >= 0) & (near < shape[axis])
        number = number * shape[axis] + near.clamp(0, shape[axis] - 1)
    return number, there
