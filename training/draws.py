"""Draws: spectra of the posterior of a denoiser's latents, and how far an index scatters over them.

Axes: N spectra, P pixels, S latents, I indices.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from training.apply import ROWS
from training.model import Denoiser

Indices = Callable[[Tensor, Tensor], Tensor]
"Indices (n, I) of spectra (n, P), which are rows (n,) of the N."


def scatter(
    model: Denoiser,
    latent: Tensor,
    cov: Tensor,
    indices: Indices,
    *,
    draws: int,
    seed: int,
    first: int = 0,
) -> Tensor:
    """Standard deviation (N, I) of indices over draws of the posterior.

    Parameters
    ----------
    latent, cov : (N, S), (N, S, S) Tensor
        Mean and covariance of the latents.
    first : int
        Number of the first row: a row's draws are the same on any worker, in any block that begins
        at a multiple of 256.
    """
    found = []
    for start in range(0, len(latent), ROWS):
        rows = torch.arange(start, min(start + ROWS, len(latent)))
        state = np.random.SeedSequence([seed, first + start]).generate_state(1)
        random = torch.Generator().manual_seed(int(state[0]))
        drawn = posterior(model, latent[rows], cov[rows], draws, random)
        # Of few rows many draws are measured at once, or the calls would cost more than the work.
        together = max(1, ROWS // len(rows))
        values = [
            indices(torch.cat(some) if len(some) > 1 else some[0], rows.repeat(len(some)))
            for some in (drawn[i : i + together] for i in range(0, draws, together))
        ]
        found.append(torch.cat(values).reshape(draws, len(rows), -1).std(dim=0))
    return torch.cat(found)


@torch.inference_mode()
def posterior(
    model: Denoiser, latent: Tensor, cov: Tensor, draws: int, random: torch.Generator
) -> list[Tensor]:
    """Draws (N, P) of the posterior of N spectra, in units of the frame.

    latent (N, S), cov (N, S, S): rows whose covariance is 0 give their mean.
    """
    factor = _root(cov)
    # As many as a full batch takes, so that a row's draws do not depend on how many follow it.
    noise = torch.randn(draws, ROWS, latent.shape[1], generator=random)[:, : len(latent)]
    moved = (torch.einsum("nij,nj->ni", factor, e) for e in noise.to(latent.device))
    return [model.decode(latent + step) for step in moved]


def _root(cov: Tensor) -> Tensor:
    """A square root (N, S, S) of covariances, which may miss being positive by their rounding."""
    ridge = 1e-7 * cov.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-30)
    unit = torch.eye(cov.shape[1], device=cov.device)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(cov + ridge[:, None, None] * unit)
    poor = failed > 0
    if poor.any():
        widths, axes = torch.linalg.eigh(cov[poor].double())
        factor[poor] = (axes * widths.clamp_min(0).sqrt()[:, None]).to(factor.dtype)
    return factor
