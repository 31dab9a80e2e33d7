"""The autoencoders of Scourfield+2023 have the paper's layers, and the loss with its right sign."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from storage.grid import Grid
from storage.names import resolve
from tests.training.small import GRID, PIXELS, cut, population, taught
from training.draws import posterior

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"latent": 3, "units": [64, 32], "dropout": 0.1}
PAPER = [
    ("ae", 2, 0.8, [900, 800, 400, 300]),
    ("ae", 4, 0.5, [900, 900, 500, 400]),
    ("ae", 6, 0.7, [1000, 900, 800, 800]),
    ("ae", 10, 0.9, [900, 800, 800, 600]),
    ("vae", 2, 0.8, [1000, 900, 600, 200]),
    ("vae", 4, 0.7, [1000, 1000, 700, 500]),
    ("vae", 6, 0.5, [800, 800, 700, 600]),
    ("vae", 10, 0.9, [900, 900, 600, 400]),
]


def built(name: str, **options: Any) -> Any:
    return resolve("training.models", name).build(GRID, **options)


def started(name: str, seed: int = 1, **options: Any) -> Any:
    """Started from 200 spectra, its last weights no longer 0."""
    model = built(name, **(SMALL | options))
    model.start(lambda: cut(population(200)[0], 100), seed)
    torch.manual_seed(0)
    nn.init.normal_(model.decoder[-1].weight, std=0.1)
    return model


@pytest.mark.parametrize(("name", "latent", "rate", "units"), PAPER)
def test_layers_and_dropout_are_those_that_the_paper_prints(
    name: str, latent: int, rate: float, units: list[int]
) -> None:
    model = built(name, latent=latent, dropout="printed")
    said = latent * (2 if name == "vae" else 1)
    for part, widths in (
        (model.encoder, [PIXELS, *units, said]),
        (model.decoder, [latent, *units[::-1], PIXELS]),
    ):
        hidden = [nn.Linear, nn.LeakyReLU, nn.Dropout] * len(units)
        assert [type(layer) for layer in part] == [*hidden, nn.Linear]
        shapes = [layer.weight.shape for layer in part if isinstance(layer, nn.Linear)]
        assert shapes == [(b, a) for a, b in pairwise(widths)]
        assert {layer.p for layer in part if isinstance(layer, nn.Dropout)} == {rate}
        assert {layer.negative_slope for layer in part if isinstance(layer, nn.LeakyReLU)} == {0.3}


def test_dropout_is_a_tenth_unless_the_card_says_otherwise() -> None:
    for said, expected in (({}, {0.1}), ({"dropout": 0.25}, {0.25}), ({"dropout": 0}, set())):
        model = built("vae", **said)
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == expected


@pytest.mark.parametrize("options", [{}, {"dropout": "printed", "units": [50]}])
def test_latents_that_the_paper_does_not_print_need_layers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"latent = 3: the paper prints layers for 2, 4, 6, 10;"):
        built("ae", latent=3, **options)
    assert built("ae", latent=3, units=[50]).decoder[-1].weight.shape == (PIXELS, 50)


@pytest.mark.parametrize("dropout", [1.0, -0.1, "published"])
def test_a_dropout_that_is_none_is_refused(dropout: Any) -> None:
    with pytest.raises(ValueError, match=r"dropout\n.* expected 'printed', or a share from 0"):
        built("ae", dropout=dropout)


def test_loss_is_half_the_softened_chi_squared_of_a_spectrum() -> None:
    batch, truth = population(7)
    target, weight = torch.from_numpy(truth).float(), batch.weight.flip(0)
    model = started("ae", soften=0.02).eval()
    flux = model(batch.x, batch.weight, batch.z).flux.detach().numpy()
    error2 = 1 / np.where(weight > 0, weight, np.inf)
    softened = np.where(weight > 0, 1 / (error2 + 0.02), 0)
    expected = (0.5 * softened * (flux - truth) ** 2).sum(axis=1).mean()
    loss = model.loss(replace(batch, target=target, target_weight=weight))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_loss_is_softened_as_in_the_paper() -> None:
    batch, _ = population(7)
    sharp = replace(batch, weight=batch.weight * 1e9)
    assert float(built("ae").wanted(sharp)[1].max()) == pytest.approx(1 / 2e-6, rel=1e-3)


def test_divergence_is_that_of_two_gaussians() -> None:
    random = torch.Generator().manual_seed(1)
    mean, log_variance = torch.randn(2, 50, 6, generator=random)
    divergence = resolve("training.models", "vae").divergence
    normal = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(normal, Normal(torch.zeros(50, 6), torch.ones(50, 6))).sum(1)
    actual = divergence(mean, log_variance)
    torch.testing.assert_close(actual, expected)
    assert (actual > 0).all()
    assert (divergence(torch.zeros(1, 6), torch.zeros(1, 6)) == 0).all()


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_a_divergence_is_added_to_the_loss(beta: float) -> None:
    batch, _ = population(20)
    model = started("vae", beta=beta).eval()
    output = model(batch.x, batch.weight, batch.z)
    spread = output.latent_cov.diagonal(dim1=1, dim2=2).sqrt()
    apart = kl_divergence(Normal(output.latent, spread), Normal(0.0, 1.0)).sum(1).mean()
    target, weight = batch.wanted
    ivar = weight / (1 + 2e-6 * weight)
    chi2 = (0.5 * ivar * (output.flux - target).square()).sum(1).mean()
    torch.testing.assert_close(model.loss(batch), chi2 + beta * apart)


def test_a_spectrum_without_data_adds_no_divergence() -> None:
    batch, _ = population(2)
    batch.x[1], batch.weight[1], batch.ok[1] = 0, 0, False
    model = started("vae").eval()
    alone = model.loss(replace(batch, x=batch.x[:1], weight=batch.weight[:1], ok=batch.ok[:1]))
    assert float(model.loss(batch).detach()) == pytest.approx(float(alone.detach()) / 2, rel=1e-5)


def test_latents_are_drawn_in_training_alone() -> None:
    batch, _ = population(4)
    model = started("vae", dropout=0.0)

    def flux(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        found: torch.Tensor = model(batch.x, batch.weight, batch.z).flux
        return found

    assert torch.equal(flux(1), flux(1))
    assert not torch.allclose(flux(1), flux(2))
    latent = model(batch.x, batch.weight, batch.z).latent
    model.eval()
    assert torch.equal(flux(1), flux(2))
    torch.testing.assert_close(model.decode(latent), flux(1))


def test_training_draws_have_the_variance_that_is_said() -> None:
    batch, _ = population(1)
    model = started("vae", dropout=0.0)
    output = model(batch.x, batch.weight, batch.z)
    model.decoded = lambda latent: (latent, None)
    torch.manual_seed(5)
    many = [t.expand(20000, *t.shape[1:]) for t in (batch.x, batch.weight, batch.z)]
    drawn = model(*many).flux
    torch.testing.assert_close(drawn.mean(0), output.latent[0], atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), output.latent_cov[0], atol=0.05, rtol=0.05)


def test_posterior_draws_of_indices_have_the_covariance_of_the_latents() -> None:
    batch, _ = population(3)
    model = started("vae").eval()
    output = model(batch.x, batch.weight, batch.z)
    model.decoded = lambda latent: (latent, None)
    random = torch.Generator().manual_seed(2)
    drawn = torch.stack(posterior(model, output.latent, output.latent_cov, 4000, random))
    for row in range(3):
        actual = torch.cov(drawn[:, row].T)
        torch.testing.assert_close(actual, output.latent_cov[row], atol=0.1, rtol=0.1)


def test_a_broken_spectrum_has_a_finite_covariance() -> None:
    batch, _ = population(2)
    output = started("vae").eval()(batch.x * 1e6, batch.weight, batch.z)
    assert output.latent_cov.isfinite().all()
    assert (output.latent_cov.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize("name", ["ae", "vae"])
@pytest.mark.parametrize("ivar", [False, True])
def test_training_starts_from_the_median_of_what_is_wanted(name: str, ivar: bool) -> None:
    batch, truth = population()
    batch = replace(batch, target=torch.from_numpy(2 * truth).float())
    model = built(name, **SMALL, ivar_input=ivar)
    model.start(lambda: cut(batch, 100), seed=3)
    output = model.eval()(batch.x, batch.weight, batch.z)
    expected = batch.wanted[0].median(dim=0).values.expand_as(output.flux)
    torch.testing.assert_close(output.flux, expected, atol=1e-5, rtol=0)


def test_the_same_seed_starts_the_same() -> None:
    first, same, other = (started("ae", seed).encoder[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_the_truth_is_learnt_from_spectra_with_noise_added(name: str) -> None:
    batch, truth = population()
    noisy = replace(batch, target=torch.from_numpy(truth).float())
    model = built(name, **SMALL)
    objectives = taught(model, noisy, epochs=30)
    assert objectives[-1] < 0.5 * objectives[0]
    unseen, expected = population(300, seed=5)
    off = model.eval()(unseen.x, unseen.weight, unseen.z).flux.detach().numpy() - expected
    mean = truth.mean(axis=0) - expected
    noise = unseen.x.numpy() - expected
    assert np.abs(off).mean() < 0.5 * np.abs(mean).mean()
    assert np.abs(off).mean() < np.abs(noise).mean()


def test_layers_do_not_depend_on_the_pixels() -> None:
    grid = Grid(kind="log", start=3.57, step=4e-4, size=825)
    model = resolve("training.models", "ae").build(grid)
    assert model.encoder[0].weight.shape == (900, 825)
