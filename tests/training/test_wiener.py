"""The Wiener estimator is the best on a Gaussian population, as theory and the reference are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from storage.names import resolve
from tests.training.small import GRID, PIXELS, cut, made, taught
from training.batch import Batch
from training.reference import Linear

pytestmark = pytest.mark.usefixtures("one_thread")

COMPONENTS = 6
PIXEL = np.linspace(0.2, 3, PIXELS)
BASIS = np.sin(np.outer(np.arange(1, COMPONENTS + 1), PIXEL)) * (
    0.5 * 0.6 ** np.arange(COMPONENTS)[:, None]
)
MEAN = 1 + 0.3 * PIXEL / 3


def gaussian(n: int, seed: int) -> tuple[Batch, np.ndarray]:
    """A linear mock: spectra of a Gaussian population, S/N 2 to 10, and their truth as target."""
    random = np.random.default_rng(seed)
    truth = MEAN + random.normal(size=(n, COMPONENTS)) @ BASIS
    sigma = 1 / random.uniform(2, 10, size=(n, 1)) * (1 + 0.5 * np.sin(PIXEL))
    weight = np.where(random.random(truth.shape) < 0.05, 0, sigma**-2)
    batch = made(truth + sigma * random.normal(size=truth.shape), weight)
    target = torch.from_numpy(truth).float()
    return replace(batch, target=target, target_weight=torch.ones_like(target)), truth


def off(flux: torch.Tensor, truth: np.ndarray) -> float:
    return float(np.sqrt(((flux.double().numpy() - truth) ** 2).mean()))


def test_it_is_the_linear_reference_on_a_linear_mock() -> None:
    train, clean = gaussian(2000, seed=1)
    model = resolve("training.models", "wiener").build(GRID, components=COMPONENTS)
    taught(model, train, epochs=1)
    reference = Linear.learn(torch.from_numpy(clean).float(), components=COMPONENTS)
    batch, truth = gaussian(500, seed=2)
    output = model(batch.x, batch.weight, batch.z)
    expected = off(reference(batch.x, batch.weight).flux, truth)
    assert off(output.flux, truth) == pytest.approx(expected, rel=0.002)
    pull = (output.flux.numpy() - truth) / output.sigma.numpy()
    assert pull.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", ["ppca", "mppca"])
def test_what_learns_from_noisy_spectra_comes_near_it(name: str) -> None:
    train, clean = gaussian(4000, seed=1)
    options = {"kinds": 2} if name == "mppca" else {}
    model = resolve("training.models", name).build(GRID, components=COMPONENTS, **options)
    taught(model, train, epochs=12)
    reference = Linear.learn(torch.from_numpy(clean).float(), components=COMPONENTS)
    batch, truth = gaussian(500, seed=2)
    expected = off(reference(batch.x, batch.weight).flux, truth)
    assert off(model(batch.x, batch.weight, batch.z).flux, truth) < 1.02 * expected


def test_mean_and_covariance_are_those_of_the_targets() -> None:
    train, clean = gaussian(400, seed=3)
    model = resolve("training.models", "wiener").build(GRID, components=COMPONENTS)
    left = taught(model, train, epochs=1)[0]
    np.testing.assert_allclose(model.mean, clean.mean(0), atol=1e-5)
    loading = model.loading.double().numpy()
    covariance = np.cov(clean.T, bias=True)
    np.testing.assert_allclose(loading @ loading.T, covariance, atol=1e-4)
    assert left == pytest.approx(0, abs=1e-3)
    assert float(model.scatter.max()) < 1e-4


def test_a_target_counts_only_where_it_is() -> None:
    train, clean = gaussian(600, seed=4)
    missing = np.random.default_rng(5).random(clean.shape) < 0.3
    spoilt = replace(
        train,
        target=torch.where(torch.from_numpy(missing), 99.0, train.target),
        target_weight=torch.from_numpy(~missing).float(),
    )
    model = resolve("training.models", "wiener").build(GRID, components=COMPONENTS)
    model.mean.copy_(torch.from_numpy(MEAN))
    hidden = np.ma.masked_array(clean, missing)
    with torch.no_grad():
        model.update(model.accumulate(spoilt))
    np.testing.assert_allclose(model.mean, hidden.mean(0), atol=1e-5)
    away = (hidden - hidden.mean(0)).filled(0)
    covariance = (away.T @ away) / ((~missing).T.astype(float) @ ~missing)
    top = np.linalg.eigvalsh(covariance)[:-7:-1]
    np.testing.assert_allclose(model.loading.square().sum(0), top, rtol=1e-3)


@pytest.mark.parametrize("of_its_own", [False, True])
def test_noise_is_taken_off_when_there_is_no_truth(of_its_own: bool) -> None:
    train, clean = gaussian(4000, seed=6)
    model = resolve("training.models", "wiener").build(GRID, components=COMPONENTS)
    model.start(lambda: cut(train, 100), seed=0)
    given = (train.x, train.weight) if of_its_own else (None, None)
    noisy = replace(train, target=given[0], target_weight=given[1])
    with torch.no_grad():
        model.update(model.accumulate(noisy))
    widths = model.loading.square().sum(0).double().numpy()
    expected = np.linalg.eigvalsh(np.cov(clean.T))[:-7:-1]
    np.testing.assert_allclose(widths[:4], expected[:4], rtol=0.05)
    assert float(model.scatter.mean()) < 0.1 * float((1 / train.weight[train.weight > 0]).mean())
