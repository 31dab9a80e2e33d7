"""Speculator: layers whose activation bends between a line and a smooth step (Alsing+2020)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Start = Literal["paper", "random"]
"""Of an activation: 'paper' has beta 1 and gamma 0, which gives spectra close to flat;
'random' draws both from a normal distribution."""


class Speculator(nn.Module):
    """a(x) = (gamma + (1 - gamma) sigmoid(beta x)) x, with a beta and a gamma of each unit."""

    def __init__(self, units: int, start: Start) -> None:
        super().__init__()
        self.start = start
        self.beta = nn.Parameter(torch.empty(units))
        self.gamma = nn.Parameter(torch.empty(units))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start anew."""
        if self.start == "random":
            self.beta.normal_()
            self.gamma.normal_()
        else:
            self.beta.fill_(1)
            self.gamma.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Activate x (N, units)."""
        gate = torch.sigmoid(self.beta * x)
        return torch.addcmul(self.gamma, 1 - self.gamma, gate) * x


class Decoder(nn.Module):
    """Latents (N, S) to rest-frame spectra (N, R): layers that widen, and 1 added to the last."""

    def __init__(
        self,
        widths: Sequence[int],
        activation: Literal["speculator", "leaky_relu"] = "speculator",
        start: Start = "paper",
    ) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activations = nn.ModuleList(
            Speculator(units, start) if activation == "speculator" else nn.LeakyReLU()
            for units in widths[1:]
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Spectra, normalised to about 1."""
        hidden = latent
        for linear, activation in zip(self.linears, self.activations, strict=True):
            hidden = activation(linear(hidden))
        return hidden + 1
