"""PCA: projection on the principal components of the noisy training spectra.

`weighted` lets every pixel count by the inverse of its noise (Delchambre 2015), in the components
and in the projection: bright spectra then say more of the components, and gaps nothing. For equal
weights it is the plain one.
"""

from collections.abc import Callable, Iterable

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.bridge import bridged
from training.covariance import leading, plain, solved, weighted
from training.model import Denoiser, Output
from training.posterior import Gaussian, evidence, posterior

RIDGE = 1e-6
"Of the weighted projection, of coordinates of normalised flux: for spectra without data."


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt = 10
    "Directions kept."
    weighted: bool = False
    "Whether pixels count by their noise; otherwise all alike, missing ones as the frame fills."


class PCA(Denoiser):
    """Mean and leading eigenvectors of the covariance."""

    fit = "sums"
    by_target = False
    mean: Tensor
    axes: Tensor

    def __init__(self, pixels: int, options: Options) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("mean", torch.ones(pixels))
        self.register_buffer("axes", torch.zeros(options.components, pixels))

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Project x; the latents are its coordinates along the components, widest first."""
        if self.options.weighted:
            latent = self._nearest(x, weight)
        else:
            latent = (bridged(x, weight) - self.mean) @ self.axes.T
        return Output(flux=self.decode(latent), latent=latent)

    def decode(self, latent: Tensor) -> Tensor:
        """The spectrum at these coordinates."""
        return self.mean + latent @ self.axes

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Take the mean of the first batch: sums about it lose no digits."""
        first = next(iter(batches()))
        self.mean.copy_(first.x[first.ok].mean(0) if bool(first.ok.any()) else self.mean)

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """Number, sum and products of the spectra about the mean so far."""
        distance = batch.x - self.mean
        if self.options.weighted:
            return weighted(distance, batch.weight.sqrt())
        return plain(distance[batch.ok])

    def update(self, sums: dict[str, Tensor]) -> float:
        """Leading eigenvectors of the covariance; gives the variance that they leave."""
        move, covariance = solved(sums)
        values, axes = leading(covariance, len(self.axes))
        self.mean += move.to(self.mean)
        self.axes.copy_(axes)
        return float(covariance.trace().cpu() - values.sum())

    def _nearest(self, x: Tensor, weight: Tensor) -> Tensor:
        """The coordinates (N, S) of the least chi^2."""
        flat = Gaussian.standard(len(self.axes), x.device)
        flat = flat._replace(precision=RIDGE * flat.precision)
        found = posterior(evidence(x, weight, self.mean, self.axes.T), flat)
        return found.mean.to(x.dtype)


def build(grid: Grid, **options: object) -> PCA:
    """Principal components on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    chosen = Options.model_validate(options)
    if chosen.components >= grid.size:
        raise ValueError(f"pca: {chosen.components} components of {grid.size} pixels; keep fewer")
    return PCA(grid.size, chosen)
