"""The mixture of factor models: its equations, and what it gains over one Gaussian."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from storage.names import resolve
from tests.training.small import GRID, PIXELS, cut, made, population, sums, taught
from training.batch import Batch

pytestmark = pytest.mark.usefixtures("one_thread")


def build(**options):  # type: ignore[no-untyped-def]
    return resolve("training.models", "mppca").build(GRID, **options)


def two_kinds(n: int, seed: int) -> tuple[Batch, np.ndarray, np.ndarray]:
    """Red and blue galaxies, S/N 1.2 a pixel: each kind varies along a shape of its own."""
    random = np.random.default_rng(seed)
    pixel = np.arange(PIXELS)
    slope, red, blue = (pixel / PIXELS - 0.5, np.sin(pixel / 12), np.cos(pixel / 7))
    kind = random.random(n) < 0.3
    strength = random.normal(size=n)
    truth = 1 + np.where(kind, 0.5, -0.5)[:, None] * slope
    truth += 0.1 * strength[:, None] * np.where(kind[:, None], red, blue)
    sigma = np.full(truth.shape, 0.8)
    return made(truth + sigma * random.normal(size=truth.shape), sigma**-2), truth, kind


def test_posterior_is_that_of_a_sum_of_gaussians() -> None:
    batch, _ = population(4, seed=2)
    model = build(components=3, kinds=3, plain=1, shared=10.0)
    taught(model, population()[0], epochs=3)
    model.unsure.zero_()
    output = model(batch.x, batch.weight, batch.z)
    loading, mean = model.loading.double().numpy(), model.mean.double().numpy()
    share, centre, width = (
        value.double().numpy() for value in (model.share, model.centre, model.covariance)
    )
    for row in range(4):
        good = batch.weight[row].numpy() > 0
        seen, x = loading[good], batch.x[row].double().numpy()[good] - mean[good]
        noise = np.diag(1 / batch.weight[row].double().numpy()[good])
        log, flux, square = [], [], []
        for k in range(3):
            total = seen @ width[k] @ seen.T + noise
            log.append(np.log(share[k]) + multivariate_normal(seen @ centre[k], total).logpdf(x))
            gain = width[k] @ seen.T @ np.linalg.inv(total)
            latent = centre[k] + gain @ (x - seen @ centre[k])
            left = width[k] - gain @ seen @ width[k]
            flux.append(mean + loading @ latent)
            square.append(np.diag(loading @ left @ loading.T) + flux[-1] ** 2)
        weight = np.exp(np.array(log) - logsumexp(log))
        expected = weight @ np.array(flux)
        np.testing.assert_allclose(output.flux[row], expected, atol=1e-4)
        variance = weight @ np.array(square) - expected**2
        np.testing.assert_allclose(output.sigma[row], np.sqrt(variance), rtol=3e-3)


def test_objective_is_the_likelihood() -> None:
    batch, _ = population(5, seed=2)
    model = build(components=3, kinds=2, plain=1)
    taught(model, population()[0], epochs=3)
    model.unsure.zero_()
    loading, mean = model.loading.double().numpy(), model.mean.double().numpy()
    expected, pixels = 0.0, 0
    for x, weight in zip(batch.x.double().numpy(), batch.weight.double().numpy(), strict=True):
        good = weight > 0
        logs = [
            np.log(float(share))
            + multivariate_normal(
                (mean + loading @ centre.double().numpy())[good],
                loading[good] @ width.double().numpy() @ loading[good].T
                + np.diag(1 / weight[good]),
            ).logpdf(x[good])
            for share, centre, width in zip(
                model.share, model.centre, model.covariance, strict=True
            )
        ]
        expected += -2 * logsumexp(logs) - good.sum() * np.log(2 * np.pi)
        pixels += int(good.sum())
    assert model.update(sums(model, batch)) == pytest.approx(expected / pixels, abs=1e-5)


@pytest.mark.parametrize("plain", [1, 3])
def test_one_kind_is_ppca(plain: int) -> None:
    batch, _ = population()
    one = build(components=4, kinds=1, plain=plain)
    two = resolve("training.models", "ppca").build(GRID, components=4)
    objectives = [taught(model, batch, epochs=5) for model in (one, two)]
    assert objectives[0] == pytest.approx(objectives[1], abs=1e-6)
    outputs = [model(batch.x, batch.weight, batch.z) for model in (one, two)]
    torch.testing.assert_close(outputs[0].flux, outputs[1].flux, atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs[0].sigma, outputs[1].sigma, atol=1e-4, rtol=1e-3)


def test_kinds_are_found_and_make_it_better() -> None:
    train, _, _ = two_kinds(2000, seed=1)
    mixed, plain = (
        build(components=4, kinds=2, plain=3),
        resolve("training.models", "ppca").build(GRID, components=4),
    )
    objectives = taught(mixed, train, epochs=15)
    assert np.all(np.diff(objectives[3:]) < 0)
    taught(plain, train, epochs=15)
    assert sorted(mixed.share.tolist()) == pytest.approx([0.3, 0.7], abs=0.05)
    batch, truth, _ = two_kinds(500, seed=2)
    off = [
        float((model(batch.x, batch.weight, batch.z).flux.numpy() - truth).std())
        for model in (mixed, plain)
    ]
    assert off[0] < 0.9 * off[1]
    output = mixed(batch.x, batch.weight, batch.z)
    pull = (output.flux.numpy() - truth) / output.sigma.numpy()
    assert pull.std() == pytest.approx(1, abs=0.1)


def test_latents_as_a_whole_have_mean_0_and_covariance_1() -> None:
    model = build(components=4, kinds=2, plain=2, shared=1e-3)
    taught(model, two_kinds(1000, seed=1)[0], epochs=5)
    mean = model.share @ model.centre
    torch.testing.assert_close(mean, torch.zeros(4), atol=5e-3, rtol=0)
    apart = model.centre - mean
    whole = torch.einsum("k,kij->ij", model.share, model.covariance)
    whole += torch.einsum("k,ki,kj->ij", model.share, apart, apart)
    torch.testing.assert_close(whole, torch.eye(4), atol=2e-2, rtol=0)


def test_all_kinds_are_alike_in_covariance_when_they_share_everything() -> None:
    model = build(components=4, kinds=2, plain=1, shared=1e9)
    taught(model, two_kinds(600, seed=1)[0], epochs=3)
    torch.testing.assert_close(model.covariance[0], model.covariance[1], atol=1e-4, rtol=0)
    assert not torch.allclose(model.centre[0], model.centre[1], atol=0.1)


def test_the_same_seed_gives_the_same_kinds() -> None:
    batch, _, _ = two_kinds(400, seed=1)
    first, same, other = (build(components=4, kinds=4) for _ in range(3))
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        model.start(lambda: cut(batch, 100), seed=seed)
    assert torch.equal(first.centre, same.centre)
    assert not torch.equal(first.centre, other.centre)


def test_more_kinds_than_there_are_do_no_harm() -> None:
    batch, truth = population(300)
    model = build(components=4, kinds=12, plain=3)
    taught(model, batch, epochs=10)
    output = model(batch.x, batch.weight, batch.z)
    assert output.flux.isfinite().all()
    assert float(model.share.sum()) == pytest.approx(1)
    noise = 1 / batch.weight[batch.weight > 0].sqrt().numpy()
    assert (output.flux.numpy() - truth).std() < 0.25 * np.sqrt((noise**2).mean())


def test_draws_of_the_latents_have_the_sigma_of_the_flux() -> None:
    model = build(components=4, kinds=2, plain=3)
    taught(model, two_kinds(1000, seed=1)[0], epochs=5)
    model.unsure.zero_()
    batch, _, _ = two_kinds(3, seed=2)
    output = model(batch.x, batch.weight, batch.z)
    assert torch.equal(model.decode(output.latent), output.flux)
    root = torch.linalg.cholesky(output.latent_cov)
    noise = torch.randn(4000, 3, 4, generator=torch.Generator().manual_seed(1))
    drawn = model.decode(output.latent + torch.einsum("nij,dnj->dni", root, noise))
    torch.testing.assert_close(drawn.std(0), output.sigma, rtol=0.1, atol=0)
