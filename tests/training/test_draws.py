"""Draws of a posterior: as wide as its covariance, whatever rounding did to it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.draws import scatter
from training.model import Denoiser, Output


class Plain(Denoiser):
    """What it decodes is its latents."""

    fit = "none"

    def decode(self, latent: Tensor) -> Tensor:
        return latent

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        return Output(x)


def spread(cov: np.ndarray, draws: int = 4000) -> np.ndarray:
    """Scatter of the latents, and of the sum of the first two."""
    given = torch.from_numpy(cov).float()

    def indices(flux: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([flux, flux[:, :2].sum(1, keepdim=True)], 1)

    mean = torch.zeros(given.shape[:2])
    return scatter(Plain(), mean, given, indices, draws=draws, seed=3).numpy()


CORRELATED = np.array([[4.0, 1.2, 0.0], [1.2, 1.0, 0.3], [0.0, 0.3, 0.25]])


def expected(cov: np.ndarray) -> np.ndarray:
    total = cov[0, 0] + cov[1, 1] + 2 * cov[0, 1]
    return np.sqrt([*np.diag(cov), total])


def test_draws_scatter_as_their_covariance_says() -> None:
    # Known to 1.1 %; the seed is fixed.
    np.testing.assert_allclose(spread(CORRELATED[None])[0], expected(CORRELATED), rtol=0.03)


@pytest.mark.parametrize("rounding", [0.0, 1e-5])
def test_a_covariance_that_rounding_made_negative_is_drawn_from(rounding: float) -> None:
    line = np.array([2.0, -1.0, 0.5])
    flat = np.outer(line, line) - rounding * np.eye(3)
    found = spread(np.stack([CORRELATED, flat]))
    np.testing.assert_allclose(found[1], expected(np.outer(line, line)), rtol=0.03)
    # Whoever stands beside it has the draws that it has alone.
    np.testing.assert_array_equal(found[0], spread(CORRELATED[None])[0])


def test_a_row_without_covariance_does_not_scatter() -> None:
    np.testing.assert_allclose(spread(np.zeros((1, 3, 3)), draws=16), 0, atol=1e-12)
