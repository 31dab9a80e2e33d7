"""Expectation: factors learnt by EM from noisy spectra alone, each pixel with its own noise.

Tipping & Bishop 1999, with each pixel's own variance (Bailey 2012, Delchambre 2015). An epoch is
one EM step: sums over all spectra of what is expected of their latents, then least squares.

Axes: N spectra, P pixels, S latents, Z = S + 1 (the latents and a constant 1), Q entries of a
symmetric Z x Z matrix written as one row.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt
from torch import Tensor

from storage.grid import Grid
from training.batch import Batch, join, take
from training.factors import Factors, rotation
from training.posterior import Posterior, augmented, square

START_ROWS = 1024
"Spectra that the first components come from; EM takes it from there."
FIRST_SCATTER = 1e-4
"Variance that the scatter starts from: one per cent of the normalised flux."
ROUNDING = 1e-6
"""Share of its diagonal that a sum in float32 may be off by: where few spectra of very high S/N
know a pixel, a matrix would not be positive."""


class FactorOptions(BaseModel):
    """What a card may say of every model that learns factors by EM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    components: PositiveInt = 40
    "Latents S."
    ridge: NonNegativeFloat = 1.0
    "Weight of the prior W ~ N(0, 1) in normalised flux: it matters only where hardly any data is."
    scatter: bool = False
    "Learn for each pixel the variance that the components leave; it is added to the noise."

    def check(self, model: str, grid: Grid) -> None:
        """Refuse as many components as pixels."""
        if self.components >= grid.size:
            raise ValueError(
                f"{model}: {self.components} components of {grid.size} pixels; keep fewer"
            )


class Turn(NamedTuple):
    """New latents are `by` (t - shift)."""

    shift: Tensor
    "(S,)"
    by: Tensor
    "(S, S)"


class Expectation(Factors):
    """Factors that learn by EM."""

    fit = "sums"
    by_target = False

    def __init__(self, pixels: int, options: FactorOptions) -> None:
        super().__init__(pixels, options.components, FIRST_SCATTER if options.scatter else 0.0)
        self.options = options

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Mean and principal components of some spectra as the frame fills them."""
        x = first(batches(), START_ROWS).x
        size = self.options.components
        if len(x) <= size:
            name = type(self).__name__.lower()
            raise ValueError(
                f"{name}: {len(x)} spectra with data for {size} components; "
                "ask for fewer components or more spectra"
            )
        self.mean.copy_(x.mean(0))
        distance = (x - self.mean).double()
        # The N x N products are smaller than the P x P covariance and have the same components.
        vectors = torch.linalg.eigh(distance @ distance.T).eigenvectors
        top = vectors[:, -size:] / len(x) ** 0.5
        wide = (distance.T @ top).to(self.loading).double()
        self.loading.copy_(wide @ rotation(wide))

    def accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """E step: the sums that the least squares of every pixel need."""
        known = self.known(batch.weight)
        return self.sums(batch.x, known, self.infer(self.evidence(batch.x, known)))

    def update(self, sums: dict[str, Tensor]) -> float:
        """M step: least squares for W and mu of each pixel; gives -2 ln L per good pixel."""
        self.absorb(sums)
        return float(sums["objective"] / sums["pixels"].clamp(min=1))

    def sums(self, x: Tensor, known: Tensor, found: Posterior) -> dict[str, Tensor]:
        """What `absorb` needs of spectra x (N, P) of which the latents are `found`."""
        good = known > 0
        # What a pixel without weight holds may be no number.
        x, seen = torch.where(good, x, 0), good.any(1)
        z, zz = (value.to(x.dtype) for value in augmented(found.mean, found.covariance))
        sums = {
            "gram": known.T @ zz,
            "cross": (known * x).T @ z,
            "moment": zz[seen].sum(0),
            "count": seen.sum(),
            "objective": found.minus_two_log.sum(),
            "pixels": good.sum(),
        }
        return sums | (self._residual(x, known, found) if self.options.scatter else {})

    def absorb(self, sums: dict[str, Tensor]) -> Turn:
        """Better mean and loadings; gives what has become of the latents."""
        loading, mean = self._least_squares(sums["gram"], sums["cross"])
        # Let the prior of t be N(m, V), estimate both, and absorb them into mu and W: the same
        # family, reached in far fewer steps (parameter-expanded EM, Liu, Rubin & Wu 1998).
        moment = square(sums["moment"] / sums["count"].clamp(min=1), self.options.components + 1)
        shift = moment[-1, :-1]
        spread = torch.linalg.cholesky(moment[:-1, :-1] - torch.outer(shift, shift))
        self.mean.copy_(mean + loading @ shift)
        wide = loading @ spread
        turn = rotation(wide)
        self.loading.copy_(wide @ turn)
        self.unsure.copy_((sums["gram"][:, -1] + self.options.ridge).reciprocal())
        if self.options.scatter:
            # Fisher scoring; a variance is not negative.
            step = sums["score"] / sums["information"].clamp(min=1)
            self.scatter.copy_((self.scatter + step).clamp(min=0))
        return Turn(shift, turn.T @ torch.linalg.inv(spread))

    def _residual(self, x: Tensor, known: Tensor, found: Posterior) -> dict[str, Tensor]:
        left = x - self.decode(found.mean.to(x.dtype))
        over = left.square() + self.spread(found.covariance.to(x.dtype))
        return {
            "score": (known.square() * over - known).sum(0),
            "information": known.square().sum(0),
        }

    def _least_squares(self, gram: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        normal = square(gram, self.options.components + 1)
        normal.diagonal(dim1=1, dim2=2).mul_(1 + ROUNDING).add_(self.options.ridge)
        # The ridge draws W towards 0, but mu towards where it is.
        right = cross.clone()
        right[:, -1] += self.options.ridge * self.mean
        root = torch.linalg.cholesky(normal)
        solved = torch.cholesky_solve(right.unsqueeze(-1), root).squeeze(-1)
        return solved[:, :-1], solved[:, -1]


def first(batches: Iterable[Batch], rows: int) -> Batch:
    """The first so many spectra that have data; fewer when there are no more."""
    found: list[Batch] = []
    for batch in batches:
        found.append(take(batch, batch.ok))
        if sum(len(part.x) for part in found) >= rows:
            break
    return take(join(found), slice(rows))
