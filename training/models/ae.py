"""AE: the autoencoder of Scourfield+2023, from a spectrum with noise added to the spectrum."""

from typing import ClassVar

from torch import Tensor

from storage.grid import Grid
from training.autoencoder import Autoencoder, AutoencoderOptions, Printed
from training.model import Output


class Options(AutoencoderOptions):
    """What a card may say of this model."""

    printed: ClassVar[dict[int, Printed]] = {
        2: Printed(0.8, (900, 800, 400, 300)),
        4: Printed(0.5, (900, 900, 500, 400)),
        6: Printed(0.7, (1000, 900, 800, 800)),
        10: Printed(0.9, (900, 800, 800, 600)),
    }
    "Their table 4."


class AE(Autoencoder):
    """The encoder's numbers are the latents."""

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options, numbers=1)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise."""
        latent = self.encoded(x, weight)
        flux, sigma = self.decoded(latent)
        return Output(flux, sigma, latent)


def build(grid: Grid, **options: object) -> AE:
    """An autoencoder on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or the paper prints no layers for so many latents.
    """
    return AE(grid, Options.model_validate(options))
