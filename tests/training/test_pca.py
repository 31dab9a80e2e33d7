"""Principal components, plain and weighted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPCA

from storage.names import resolve
from tests.training.small import GRID, PIXELS, ROWS, made, population, taught

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pca_is_that_of_scikit_learn() -> None:
    batch, _ = population()
    model = resolve("training.models", "pca").build(GRID, components=4)
    left = taught(model, batch, epochs=1)[0]
    theirs = SklearnPCA(4, svd_solver="full").fit(batch.x.double().numpy())
    latent = theirs.transform(batch.x.double().numpy())
    output = model(batch.x, batch.weight, batch.z)
    np.testing.assert_allclose(output.flux, theirs.inverse_transform(latent), atol=1e-4)
    np.testing.assert_allclose(output.latent.abs(), np.abs(latent), atol=1e-4)
    total = batch.x.double().numpy().var(axis=0).sum()
    explained = theirs.explained_variance_.sum() * (ROWS - 1) / ROWS
    assert left == pytest.approx(total - explained, rel=1e-4)


def test_equal_weights_give_the_plain_components() -> None:
    batch, _ = population()
    batch.weight[:] = 50.0
    plain, weighted = (
        resolve("training.models", "pca").build(GRID, components=4, weighted=how)
        for how in (False, True)
    )
    left = [taught(model, batch, epochs=1)[0] for model in (plain, weighted)]
    assert left[1] == pytest.approx(left[0], rel=1e-5)
    torch.testing.assert_close(weighted.mean, plain.mean)
    torch.testing.assert_close(weighted.axes, plain.axes, atol=1e-4, rtol=0)
    outputs = [model(batch.x, batch.weight, batch.z) for model in (plain, weighted)]
    torch.testing.assert_close(outputs[1].flux, outputs[0].flux, atol=1e-4, rtol=0)


def test_weighted_covariance_is_the_mean_over_those_who_know_both_pixels() -> None:
    batch, _ = population(300)
    model = resolve("training.models", "pca").build(GRID, components=4, weighted=True)
    left = taught(model, batch, epochs=1)[0]
    x, heavy = batch.x.double().numpy(), batch.weight.double().sqrt().numpy()
    mean = (heavy * x).sum(0) / heavy.sum(0)
    np.testing.assert_allclose(model.mean, mean, atol=1e-5)
    expected = ((heavy * (x - mean)).T @ (heavy * (x - mean))) / (heavy.T @ heavy)
    values = np.linalg.eigvalsh(expected)
    assert left == pytest.approx(values[:-4].sum(), rel=1e-3)
    axes = model.axes.double().numpy()
    np.testing.assert_allclose(np.diag(axes @ expected @ axes.T), values[:-5:-1], rtol=1e-4)


def test_weighted_projection_is_least_squares() -> None:
    batch, _ = population(20, seed=4)
    model = resolve("training.models", "pca").build(GRID, components=4, weighted=True)
    taught(model, population()[0], epochs=1)
    latent = model(batch.x, batch.weight, batch.z).latent
    axes, mean = model.axes.double().numpy(), model.mean.double().numpy()
    for row in range(0, 20, 7):
        root = batch.weight[row].double().sqrt().numpy()
        distance = batch.x[row].double().numpy() - mean
        expected = np.linalg.lstsq(axes.T * root[:, None], distance * root, rcond=None)[0]
        np.testing.assert_allclose(latent[row], expected, atol=1e-4)


def test_weights_find_the_components_behind_uneven_noise() -> None:
    random = np.random.default_rng(5)
    pixel = np.arange(PIXELS)
    shape = np.sin(pixel / 30)
    truth = 1 + 0.3 * random.normal(size=(ROWS, 1)) * shape
    # Every spectrum is lost to noise somewhere; plain components follow the noise.
    sigma = np.where(random.random((ROWS, PIXELS)) < 0.3, 3.0, 0.1)
    batch = made(truth + sigma * random.normal(size=truth.shape), sigma**-2)
    overlaps = []
    for weighted in (False, True):
        model = resolve("training.models", "pca").build(GRID, components=1, weighted=weighted)
        taught(model, batch, epochs=1)
        overlaps.append(abs(float(model.axes[0].double() @ torch.from_numpy(shape))))
    plain, weighted = (overlap / np.linalg.norm(shape) for overlap in overlaps)
    assert weighted > 0.998
    assert plain < 0.95


def test_what_a_missing_pixel_holds_teaches_nothing() -> None:
    batch, _ = population(100)
    model = resolve("training.models", "pca").build(GRID, components=2, weighted=True)
    model.start(lambda: [batch], seed=1)
    expected = model.accumulate(batch)
    spoilt = replace(batch, x=torch.where(batch.weight > 0, batch.x, torch.nan))
    for label, value in model.accumulate(spoilt).items():
        assert torch.equal(value, expected[label]), label


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 2])
def test_spectra_that_are_all_alike_are_refused(rows: int, weighted: bool) -> None:
    x = (1 + np.sin(np.arange(PIXELS) / 30)) * np.ones((rows, 1))
    batch = made(x, np.full_like(x, 50.0))
    model = resolve("training.models", "pca").build(GRID, components=2, weighted=weighted)
    with pytest.raises(ValueError, match=r"all alike: .* no components; give more"):
        taught(model, batch, epochs=1)
