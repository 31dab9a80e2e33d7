"""DAE: the denoising autoencoder of Pal & Dobos 2024 for stars, fully connected.

Input: a simulated spectrum with noise, drawn anew each epoch; target: the same without.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from storage.grid import Grid
from training import losses
from training.batch import Batch
from training.model import Output
from training.network import Network, NetworkOptions
from training.perceptron import linears, perceptron

PIXELS = 4096
HIDDEN = (3136, 2176, 1216, 256, 1216, 2176, 3136)
"Units of the hidden layers on so many pixels: each has 960 less, or more, than the one before."


class Options(NetworkOptions):
    """What a card may say of this model."""

    loss: losses.Name = "rmse"
    "What is made small."
    hidden: tuple[PositiveInt, ...] = ()
    "Units of the hidden layers; none: the published ones, scaled to the pixels of the frame."
    output: Literal["sigmoid", "linear"] = "sigmoid"
    "'sigmoid' is for flux between 0 and 1, as stars of median 0.5 have it."


class DAE(Network):
    """Linear layers with a ReLU after each but the last; the latent is the narrowest."""

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        scaled = tuple(max(1, round(width * grid.size / PIXELS)) for width in HIDDEN)
        hidden = options.hidden or scaled
        narrow = min(range(len(hidden)), key=lambda layer: hidden[layer])
        into = grid.size * self.channels
        self.encoder = perceptron([into, *hidden[: narrow + 1]], nn.ReLU)
        self.decoder = perceptron([*hidden[narrow:], grid.size], nn.ReLU)
        self.last = nn.Sigmoid() if options.output == "sigmoid" else nn.Identity()
        self.spread = nn.Linear(hidden[-1], grid.size) if options.sigma else None

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise; the latent is the narrowest layer, after its activation."""
        latent = self.encoder(self.seen(x, weight).flatten(1)).relu()
        hidden = self.decoder[:-1](latent)
        return Output(self.last(self.decoder[-1](hidden)), self.sigma(hidden), latent)

    def decode(self, latent: Tensor) -> Tensor:
        """Flux (N, P) of latents (N, S)."""
        flux: Tensor = self.last(self.decoder(latent))
        return flux

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw weights and biases from U(-sqrt k, sqrt k), k = 6 / (in + out), as published."""
        random = torch.Generator().manual_seed(seed)
        for layer in linears(self):
            limit = (6 / sum(layer.weight.shape)) ** 0.5
            for value in (layer.weight, layer.bias):
                drawn = torch.empty(value.shape)
                value.copy_(drawn.uniform_(-limit, limit, generator=random))
        self.start_sigma()


def build(grid: Grid, **options: object) -> DAE:
    """A stellar denoising autoencoder on a grid.

    Raises
    ------
    ValueError
        When an option is unknown.
    """
    return DAE(grid, Options.model_validate(options))
