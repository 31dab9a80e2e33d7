"""Library: the posterior mean over very many noiseless spectra of the population itself.

What the linear reference cannot know is that a population is not Gaussian. The library weighs
noiseless draws by exp(-chi^2 / 2) in the space of the linear components; where hardly any of them
fits a spectrum, it is no reference, and gives the linear answer. Draws may be widened into
Gaussians (a kernel estimate that keeps the population's covariance; West 1993): of width 1 the
library is the linear reference, of width 0 the draws alone. A spectrum knows some thirty numbers of
itself, so hardly any draw fits: of 20,000 of mock-v1, 1.9 at S/N 2-3 and 1.0 at 5-6; of width 0.5,
89 and 15, and the indices are 5 to 12 % and 1 to 5 % closer to the truth than the linear ones.

Axes: N spectra, P pixels, Q components, M draws.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from training.posterior import Evidence, Gaussian, evidence, outer, pairs, posterior
from training.reference import ROWS, Answer, Linear, blocks

DRAWS = 4096
"Draws held against the spectra at a time."
LEAST = 10.0
"Effective draws below which the library says nothing."
WIDTH = 0.5
"Of the Gaussian around each draw, for 10,000 to 100,000 of them."


@dataclass(frozen=True, kw_only=True)
class Library:
    """Noiseless draws; called, the posterior mean of a spectrum."""

    linear: Linear
    "Whose components the draws are held in, and whose answer stands where draws are too few."
    latents: Tensor
    "(M, Q) float32 of the draws; variance 1."
    width: float
    "Of the Gaussian around each draw, in standard deviations of the population, from 0 to below 1."

    @classmethod
    def learn(cls, linear: Linear, clean: Iterable[Tensor], width: float = WIDTH) -> Self:
        """From noiseless spectra, in parts (M, P) float32 that need not fit in memory at once."""
        return cls(linear=linear, latents=torch.cat([*map(linear.encode, clean)]), width=width)

    def __call__(self, x: Tensor, weight: Tensor) -> Answer:
        """Posterior mean of every spectrum, and how many draws it comes from."""
        loading = self.linear.basis.T.contiguous()
        outers = outer(loading)
        flux, draws = [], []
        for some, known in blocks(ROWS, x, weight):
            found = evidence(some, known, self.linear.mean, loading, outers)
            latent, effective = self._posterior(found)
            plain = posterior(found, Gaussian.standard(len(self.linear.basis), x.device)).mean
            latent = torch.where((effective >= LEAST)[:, None], latent, plain)
            flux.append(self.linear.decode(latent))
            draws.append(effective)
        return Answer(torch.cat(flux), torch.cat(draws))

    def _posterior(self, found: Evidence) -> tuple[Tensor, Tensor]:
        """Latents (N, Q) and effective draws (N,)."""
        if self.width == 0:
            return self._mean(found.precision, found.pull, 1.0)
        # Of a Gaussian around each draw the spectrum leaves one of covariance C, whichever it is:
        # N(c, h^2) exp(p t - t A t / 2) = N(C (p + c / h^2), C) exp(q c - c G c / 2).
        held = self.width**-2
        eye = torch.eye(found.pull.shape[1], dtype=torch.float64, device=found.pull.device)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(found.precision + held * eye))
        pull = held * (covariance @ found.pull[:, :, None])[:, :, 0]
        # The same as 1 / h^2 - C / h^4, without the loss of digits.
        matrix = held * (covariance @ found.precision)
        mean, effective = self._mean(matrix, pull, (1 - self.width**2) ** 0.5)
        latent = covariance @ (found.pull + held * mean)[:, :, None]
        return latent[:, :, 0], effective

    def _mean(self, matrix: Tensor, pull: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """Mean of factor times the draws c, weighed by exp(pull c - c matrix c / 2)."""
        row, column = pairs(matrix.shape[1], matrix.device)
        twice = torch.where(row == column, 0.5, 1.0)
        packed = (matrix[:, row, column] * twice).to(self.latents)
        pull = pull.to(self.latents)
        top = pull.new_full((len(pull), 1), -torch.inf)
        total, norm, square = torch.zeros_like(pull), torch.zeros_like(top), torch.zeros_like(top)
        for (some,) in blocks(DRAWS, self.latents):
            part = factor * some
            log = pull @ part.T - packed @ outer(part).T
            highest = torch.maximum(top, log.amax(1, keepdim=True))
            weight, fade = (log - highest).exp(), (top - highest).exp()
            total = total * fade + weight @ part
            norm = norm * fade + weight.sum(1, keepdim=True)
            square = square * fade**2 + weight.square().sum(1, keepdim=True)
            top = highest
        return (total / norm).double(), (norm.square() / square)[:, 0]
