"""VAE: the variational autoencoder of Scourfield+2023; it says how well it knows its latents.

Axes: N spectra, P pixels, S latents.
"""

from typing import ClassVar

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from storage.grid import Grid
from training.autoencoder import Autoencoder, AutoencoderOptions, Printed
from training.batch import Batch
from training.model import Output

LOG_VARIANCE = (-30.0, 20.0)
"Limits of a latent's log variance: a broken spectrum must not make a covariance infinite."


class Options(AutoencoderOptions):
    """What a card may say of this model."""

    printed: ClassVar[dict[int, Printed]] = {
        2: Printed(0.8, (1000, 900, 600, 200)),
        4: Printed(0.7, (1000, 1000, 700, 500)),
        6: Printed(0.5, (800, 800, 700, 600)),
        10: Printed(0.9, (900, 900, 600, 400)),
    }
    "Their table 5."

    beta: NonNegativeFloat = 1.0
    "How much the divergence counts beside the loss; 1 is the paper's bound."


class VAE(Autoencoder):
    """The encoder gives mean and log variance of each latent; training draws from them."""

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options, numbers=2)
        self.beta = options.beta

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise: by a draw of the latents in training, else by their mean."""
        return self._output(*self._posterior(x, weight))

    def loss(self, batch: Batch) -> Tensor:
        """Minus the evidence lower bound: the card's loss, plus the divergence."""
        mean, log_variance = self._posterior(batch.x, batch.weight)
        output = self._output(mean, log_variance)
        # A spectrum without data says nothing of the latents.
        apart = (divergence(mean, log_variance) * batch.ok).mean()
        return self.distance(output, *self.wanted(batch)) + self.beta * apart

    def _posterior(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoded(x, weight).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def _output(self, mean: Tensor, log_variance: Tensor) -> Output:
        spread = (0.5 * log_variance).exp()
        latent = mean + spread * torch.randn_like(mean) if self.training else mean
        covariance = torch.diag_embed(log_variance.exp())
        return Output(*self.decoded(latent), mean, covariance)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of N(mean, variance) from N(0, 1), summed over latents.

    Notes
    -----
    -1/2 sum(1 + ln s^2 - m^2 - s^2) (Kingma & Welling 2013, appendix B); the minus sign is lost in
    eq. 5 of Scourfield+2023.
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


def build(grid: Grid, **options: object) -> VAE:
    """A variational autoencoder on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or the paper prints no layers for so many latents.
    """
    return VAE(grid, Options.model_validate(options))
