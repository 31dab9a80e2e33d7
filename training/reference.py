"""References: the best that can be made of a noisy spectrum, by those who know the noiseless ones.

`Linear` is the best of all linear estimators: a population that is Gaussian in flux has one best
estimate, the posterior mean (Wiener filter) with each spectrum's own noise. `Library` knows the
population itself, by very many draws of it. Axes: N spectra, P pixels, Q components.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from training.posterior import Gaussian, evidence, outer, posterior

OVERSAMPLE, ITERATIONS = 10, 4
"Of the randomised range finder (Halko, Martinsson & Tropp 2011)."
ROWS = 256
"Spectra solved at a time."
CENTRE_ROWS = 2048
"Spectra that are centred at a time, so that the population is never copied as a whole."


class Answer(NamedTuple):
    """What a reference makes of N spectra."""

    flux: Tensor
    "(N, P)"
    draws: Tensor | None = None
    "(N,) effective number of noiseless spectra that stand behind a row; None: it needs none."


class Reference(Protocol):
    """Whoever makes the best of noisy spectra."""

    def __call__(self, x: Tensor, weight: Tensor) -> Answer:
        """Flux of x (N, P) with inverse variances weight (N, P; 0 = no data)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Mean and principal components of a population; called, the posterior mean of a spectrum."""

    mean: Tensor
    "(P,) float32 mean spectrum."
    basis: Tensor
    "(Q, P) float32 components, each as long as its standard deviation in the population."

    @classmethod
    def learn(cls, clean: Tensor, components: int = 60, seed: int = 0) -> Self:
        """From noiseless spectra clean (M, P) float32.

        Raises
        ------
        ValueError
            When there are fewer spectra, or pixels, than components.
        """
        if min(clean.shape) < components:
            raise ValueError(
                f"clean spectra: shape {tuple(clean.shape)}, expected at least {components} "
                "rows and pixels; draw more, or ask for fewer components"
            )
        mean = clean.mean(0, dtype=torch.float64).float()
        width = min(components + OVERSAMPLE, *clean.shape)
        random = torch.Generator().manual_seed(seed)
        frame = torch.randn(clean.shape[1], width, generator=random).to(clean.device)
        for _ in range(ITERATIONS):
            frame = torch.linalg.qr(_covariance_times(clean, mean, frame)).Q
        small = (frame.T @ _covariance_times(clean, mean, frame)).double()
        variance, vector = torch.linalg.eigh((small + small.T) / 2)
        order = variance.argsort(descending=True)[:components]
        long = vector[:, order] * variance[order].clamp(min=0).sqrt()
        return cls(mean=mean, basis=(frame @ long.float()).T.contiguous())

    def __call__(self, x: Tensor, weight: Tensor) -> Answer:
        """Posterior mean of every spectrum."""
        prior = Gaussian.standard(len(self.basis), x.device)
        loading = self.basis.T.contiguous()
        outers = outer(loading)
        latents = [
            posterior(evidence(some, known, self.mean, loading, outers), prior).mean
            for some, known in blocks(ROWS, x, weight)
        ]
        return Answer(self.decode(torch.cat(latents)))

    def decode(self, latent: Tensor) -> Tensor:
        """The spectra (N, P) of latents (N, Q)."""
        return self.mean + latent.to(self.basis) @ self.basis

    def encode(self, clean: Tensor) -> Tensor:
        """The latents (N, Q) of noiseless spectra (N, P)."""
        square = self.basis.square().sum(1)
        return (clean - self.mean) @ self.basis.T / square.clamp(min=torch.finfo(square.dtype).tiny)


def blocks(rows: int, *arrays: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """So many rows of all arrays at a time; one empty part when there are none."""
    for start in range(0, max(len(arrays[0]), 1), rows):
        yield tuple(array[start : start + rows] for array in arrays)


def _covariance_times(clean: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    """Covariance of the population (P, P) times a matrix (P, K); the covariance is never made."""
    product = torch.zeros_like(matrix)
    for start in range(0, len(clean), CENTRE_ROWS):
        part = clean[start : start + CENTRE_ROWS] - mean
        product += part.T @ (part @ matrix)
    return product / len(clean)
