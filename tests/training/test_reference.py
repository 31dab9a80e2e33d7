"""The linear reference against the estimator that theory gives."""

import numpy as np
import pytest
import torch

from training.reference import Linear

PIXELS, COMPONENTS = 120, 6


def population(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of a Gaussian population, its mean and its covariance."""
    rng = np.random.default_rng(seed)
    smooth = np.sin(np.outer(np.arange(1, COMPONENTS + 1), np.linspace(0, 3, PIXELS)))
    basis = smooth * (0.6 ** np.arange(COMPONENTS))[:, None]
    mean = 1.0 + 0.3 * np.linspace(-1, 1, PIXELS)
    latent = rng.normal(size=(n, COMPONENTS))
    # Whitened, so that the sample has the covariance of the population exactly.
    latent -= latent.mean(0)
    latent = latent @ np.linalg.inv(np.linalg.cholesky(latent.T @ latent / n)).T
    return mean + latent @ basis, mean, basis.T @ basis


def test_it_is_the_wiener_estimator() -> None:
    clean, mean, covariance = population(400, seed=1)
    learnt = Linear.learn(torch.tensor(clean, dtype=torch.float32), components=COMPONENTS)
    rng = np.random.default_rng(2)
    sigma = rng.uniform(0.1, 0.5, (300, PIXELS))
    noisy = clean[:300] + sigma * rng.normal(size=sigma.shape)
    weight = np.where(rng.random(sigma.shape) < 0.1, 0.0, sigma**-2)
    given = (torch.tensor(array, dtype=torch.float32) for array in (noisy, weight))
    actual = learnt(*given).flux.numpy()
    for row in range(0, 300, 37):
        seen = weight[row] > 0
        part = covariance[np.ix_(seen, seen)] + np.diag(1 / weight[row, seen])
        gain = np.linalg.solve(part, noisy[row, seen] - mean[seen])
        expected = mean + covariance[:, seen] @ gain
        np.testing.assert_allclose(actual[row], expected, atol=2e-4)


def test_without_data_it_says_the_mean() -> None:
    clean, mean, _ = population(200, seed=3)
    learnt = Linear.learn(torch.tensor(clean, dtype=torch.float32), components=COMPONENTS)
    nothing = torch.zeros(2, PIXELS)
    np.testing.assert_allclose(learnt(nothing, nothing).flux, [mean, mean], atol=1e-5)
    assert learnt(nothing[:0], nothing[:0]).flux.shape == (0, PIXELS)


def test_components_are_those_of_the_population() -> None:
    clean, _, covariance = population(500, seed=4)
    learnt = Linear.learn(torch.tensor(clean, dtype=torch.float32), components=COMPONENTS, seed=9)
    basis = learnt.basis.numpy()
    np.testing.assert_allclose(basis.T @ basis, covariance, atol=1e-4)
    gram = basis @ basis.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)


def test_what_is_encoded_is_decoded() -> None:
    clean = torch.tensor(population(200, seed=7)[0], dtype=torch.float32)
    learnt = Linear.learn(clean, components=COMPONENTS)
    latent = learnt.encode(clean)
    torch.testing.assert_close(learnt.decode(latent), clean, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        latent.var(0, correction=0), torch.ones(COMPONENTS), atol=1e-3, rtol=0
    )


def test_same_seed_same_reference() -> None:
    clean = torch.tensor(population(200, seed=5)[0], dtype=torch.float32)
    first, second = (Linear.learn(clean, components=4, seed=1) for _ in range(2))
    assert torch.equal(first.basis, second.basis)


def test_too_few_spectra_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 20\), expected at least 60"):
        Linear.learn(torch.ones(5, 20))
