"""Posterior: what a noisy spectrum says of its latents, x = mean + W t + noise, t ~ a Gaussian.

Every estimator that is linear in this way (Tipping & Bishop 1999; the Wiener filter) goes through
here. Products over pixels are in float32: an entry's error is relative to its own row and column,
and loadings are orthogonal. What is solved is in float64.

Axes: N spectra, P pixels, S latents, Q entries of a symmetric S x S matrix written as one row.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """What is known of the latents beforehand, in float64."""

    mean: Tensor
    "(S,)"
    precision: Tensor
    "(S, S) inverse of the covariance."
    log_det: Tensor
    "() of the covariance."

    @classmethod
    def standard(cls, size: int, device: torch.device) -> Self:
        """Mean 0, covariance 1."""
        zero = torch.zeros(size, dtype=torch.float64, device=device)
        return cls(zero, torch.eye(size, dtype=torch.float64, device=device), zero.sum())

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Self:
        """Of that mean (S,) and covariance (S, S)."""
        root = torch.linalg.cholesky(covariance.double())
        log_det = 2 * root.diagonal().log().sum()
        return cls(mean.double(), torch.cholesky_inverse(root), log_det)


class Evidence(NamedTuple):
    """All that N spectra say of their latents, in float64; D is the weight of the pixels."""

    precision: Tensor
    "(N, S, S) W^T D W."
    pull: Tensor
    "(N, S) W^T D (x - mean)."
    doubt: Tensor
    "(N,) weight times the variance of the mean, and of each loading, over all pixels."
    chi2: Tensor
    "(N,) of the mean spectrum."
    log_noise: Tensor
    "(N,) sum of ln D over the good pixels."


class Posterior(NamedTuple):
    """What the data say of the latents of N spectra, in float64."""

    mean: Tensor
    "(N, S)"
    covariance: Tensor
    "(N, S, S)"
    minus_two_log: Tensor
    "(N,) -2 ln of the marginal likelihood, without its constants."


def evidence(
    x: Tensor,
    known: Tensor,
    mean: Tensor,
    loading: Tensor,
    outers: Tensor | None = None,
    unsure: Tensor | None = None,
) -> Evidence:
    """What spectra x (N, P) of weight known (N, P) say of the latents of loading (P, S).

    Parameters
    ----------
    outers : (P, Q), optional
        `outer` of the loading, for those who keep it: 40 % of the time of a batch.
    unsure : (P,), optional
        Variance of the mean, and of each loading.
    """
    outers = outer(loading) if outers is None else outers
    doubt = known.new_zeros(len(x)) if unsure is None else known @ unsure
    precision = square((known @ outers).double(), loading.shape[1])
    # What a pixel without weight holds may be no number.
    distance = torch.where(known > 0, x - mean, 0)
    pull = ((known * distance) @ loading).double()
    log_noise = torch.where(known > 0, known, 1).log().sum(1, dtype=torch.float64)
    chi2 = (known * distance.square()).sum(1, dtype=torch.float64)
    return Evidence(precision, pull, doubt.double(), chi2, log_noise)


def posterior(found: Evidence, prior: Gaussian) -> Posterior:
    """Evidence and prior together.

    Notes
    -----
    -2 ln L is E[(x - mean - W t)^2] over what is not known of mean and W, so t is drawn towards 0
    where W is in doubt, or the noise that the loadings have learnt would be taken for signal
    (variational Bayes; Bishop 1999).
    """
    eye = torch.eye(len(prior.mean), dtype=torch.float64, device=prior.mean.device)
    precision = found.precision + (prior.precision + found.doubt[:, None, None] * eye)
    held = prior.precision @ prior.mean
    pull = found.pull + held
    root = torch.linalg.cholesky(precision)
    covariance = torch.cholesky_inverse(root)
    mean = (covariance @ pull.unsqueeze(-1)).squeeze(-1)
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    chi2 = found.chi2 - (pull * mean).sum(1) + held @ prior.mean
    return Posterior(
        mean, covariance, chi2 + found.doubt + log_det - found.log_noise + prior.log_det
    )


def pairs(size: int, device: torch.device) -> Tensor:
    """Row and column (2, Q) of each entry of a packed symmetric matrix."""
    return torch.triu_indices(size, size, device=device)


def outer(matrix: Tensor) -> Tensor:
    """Products (P, Q) of the columns of a matrix (P, S)."""
    row, column = pairs(matrix.shape[1], matrix.device)
    return matrix[:, row] * matrix[:, column]


def square(packed: Tensor, size: int) -> Tensor:
    """The symmetric matrices (..., size, size) of packed rows (..., Q)."""
    full = packed.new_empty((*packed.shape[:-1], size, size))
    row, column = pairs(size, packed.device)
    full[..., row, column] = packed
    full[..., column, row] = packed
    return full


def augmented(mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """E[z] (N, S + 1) and E[z z^T] (N, Q) of z = (t, 1), of what is known of t."""
    z = torch.nn.functional.pad(mean, (0, 1), value=1.0)
    both = z.unsqueeze(2) * z.unsqueeze(1)
    both[:, :-1, :-1] += covariance
    row, column = pairs(z.shape[1], z.device)
    return z, both[:, row, column]
