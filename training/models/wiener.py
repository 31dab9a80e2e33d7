"""Wiener: the best linear estimate of a spectrum, by mean and covariance of noiseless spectra.

The posterior mean with each spectrum's own noise, if the population were Gaussian; what the linear
reference of a verdict is, as a model. Its card asks for the truth of a mock; taught by noisy
spectra it takes their noise off the diagonal of the covariance, and is the worse for it.
"""

from collections.abc import Callable, Iterable

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch
from training.covariance import leading, solved, weighted
from training.factors import Factors


class Options(BaseModel):
    """What a card may say of this model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt = 60
    "Leading components of the covariance that are kept; the variance of the rest is noise."


class Wiener(Factors):
    """Loadings are the components of a covariance, each as long as its standard deviation."""

    fit = "sums"

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Take the mean of the first batch: sums about it lose no digits."""
        first = next(iter(batches()))
        self.mean.copy_(first.wanted[0][first.ok].mean(0) if bool(first.ok.any()) else self.mean)

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of the targets about the mean so far, over the pixels that they have."""
        target, weight = batch.wanted
        good = weight > 0
        # The weight of a target without noise is 1 or 0; a repeat's, or half a split, has its own.
        exact = batch.target is not None and torch.equal(weight, weight.sign())
        noisy = good & (not exact)
        noise = torch.where(noisy, weight.clamp(min=torch.finfo(weight.dtype).tiny), torch.inf)
        sums = weighted(target - self.mean, good.to(target))
        return sums | {"noise": noise.reciprocal().sum(0)}

    def update(self, sums: dict[str, Tensor]) -> float:
        """Components of the covariance; gives the variance that they leave."""
        move, covariance = solved(sums)
        covariance.diagonal().sub_(sums["noise"] / sums["weight"].clamp(min=1))
        values, rows = leading(covariance, self.loading.shape[1])
        loading = (rows * values.clamp(min=0).sqrt()[:, None]).T.to(covariance)
        self.mean += move.to(self.mean)
        self.loading.copy_(loading)
        self.scatter.copy_((covariance.diagonal() - loading.square().sum(1)).clamp(min=0))
        return float(covariance.trace().cpu() - values.sum())


def build(grid: Grid, **options: object) -> Wiener:
    """A Wiener estimator on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are as many components as pixels.
    """
    components = Options.model_validate(options).components
    if components >= grid.size:
        raise ValueError(f"wiener: {components} components of {grid.size} pixels; keep fewer")
    return Wiener(grid.size, components)
