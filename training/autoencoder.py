"""Autoencoders of Scourfield+2023: dense layers down to a few latents, and up again.

Leaky ReLUs and dropout on all hidden layers, none on the latents and the output; the decoder
mirrors the encoder. Axes: N spectra, P pixels, S latents.
"""

from abc import ABC
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import NonNegativeFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from storage.grid import Grid
from training import initial, losses
from training.batch import Batch
from training.network import Network, NetworkOptions
from training.perceptron import linears, perceptron

SLOPE = 0.3
"Of the leaky ReLU below 0 (their eq. 2)."


class Printed(NamedTuple):
    """A row of their tables of the best of a hundred trials."""

    dropout: float
    "Share of hidden units that are silent at each step."
    units: tuple[int, ...]
    "Of the encoder's hidden layers."


class AutoencoderOptions(NetworkOptions):
    """What a card may say of an autoencoder."""

    printed: ClassVar[dict[int, Printed]] = {}
    "The paper's table, by the number of latents."

    loss: losses.Name = "sum_squares"
    "What is made small."
    soften: NonNegativeFloat = 2e-6
    "Variance added to that of every pixel in a weighted loss."
    latent: PositiveInt = 4
    "Latents S; the paper has 2, 4, 6 and 10."
    units: tuple[PositiveInt, ...] = ()
    "Of the encoder's hidden layers; none: those that the paper prints for this many latents."
    dropout: float | Literal["printed"] = 0.1
    """Share of hidden units that are silent at each step. 'printed' is the paper's, 0.5 to 0.9: it
    holds a network on the mean spectrum for dozens of epochs, where 0.1 leaves it within five."""
    centre: bool = True
    "Start as the median training spectrum: the first and last bias from it, no last weights."

    @field_validator("dropout", mode="before")
    @classmethod
    def _is_a_share(cls, said: object) -> object:
        if said == "printed" or (isinstance(said, int | float) and 0 <= said < 1):
            return said
        raise ValueError("expected 'printed', or a share from 0 to less than 1")

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        if self.latent not in self.printed and (not self.units or self.dropout == "printed"):
            raise ValueError(
                f"latent = {self.latent}: the paper prints layers for "
                f"{', '.join(map(str, self.printed))}; choose one, or give units and a dropout"
            )
        return self

    @property
    def layers(self) -> Printed:
        """Dropout and units as chosen."""
        rate = self.printed[self.latent].dropout if self.dropout == "printed" else self.dropout
        return Printed(rate, self.units or self.printed[self.latent].units)


class Autoencoder(Network, ABC):
    """Encoder and decoder; what the encoder's numbers mean is for subclasses to say."""

    def __init__(self, grid: Grid, options: AutoencoderOptions, numbers: int) -> None:
        """With so many numbers of each latent."""
        super().__init__(grid, options)
        self.options = options
        rate, units = options.layers
        leaky = partial(nn.LeakyReLU, SLOPE)
        into, out = grid.size * self.channels, numbers * options.latent
        self.encoder = perceptron([into, *units, out], leaky, rate)
        self.decoder = perceptron([options.latent, *reversed(units), grid.size], leaky, rate)
        self.spread = nn.Linear(units[0], grid.size) if options.sigma else None

    def encoded(self, x: Tensor, weight: Tensor) -> Tensor:
        """The encoder's numbers of every spectrum."""
        found: Tensor = self.encoder(self.seen(x, weight).flatten(1))
        return found

    def decode(self, latent: Tensor) -> Tensor:
        """Flux (N, P) of latents (N, S)."""
        return self.decoded(latent)[0]

    def decoded(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Flux and sigma (N, P) of latents (N, S)."""
        hidden = self.decoder[:-1](latent)
        return self.decoder[-1](hidden), self.sigma(hidden)

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights (Glorot & Bengio 2010), and centre."""
        layers = [*linears(self.encoder), *linears(self.decoder)]
        initial.draw(layers, "glorot", seed)
        self.start_sigma()
        if self.options.centre:
            seen, wanted = initial.medians(batches(), lambda batch: (batch.x, batch.wanted[0]))
            initial.centre([(layers[0], seen)], layers[-1], wanted)
