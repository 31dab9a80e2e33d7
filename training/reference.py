"""The linear reference: the best that any linear estimator could do, learnt from noiseless spectra.

A population that is Gaussian in flux has one best estimate of a noisy spectrum: the posterior
mean (Wiener filter) with each spectrum's own noise. Axes: N spectra, P pixels, Q components.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

OVERSAMPLE, ITERATIONS = 10, 4
"Of the randomised range finder (Halko, Martinsson & Tropp 2011)."
ROWS = 256
"Spectra solved at a time."
CENTRE_ROWS = 2048
"Spectra that are centred at a time, so that the population is never copied as a whole."


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

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """Posterior mean (N, P) of x (N, P) with inverse variances weight (N, P; 0 = no data).

        Notes
        -----
        x = mean + a B + noise, a ~ N(0, 1): a = (1 + B W B^T)^-1 B W (x - mean). All B_i B_j are
        made once, so that the N matrices are one product of W with them.
        """
        size = self.basis.shape[0]
        upper = torch.triu_indices(size, size, device=x.device)
        pairs = self.basis[upper[0]] * self.basis[upper[1]]
        return torch.cat(
            [
                self._posterior(x[start : start + ROWS], weight[start : start + ROWS], pairs, upper)
                for start in range(0, len(x), ROWS)
            ]
            or [x]
        )

    def _posterior(self, x: Tensor, weight: Tensor, pairs: Tensor, upper: Tensor) -> Tensor:
        size = self.basis.shape[0]
        precision = x.new_zeros(len(x), size, size, dtype=torch.float64)
        precision[:, upper[0], upper[1]] = (weight @ pairs.T).double()
        precision[:, upper[1], upper[0]] = precision[:, upper[0], upper[1]]
        precision.diagonal(dim1=1, dim2=2).add_(1.0)
        right = ((x - self.mean) * weight) @ self.basis.T
        factor = torch.linalg.cholesky(precision)
        latent = torch.cholesky_solve(right.double()[..., None], factor)[..., 0]
        return self.mean + latent.float() @ self.basis


def _covariance_times(clean: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    """Covariance of the population (P, P) times a matrix (P, K); the covariance is never made."""
    product = torch.zeros_like(matrix)
    for start in range(0, len(clean), CENTRE_ROWS):
        part = clean[start : start + CENTRE_ROWS] - mean
        product += part.T @ (part @ matrix)
    return product / len(clean)
