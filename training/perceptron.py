"""Perceptrons: linear layers one after another, with what stands between them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


def perceptron(
    widths: Sequence[int], activation: Callable[[], nn.Module], dropout: float = 0.0
) -> nn.Sequential:
    """Linear layers; an activation, then dropout, after each but the last.

    Parameters
    ----------
    widths : sequence of int
        Units from input to output, both included.
    activation : callable
        Makes one.
    dropout : float
        Share of units that are silent at each step of training.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers[: -2 if dropout else -1])


def linears(part: nn.Module) -> list[nn.Linear]:
    """Its linear layers, from input to output."""
    return [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
