"""Network: what all denoisers have in common that learn by gradient.

What the target is, is not theirs to say: a batch brings it (`training.augment`), so that every
network learns from noisy spectra alone, from added noise, or from one noise realisation of two.
"""

from abc import ABC
from typing import ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, model_validator
from torch import Tensor, nn

from storage.grid import Grid
from training import losses
from training.batch import Batch
from training.bridge import bridged
from training.model import Denoiser, Output

LINES = {
    "[OII]": 3728.5,
    "Hdelta": 4102.9,
    "Hgamma": 4341.7,
    "Hbeta": 4862.7,
    "[OIII] 4959": 4960.3,
    "[OIII] 5007": 5008.2,
    "[NII] 6548": 6549.9,
    "Halpha": 6564.6,
    "[NII] 6583": 6585.3,
    "[SII] 6716": 6718.3,
    "[SII] 6731": 6732.7,
}
"Rest wavelengths of the strong lines of galaxies, vacuum A (SDSS line list)."
LINE_WIDTH = 12.0
"Half width around a line that `line_weight` is for, A."
FIRST_LOG_SIGMA = -2.3
"Sigma that the learning of it starts from: a tenth of the normalised flux."


class NetworkOptions(BaseModel):
    """What a card may say of every network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: losses.Name = "mae"
    "What is made small."
    loss_mask: bool = True
    "Leave missing pixels out of the loss; False is the way of Camilleri+2025."
    ivar_input: bool = False
    "Whether the network sees the inverse variance of every pixel beside its flux."
    soften: NonNegativeFloat = 0.0
    "Variance added to that of every pixel in a weighted loss: 2e-6 in Scourfield+2023."
    line_weight: NonNegativeFloat = 0.0
    "Differences within 12 A of strong lines are stretched by 1 + this; for rest-frame spectra."
    sigma: bool = False
    """Whether it says how far off it may be in each pixel, by a second last layer; learnt by loss
    'gaussian'."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.line_weight and self.loss == "gaussian":
            raise ValueError("line_weight: a likelihood cannot be stretched; use another loss")
        if self.sigma != (self.loss == "gaussian"):
            raise ValueError("sigma is learnt by loss 'gaussian', and by no other: set both")
        return self


class Network(Denoiser, ABC):
    """A network on a grid of P pixels; subclasses give `forward`."""

    fit: ClassVar[Literal["gradient", "sums", "none"]] = "gradient"
    emphasis: Tensor
    spread: nn.Linear | nn.Conv1d | None
    "Beside the last layer, of the same numbers: it gives the logarithm of sigma."

    def __init__(self, grid: Grid, options: NetworkOptions) -> None:
        super().__init__()
        self.grid, self.spread = grid, None
        self.common = options
        self.register_buffer("emphasis", _emphasis(grid, options.line_weight), persistent=False)

    @property
    def channels(self) -> int:
        """Numbers that the network sees of a pixel."""
        return 1 + self.common.ivar_input

    def seen(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the network sees, (N, channels, P): flux, bridged where there is none; weight."""
        # What a missing pixel holds is nobody's business: a frame bridges it, and so does this.
        flux = bridged(x, weight)
        if not self.common.ivar_input:
            return flux.unsqueeze(1)
        # S/N of 1 to 100 a pixel as numbers of order 1; 0 is no data.
        return torch.stack([flux, torch.log1p(weight) / 4], dim=1)

    def sigma(self, hidden: Tensor) -> Tensor | None:
        """How far off the output may be, of what the last layer sees; None if it says nothing."""
        # In logarithms, within what float32 can hold the squares of.
        return None if self.spread is None else self.spread(hidden).clamp(-12, 3).exp()

    def start_sigma(self) -> None:
        """Begin with the same sigma everywhere."""
        if self.spread is not None:
            nn.init.zeros_(self.spread.weight)
            assert self.spread.bias is not None
            nn.init.constant_(self.spread.bias, FIRST_LOG_SIGMA)

    def loss(self, batch: Batch) -> Tensor:
        """Distance of the output from the batch's target."""
        output = self(batch.x, batch.weight, batch.z)
        return self.distance(output, *self.wanted(batch))

    def wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Target (N, P), and how much each of its pixels counts (N, P)."""
        target, weight = batch.wanted
        if not self.common.loss_mask:
            return target, batch.ok[:, None].expand_as(target).to(target)
        if self.common.soften:
            weight = weight / (1 + weight * self.common.soften)
        return target, weight

    def distance(self, output: Output, target: Tensor, weight: Tensor) -> Tensor:
        """The card's loss, lines counting as much as it says."""
        if self.common.line_weight:
            output = output._replace(flux=output.flux * self.emphasis)
            target = target * self.emphasis
        return losses.named(self.common.loss)(output, target, weight)


def _emphasis(grid: Grid, extra: float) -> Tensor:
    wavelength = torch.from_numpy(grid.wavelength)
    lines = torch.tensor(list(LINES.values()), dtype=torch.float64)
    near = ((wavelength[:, None] - lines).abs() <= LINE_WIDTH).any(1)
    found: Tensor = torch.where(near, 1.0 + extra, 1.0).float()
    return found
