"""The library against posterior means that are known."""

import numpy as np
import pytest
import torch

from training.library import LEAST, Library
from training.reference import Linear

PIXELS = 60
SHAPES = np.stack([np.ones(PIXELS), np.sin(np.arange(PIXELS) / 9)])


def clean(latent: np.ndarray) -> torch.Tensor:
    return torch.tensor(2 + latent @ SHAPES, dtype=torch.float32)


def seen(latent: np.ndarray, sigma: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    truth = clean(latent)
    random = torch.Generator().manual_seed(seed)
    noisy = truth + sigma * torch.randn(truth.shape, generator=random)
    return noisy, torch.full_like(noisy, sigma**-2)


def gaussian(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2)) * [0.5, 0.3]


def either_or(n: int, seed: int) -> np.ndarray:
    """Two sorts of galaxies with nothing between them."""
    random = np.random.default_rng(seed)
    return np.stack([random.choice([-1.0, 1.0], n), 0.3 * random.normal(size=n)], 1)


def taught(latent: np.ndarray, width: float = 0.0) -> tuple[Linear, Library]:
    linear = Linear.learn(clean(latent), components=2)
    return linear, Library.learn(linear, [clean(part) for part in np.array_split(latent, 7)], width)


@pytest.mark.parametrize("width", [0.0, 0.3, 0.9])
def test_it_is_the_linear_reference_on_a_gaussian_population(width: float) -> None:
    linear, library = taught(gaussian(40_000, seed=1), width)
    x, weight = seen(gaussian(50, seed=2), sigma=1.5, seed=3)
    answer = library(x, weight)
    torch.testing.assert_close(answer.flux, linear(x, weight).flux, atol=0.03, rtol=0)
    assert answer.draws is not None
    assert (answer.draws > LEAST).all()


def test_it_is_the_mean_that_bayes_theorem_gives() -> None:
    latent = gaussian(300, seed=1)
    _, library = taught(latent)
    x, weight = seen(gaussian(5, seed=2), sigma=2.5, seed=3)
    draws = clean(latent).double()
    log = -0.5 * (weight[0, 0] * (x.double()[:, None] - draws).square()).sum(2)
    share = log.softmax(1)
    answer = library(x, weight)
    torch.testing.assert_close(answer.flux.double(), share @ draws, atol=1e-3, rtol=0)
    torch.testing.assert_close(answer.draws.double(), 1 / share.square().sum(1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("width", [0.0, 0.1])
def test_it_beats_the_linear_reference_where_galaxies_are_of_two_sorts(width: float) -> None:
    linear, library = taught(either_or(20_000, seed=1), width)
    latent = either_or(400, seed=2)
    x, weight = seen(latent, sigma=3.0, seed=3)
    off = [
        float((reference(x, weight).flux - clean(latent)).square().mean().sqrt())
        for reference in (library, linear)
    ]
    assert off[0] < 0.6 * off[1]


def test_where_draws_are_too_few_it_gives_the_linear_answer() -> None:
    linear, library = taught(gaussian(500, seed=1))
    x, weight = seen(gaussian(20, seed=2), sigma=0.01, seed=3)
    answer = library(x, weight)
    assert (answer.draws < LEAST).all()
    torch.testing.assert_close(answer.flux, linear(x, weight).flux, atol=1e-5, rtol=0)


def test_without_data_it_says_the_mean_of_the_draws() -> None:
    latent = gaussian(2000, seed=1)
    _, library = taught(latent)
    nothing = torch.zeros(1, PIXELS)
    answer = library(nothing, nothing)
    torch.testing.assert_close(answer.flux[0], clean(latent).mean(0), atol=1e-4, rtol=0)
    assert float(answer.draws) == pytest.approx(2000)
