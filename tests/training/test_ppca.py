"""The factor model does what its equations say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from storage.names import resolve
from tests.training.small import GRID, PIXELS, ROWS, made, population, sums, taught

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ppca_posterior_is_that_of_a_gaussian() -> None:
    batch, _ = population(5, seed=2)
    model = resolve("training.models", "ppca").build(GRID, components=3)
    taught(model, population()[0], epochs=3)
    model.unsure.zero_()
    output = model(batch.x, batch.weight, batch.z)
    loading, mean = model.loading.double().numpy(), model.mean.double().numpy()
    for row in range(5):
        good = batch.weight[row].numpy() > 0
        seen = loading[good]
        total = seen @ seen.T + np.diag(1 / batch.weight[row].double().numpy()[good])
        gain = loading @ seen.T @ np.linalg.inv(total)
        flux = mean + gain @ (batch.x[row].double().numpy() - mean)[good]
        variance = np.diag(loading @ loading.T - gain @ seen @ loading.T)
        np.testing.assert_allclose(output.flux[row], flux, atol=1e-4)
        np.testing.assert_allclose(output.sigma[row], np.sqrt(variance), rtol=1e-3)


def test_ppca_objective_is_the_likelihood() -> None:
    batch, _ = population(5, seed=2)
    model = resolve("training.models", "ppca").build(GRID, components=3)
    taught(model, population()[0], epochs=3)
    model.unsure.zero_()
    loading, mean = model.loading.double().numpy(), model.mean.double().numpy()
    expected, pixels = 0.0, 0
    for x, weight in zip(batch.x.double().numpy(), batch.weight.double().numpy(), strict=True):
        good = weight > 0
        total = loading[good] @ loading[good].T + np.diag(1 / weight[good])
        log_l = multivariate_normal(mean[good], total).logpdf(x[good])
        expected += -2 * log_l - good.sum() * np.log(2 * np.pi)
        pixels += int(good.sum())
    assert model.update(sums(model, batch)) == pytest.approx(expected / pixels, abs=1e-5)


def test_ppca_bears_pixels_that_few_bright_spectra_know() -> None:
    batch, _ = population(100)
    weight = torch.where(batch.weight > 0, batch.weight, 1.0)
    # Fewer than there are components, and no noise to speak of.
    weight[:, :20] = 0
    weight[:3, :20] = 1e10
    model = resolve("training.models", "ppca").build(GRID, components=8)
    taught(model, replace(batch, weight=weight), epochs=4)
    output = model(batch.x, weight, batch.z)
    assert output.flux.isfinite().all()
    torch.testing.assert_close(output.flux[:3, :20], batch.x[:3, :20], atol=0.05, rtol=0)


def test_ppca_trusts_no_loading_more_than_it_is_known() -> None:
    batch, _ = population(5, seed=2)
    model = resolve("training.models", "ppca").build(GRID, components=3)
    taught(model, population()[0], epochs=3)
    model.unsure.fill_(0.02)
    output = model(batch.x, batch.weight, batch.z)
    random = np.random.default_rng(8)
    loading, mean = model.loading.double().numpy(), model.mean.double().numpy()
    drawn = loading + np.sqrt(0.02) * random.normal(size=(4000, *loading.shape))
    for row in range(5):
        weight = batch.weight[row].double().numpy()
        pull = loading.T @ (weight * (batch.x[row].double().numpy() - mean))
        # The latents that make |t|^2 + chi^2 least, averaged over what the loadings may be.
        normal = np.eye(3) + np.einsum("kpi,p,kpj->ij", drawn, weight, drawn) / len(drawn)
        expected = np.linalg.solve(normal, pull)
        np.testing.assert_allclose(output.latent[row], expected, rtol=0.03, atol=0.01)


def test_ppca_finds_the_truth_from_noisy_spectra() -> None:
    model = resolve("training.models", "ppca").build(GRID, components=5)
    objectives = taught(model, population()[0], epochs=15)
    # Parameter-expanded EM never goes up; float32 sums allow for a little.
    assert np.all(np.diff(objectives) < 1e-5)
    batch, truth = population(400, seed=5)
    output = model(batch.x, batch.weight, batch.z)
    off = output.flux.numpy() - truth
    noise = 1 / batch.weight[batch.weight > 0].sqrt().numpy()
    # Three latents from 190 pixels: the noise falls by sqrt(3 / 190) = 0.13, and a little is lost.
    assert np.sqrt((off**2).mean()) < 0.2 * np.sqrt((noise**2).mean())
    pull = off / output.sigma.numpy()
    assert pull.std() == pytest.approx(1, abs=0.1)


def test_ppca_does_not_see_missing_pixels() -> None:
    batch, _ = population(20, seed=2)
    model = resolve("training.models", "ppca").build(GRID, components=3)
    taught(model, population()[0], epochs=2)
    x = torch.where(batch.weight > 0, batch.x, 99.0)
    assert torch.equal(
        model(x, batch.weight, batch.z).flux, model(batch.x, batch.weight, batch.z).flux
    )


def test_ppca_bears_a_pixel_that_nobody_saw() -> None:
    batch, _ = population(200)
    batch.weight[:, 50:60] = 0
    model = resolve("training.models", "ppca").build(GRID, components=3)
    taught(model, batch, epochs=3)
    output = model(batch.x, batch.weight, batch.z)
    assert output.flux.isfinite().all()
    assert (output.sigma[:, 50:60] > 0.9).all()


def test_ppca_learns_the_variance_that_components_leave() -> None:
    random = np.random.default_rng(3)
    truth = 1 + 0.3 * random.normal(size=(ROWS, 1)) * np.ones(PIXELS)
    spread = np.where(np.arange(PIXELS) < 100, 0.0, 0.2)
    x = truth + random.normal(size=truth.shape) * np.hypot(0.1, spread)
    batch = made(x, np.full(x.shape, 100.0))
    model = resolve("training.models", "ppca").build(GRID, components=1, scatter=True)
    taught(model, batch, epochs=10)
    assert float(model.scatter[:100].mean()) < 1e-3
    assert float(model.scatter[100:].mean()) == pytest.approx(0.04, rel=0.05)


def test_ppca_needs_more_spectra_than_components() -> None:
    batch, _ = population(10)
    with pytest.raises(ValueError, match="10 spectra with data for 40 components"):
        resolve("training.models", "ppca").build(GRID).start(lambda: [batch], seed=0)


@pytest.mark.parametrize("name", ["ppca", "mppca"])
def test_what_a_missing_pixel_holds_teaches_nothing(name: str) -> None:
    batch, _ = population(100)
    options = {"components": 3, "scatter": True} | ({"kinds": 2} if name == "mppca" else {})
    model = resolve("training.models", name).build(GRID, **options)
    model.start(lambda: [batch], seed=1)
    expected = model.accumulate(batch)
    spoilt = replace(batch, x=torch.where(batch.weight > 0, batch.x, torch.nan))
    for label, value in model.accumulate(spoilt).items():
        assert torch.equal(value, expected[label]), label
