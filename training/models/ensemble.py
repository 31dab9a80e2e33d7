"""Ensemble: the same network from several starts; their mean, and how far they scatter.

The members see the same batches in the same order: what differs is where they start, and what they
draw at random themselves. Their scatter is what the training leaves open, not the noise of a
spectrum: a lower bound of the error. Axes: N spectra, P pixels.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from torch import Tensor, nn

from storage.grid import Grid
from storage.names import resolve
from training.batch import Batch
from training.model import Denoiser, Output

SHELF = "training.models"
LEAST = 1e-6
"Scatter where all members agree, normalised flux: a standard deviation is above 0."


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    "Of each member: a module on the shelf training.models, or anybody's dotted name."
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    "What its build() takes besides the grid."
    members: int = Field(default=5, ge=2)
    "Networks; 5 in Melchior+2023."

    @field_validator("model")
    @classmethod
    def _is_single(cls, value: str) -> str:
        if value.rpartition(".")[2] == "ensemble":
            raise ValueError("an ensemble of ensembles is one of more members; set members")
        return value

    @field_validator("options")
    @classmethod
    def _are_known(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "model" not in info.data:
            return value
        known = getattr(resolve(SHELF, info.data["model"]), "Options", None)
        try:
            if known is not None:
                known.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{info.data['model']}: {where}: {first['msg']}") from error
        return value


class Ensemble(Denoiser):
    """Networks that learn beside each other."""

    fit: ClassVar[Literal["gradient", "sums", "none"]] = "gradient"

    def __init__(self, members: Iterable[Denoiser]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """The mean of the members; sigma is their scatter, and their own sigma where they say it.

        There is no latent: the axes of one member mean nothing to another.
        """
        said: list[Output] = [member(x, weight, z) for member in self.members]
        variance, flux = torch.var_mean(torch.stack([one.flux for one in said]), dim=0)
        own = [one.sigma.square() for one in said if one.sigma is not None]
        if own:
            variance = variance + torch.stack(own).mean(dim=0)
        return Output(flux=flux, sigma=variance.sqrt().clamp(min=LEAST))

    def loss(self, batch: Batch) -> Tensor:
        """Mean of the members' losses; each is pulled on by its own as if it were alone."""
        losses = torch.stack([member.loss(batch) for member in self._each()])
        # The slope of a mean would be a share of theirs, and a plain step that much smaller.
        return losses.sum() + (losses.mean() - losses.sum()).detach()

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Start member k with seed + k."""
        for number, member in enumerate(self._each()):
            member.start(batches, seed + number)

    def _each(self) -> Iterable[Denoiser]:
        for member in self.members:
            assert isinstance(member, Denoiser)
            yield member


def build(grid: Grid, **options: object) -> Ensemble:
    """Members on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or the members do not learn by gradient: they would be alike.
    """
    chosen = Options.model_validate(options)
    module = resolve(SHELF, chosen.model)
    members: list[Denoiser] = [module.build(grid, **chosen.options) for _ in range(chosen.members)]
    if members[0].fit != "gradient":
        raise ValueError(
            f"ensemble: {chosen.model!r} does not learn by gradient, so its members would be "
            "alike; use it alone"
        )
    return Ensemble(members)
