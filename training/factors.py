"""Factors: denoisers that say a spectrum is a mean and a few loadings, and know each pixel's noise.

x = mean + W t + noise. The output is the posterior mean, so it comes with a covariance; a missing
pixel has weight 0 and simply does not count. How mean and loadings are learnt is the models' own.

Axes: N spectra, P pixels, S latents, Q entries of a symmetric S x S matrix written as one row.
"""

import torch
from torch import Tensor

from training.model import Denoiser, Output
from training.posterior import (
    Evidence,
    Gaussian,
    Posterior,
    evidence,
    outer,
    pairs,
    posterior,
)


class Factors(Denoiser):
    """Mean spectrum and loadings; W^T W is diagonal, widest first."""

    mean: Tensor
    loading: Tensor
    scatter: Tensor
    unsure: Tensor

    def __init__(self, pixels: int, components: int, scatter: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(pixels))
        self.register_buffer("loading", torch.zeros(pixels, components))
        # Variance that the components leave; it counts as noise.
        self.register_buffer("scatter", torch.full((pixels,), scatter))
        # Variance of the mean, and of each loading, of a pixel: 1 over all the weight it has had.
        self.register_buffer("unsure", torch.zeros(pixels))
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Posterior mean, its standard deviation in each pixel, latents and their covariance."""
        found = self.infer(self.evidence(x, self.known(weight)))
        latent = found.mean.to(x.dtype)
        covariance = found.covariance.to(x.dtype)
        # The loadings are learnt from finitely many spectra. As E[t t^T] = 1, their errors are
        # alike and independent; at 2,100 spectra they are half of the variance.
        learnt = (1 + latent.square().sum(1, keepdim=True)) * self.unsure
        sigma = (self.spread(covariance) + learnt + self.scatter).sqrt()
        return Output(self.decode(latent), sigma, latent, covariance)

    def decode(self, latent: Tensor) -> Tensor:
        """The spectrum of these latents."""
        return self.mean + latent @ self.loading.T

    def infer(self, found: Evidence) -> Posterior:
        """The latents of spectra, by a prior of mean 0 and covariance 1 unless a model knows more.

        Of what is not Gaussian: mean, covariance and marginal likelihood.
        """
        return posterior(found, Gaussian.standard(self.loading.shape[1], self.loading.device))

    def evidence(self, x: Tensor, known: Tensor) -> Evidence:
        """What spectra say of their latents."""
        return evidence(x, known, self.mean, self.loading, self._outers(), self.unsure)

    def known(self, weight: Tensor) -> Tensor:
        """Weight (N, P) of pixels when what the components leave is noise as well."""
        return weight / (1 + weight * self.scatter)

    def spread(self, covariance: Tensor) -> Tensor:
        """Variance (N, P) of W t: the diagonal of W C W^T."""
        row, column = pairs(self.loading.shape[1], covariance.device)
        twice = torch.where(row == column, 1, 2)
        return ((covariance[:, row, column] * twice) @ self._outers().T).clamp(min=0)

    def _outers(self) -> Tensor:
        """Products (P, Q) of the loadings, kept until these change: 40 % of the time of a batch."""
        state = (self.loading.device, self.loading.data_ptr(), self.loading._version)
        if self._kept is None or self._kept[0] != state:
            self._kept = state, outer(self.loading)
        return self._kept[1]


def rotation(loading: Tensor) -> Tensor:
    """(S, S) float64 that makes the columns of W (P, S) orthogonal, widest first.

    Each column's largest entry becomes positive; W W^T stays.
    """
    wide = loading.double()
    vectors: Tensor = torch.linalg.eigh(wide.T @ wide).eigenvectors.flip(1)
    turned = wide @ vectors
    largest = turned.gather(0, turned.abs().argmax(0, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0)
