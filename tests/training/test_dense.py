"""FS and CS of Camilleri+2025 are what their paper says, and begin as the median spectrum."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.names import resolve
from tests.training.small import (
    GRID,
    PIXELS,
    assert_all_pulled_on,
    cut,
    descend,
    population,
    taught,
)
from training.batch import Batch
from training.bridge import bridged
from training.continuum import Continuum
from training.frames import named
from training.model import Denoiser
from training.recipe import ModelCard

pytestmark = pytest.mark.usefixtures("one_thread")

CARDS = Path(__file__).resolve().parents[2] / "deploy/cards/models"
WIDTHS = (PIXELS, 40, 10, 40, PIXELS)


def built(**options: Any) -> Denoiser:
    found: Denoiser = resolve("training.models", "dense").build(
        GRID, **{"widths": WIDTHS, **options}
    )
    return found


def card(name: str) -> Denoiser:
    return ModelCard.load(CARDS / f"{name}.toml").build(named("fs").grid)


def test_fs_has_the_parameters_of_the_paper() -> None:
    for model in (card("fs"), resolve("training.models", "dense").build(named("fs").grid)):
        assert model.parameters_count() == 37_825_860
        assert model.linears[model.bottleneck - 1].out_features == 110


def test_cs_has_the_layers_of_the_paper() -> None:
    model = card("cs")
    widths = [3800, 2800, 1200, 800, 450, 400, 450, 800, 1100, 1600, 2800, 3800]
    assert [(x.in_features, x.out_features) for x in model.linears] == list(pairwise(widths))
    assert sum(p.numel() for p in model.linears.parameters()) == 33_816_200
    # One slope for each hidden unit, 0.2 to begin with.
    slopes = torch.cat([activation.weight for activation in model.activations])
    assert slopes.shape == (sum(widths[1:-1]),)
    assert (slopes == 0.2).all()
    assert model.parameters_count() == 33_816_200 + 12_400


@pytest.mark.parametrize("continuum", ["none", "subtract", "divide"])
@pytest.mark.parametrize("ivar_input", [False, True])
def test_output_is_that_of_plain_products(continuum: str, ivar_input: bool) -> None:
    batch, _ = population(7)
    model = built(activation="prelu", continuum=continuum, ivar_input=ivar_input, centre=False)
    model.start(lambda: [batch], seed=1)
    model.eval()
    x = bridged(batch.x, batch.weight)
    level = Continuum(GRID)(batch.x, batch.weight)
    flux = {"none": x, "subtract": x - level, "divide": x / level}[continuum].double().numpy()
    depth = np.log1p(batch.weight.double().numpy()) / 4
    hidden = np.concatenate([flux, depth], axis=1) if ivar_input else flux
    for number, linear in enumerate(model.linears):
        weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
        hidden = hidden @ weight.T + bias
        if number < len(model.linears) - 1:
            hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        if number == 1:
            latent = hidden
    found = model(batch.x, batch.weight, batch.z)
    np.testing.assert_allclose(found.flux.detach(), hidden, atol=1e-4)
    np.testing.assert_allclose(found.latent.detach(), latent, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "prelu"])
@pytest.mark.parametrize("init", ["he", "glorot"])
@pytest.mark.parametrize("continuum", ["none", "subtract", "divide"])
def test_dense_begins_as_the_median_spectrum(activation: str, init: str, continuum: str) -> None:
    batch, _ = population()
    model = built(activation=activation, init=init, continuum=continuum)
    model.start(lambda: cut(batch, 100), seed=3)
    median = batch.x.median(dim=0).values
    output = model(median[None], torch.ones(1, PIXELS), torch.zeros(1))
    torch.testing.assert_close(output.flux[0], median, atol=1e-5, rtol=0)
    assert output.latent.shape == (1, 10)
    middle = model.seen(batch.x, batch.weight)[:, 0].median(dim=0).values
    first = model.linears[0](middle)
    torch.testing.assert_close(first, torch.zeros_like(first), atol=1e-5, rtol=0)


@pytest.mark.parametrize("continuum", ["none", "subtract"])
def test_less_the_median_it_is_the_same_network_with_another_bias(continuum: str) -> None:
    batch, _ = population()
    plain, less = (built(continuum=continuum, less_median=said) for said in (False, True))
    for model in (plain, less):
        model.start(lambda: cut(batch, 100), seed=3)
        torch.nn.init.normal_(model.linears[-1].weight, generator=torch.Generator().manual_seed(1))
    # The plain one has the median in its first bias.
    assert plain.parameters_count() == less.parameters_count()
    assert not less.linears[0].bias.any()
    assert plain.linears[0].bias.any()
    given = (batch.x, batch.weight, batch.z)
    torch.testing.assert_close(less(*given).flux, plain(*given).flux, atol=1e-4, rtol=1e-4)
    again = built(continuum=continuum, less_median=True)
    again.load_state_dict(less.state_dict())
    assert torch.equal(again(*given).flux, less(*given).flux)


def test_dense_begins_as_the_median_of_its_target() -> None:
    batch, _ = population()
    target = 2 * batch.x.flip(1)
    model = built()
    model.start(lambda: cut(replace(batch, target=target, target_weight=batch.weight), 100), seed=3)
    output = model(batch.x[:1], batch.weight[:1], batch.z[:1])
    expected = bridged(target, batch.weight).median(dim=0).values
    torch.testing.assert_close(output.flux[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("init", "variance"), [("he", 2 / 200), ("glorot", 2 / 240)])
def test_weights_have_the_variance_of_their_init(init: str, variance: float) -> None:
    model = built(init=init, centre=False)
    model.start(list, seed=0)
    first = model.linears[0]
    assert float(first.weight.detach().var()) == pytest.approx(variance, rel=0.03)
    assert float(first.weight.detach().abs().max()) <= (3 * variance) ** 0.5
    assert not any(linear.bias.any() for linear in model.linears)


def test_dense_starts_the_same_for_the_same_seed() -> None:
    batch, _ = population(50)
    first, same, other = (built() for _ in range(3))
    for model, seed in ((first, 1), (same, 1), (other, 2)):
        model.start(lambda: [batch], seed=seed)
    assert torch.equal(first.linears[0].weight, same.linears[0].weight)
    assert not torch.equal(first.linears[0].weight, other.linears[0].weight)


def test_missing_pixels_do_not_pull_on_the_loss() -> None:
    batch, _ = population(20)
    spoilt = replace(batch, x=torch.where(batch.weight > 0, batch.x, 1e3))
    # No weights, so that only the target differs.
    masked, plain = zeroed(built()), zeroed(built(loss_mask=False))
    assert float(masked.loss(spoilt)) == float(masked.loss(batch))
    assert float(plain.loss(spoilt)) > 10 * float(plain.loss(batch))


def zeroed(model: Denoiser) -> Denoiser:
    for parameter in model.requires_grad_(False).parameters():
        torch.nn.init.zeros_(parameter)
    return model


def test_the_target_of_cs_keeps_its_continuum() -> None:
    batch, _ = population(20)
    found = float(zeroed(built(continuum="subtract")).loss(batch))
    assert found == pytest.approx(float(batch.x.abs()[batch.weight > 0].mean()))


@pytest.mark.parametrize(("continuum", "factor", "offset"), [("subtract", 1, 3), ("divide", 3, 0)])
def test_cs_does_not_see_the_continuum(continuum: str, factor: float, offset: float) -> None:
    batch, _ = population(20)
    other = replace(batch, x=factor * batch.x + offset)
    model = built(continuum=continuum)
    model.start(lambda: [batch], seed=1)
    seen = [model.seen(b.x, b.weight) for b in (batch, other)]
    torch.testing.assert_close(*seen, atol=1e-4, rtol=0)


def test_cs_infers_the_continuum_from_the_lines() -> None:
    batch = lined(600)
    model = built(continuum="subtract", activation="prelu")
    objectives = taught(model, batch, epochs=20)
    assert objectives[-1] < 0.35 * objectives[0]
    fresh = lined(100, seed=5)
    level = model(fresh.x, fresh.weight, fresh.z).flux.mean(1).detach()
    assert np.corrcoef(level, fresh.x.mean(1))[0, 1] > 0.95


def lined(n: int, seed: int = 0) -> Batch:
    """Flat spectra of many levels; the brighter, the deeper their line."""
    random = np.random.default_rng(seed)
    level = random.uniform(0.5, 2, size=(n, 1))
    line = np.exp(-0.5 * ((np.arange(PIXELS) - 90) / 2) ** 2)
    x = level * (1 - 0.4 * (level - 0.5) * line) + 0.01 * random.normal(size=(n, PIXELS))
    batch, _ = population(n)
    return replace(batch, x=torch.from_numpy(x).float(), weight=torch.full((n, PIXELS), 1e4))


@pytest.mark.parametrize("continuum", ["none", "subtract"])
def test_every_learnt_number_is_pulled_on(continuum: str) -> None:
    batch, _ = population(50)
    model = built(continuum=continuum, activation="prelu", ivar_input=True)
    descend(model, batch, lr=1e-3)
    assert_all_pulled_on(model)


def test_dense_refuses_widths_that_do_not_fit_the_frame() -> None:
    with pytest.raises(ValueError, match=r"expected 200-\.\.\.-200"):
        built(widths=(PIXELS, 10, 300))
    with pytest.raises(ValueError, match="Input should be 'none', 'subtract' or 'divide'"):
        built(continuum="remove")


def test_a_sigma_is_learnt_where_the_model_is_wrong() -> None:
    batch, _ = population(200)
    # Half of the spectrum moves in a way that a bottleneck of one unit cannot follow.
    lump = 0.5 * torch.randn(200, 100, generator=torch.Generator().manual_seed(1))
    x = torch.cat([torch.ones(200, 100), 1 + lump], dim=1)
    batch = replace(batch, x=x, weight=torch.full_like(x, 1e4))
    options = {"widths": [PIXELS, 20, 1, 20, PIXELS], "loss": "gaussian", "sigma": True}
    model = resolve("training.models", "dense").build(GRID, **options)
    model.start(lambda: [batch], seed=1)
    descent = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        descent.zero_grad()
        model.loss(batch).backward()
        descent.step()
    sigma = model(batch.x, batch.weight, batch.z).sigma.detach().mean(0)
    assert float(sigma[:100].median()) < 0.05
    assert float(sigma[100:].median()) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("options", [{"sigma": True}, {"loss": "gaussian"}])
def test_a_sigma_and_what_teaches_it_come_together(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="set both"):
        resolve("training.models", "dense").build(GRID, **options)
