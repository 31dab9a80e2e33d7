"""Mean: every galaxy is the mean training spectrum, the control that a real model must beat."""

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.model import Denoiser, Output


class Options(BaseModel):
    """What a card may say of this model: nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Mean(Denoiser):
    """A constant."""

    fit = "sums"
    by_target = False
    mean: Tensor

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(pixels))

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """The mean spectrum, whatever the input."""
        return Output(flux=self.mean.expand(len(x), -1).clone())

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of the good pixels, and of their squared distance from the mean so far."""
        good = batch.weight > 0
        distance = torch.where(good, batch.x - self.mean, 0)
        return {"moved": distance.sum(0), "count": good.sum(0), "square": distance.square().sum()}

    def update(self, sums: dict[str, Tensor]) -> float:
        """Move to the mean; gives the variance about it."""
        move = sums["moved"] / sums["count"].clamp(min=1)
        self.mean += move.to(self.mean)
        about = sums["square"] - (sums["moved"] * move).sum()
        return float(about / sums["count"].sum().clamp(min=1))


def build(grid: Grid, **options: object) -> Mean:
    """The mean spectrum on a grid."""
    Options.model_validate(options)
    return Mean(grid.size)
