"""PCA: projection on the principal components of the noisy training spectra."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from scipy.sparse.linalg import eigsh
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.bridge import bridged
from training.model import Denoiser, Output


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt = 10
    "Directions kept."


class PCA(Denoiser):
    """Mean and leading eigenvectors of the covariance; missing pixels count as the frame fills."""

    fit = "sums"
    mean: Tensor
    axes: Tensor

    def __init__(self, pixels: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(pixels))
        self.register_buffer("axes", torch.zeros(components, pixels))

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Project x; the latents are its coordinates along the components, widest first."""
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
        """Number, sum and outer products of the spectra about the mean so far."""
        distance = (batch.x - self.mean)[batch.ok]
        count = torch.tensor(len(distance), device=distance.device)
        return {"count": count, "sum": distance.sum(0), "outer": distance.T @ distance}

    def update(self, sums: dict[str, Tensor]) -> float:
        """Leading eigenvectors of the covariance; gives the variance that they leave."""
        count = sums["count"].clamp(min=1)
        move = sums["sum"] / count
        covariance = (sums["outer"] / count - torch.outer(move, move)).cpu().numpy()
        values, axes = _leading(covariance, len(self.axes))
        self.mean += move.to(self.mean)
        self.axes.copy_(torch.from_numpy(axes))
        return float(np.trace(covariance) - values.sum())


def _leading(covariance: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues, descending, and eigenvectors as rows, each with its largest entry > 0.

    Lanczos takes a second where the full problem of 3800 pixels takes twenty; its start is fixed.
    """
    size = len(covariance)
    values, vectors = eigsh(covariance, k=count, which="LA", v0=np.ones(size) / np.sqrt(size))
    order = np.argsort(values)[::-1]
    rows = vectors.T[order]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1, keepdims=True), axis=1)
    return values[order], np.ascontiguousarray(rows * np.sign(largest))


def build(grid: Grid, **options: object) -> PCA:
    """Principal components on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    components = Options.model_validate(options).components
    if components >= grid.size:
        raise ValueError(f"pca: {components} components of {grid.size} pixels; keep fewer")
    return PCA(grid.size, components)
