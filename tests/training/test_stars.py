"""The networks of Pal & Dobos for stars: layers, starting weights, and rows without data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from storage.grid import Grid
from storage.names import resolve
from tests.training.small import GRID, PIXELS, cut, population, taught
from training.perceptron import linears

pytestmark = pytest.mark.usefixtures("one_thread")

STAR = Grid(kind="linear", start=7100, step=0.427, size=4096)
SMALL: dict[str, dict[str, Any]] = {
    "dae": {"hidden": [64, 24, 64], "output": "linear"},
    "unet": {"filters": 8, "levels": 2, "output": "linear"},
}


def built(name: str, grid: Grid = GRID, **options: Any) -> Any:
    return resolve("training.models", name).build(grid, **options)


def statistics(model: nn.Module) -> list[torch.Tensor]:
    return [v.clone() for k, v in model.state_dict().items() if k.partition("running")[1]]


def test_dae_has_the_layers_of_the_paper() -> None:
    model = built("dae", STAR)
    units = [layer.out_features for layer in linears(model)]
    assert units == [3136, 2176, 1216, 256, 1216, 2176, 3136, 4096]
    assert model.parameters_count() == 45_270_016
    assert model.common.loss == "rmse"


def test_dae_scales_with_the_pixels_of_another_frame() -> None:
    model = built("dae", Grid(kind="linear", start=7100, step=0.9, size=2048))
    units = [layer.out_features for layer in linears(model)]
    assert units == [1568, 1088, 608, 128, 608, 1088, 1568, 2048]


def test_dae_starts_with_weights_and_biases_of_one_range() -> None:
    model = built("dae")
    model.start(lambda: iter(()), seed=1)
    for layer in linears(model):
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        for value in (layer.weight, layer.bias):
            assert 0.7 * limit < value.abs().max() <= limit
        # A uniform distribution's standard deviation is its half width over sqrt 3.
        assert float(layer.weight.detach().std()) == pytest.approx(limit / 3**0.5, rel=0.05)
    again = built("dae")
    again.start(lambda: iter(()), seed=1)
    assert torch.equal(again.encoder[0].bias, model.encoder[0].bias)


def test_dae_passes_its_narrowest_layer_as_latent() -> None:
    batch, _ = population(3)
    model = built("dae", hidden=[50, 9, 30, 60])
    output = model(batch.x, batch.weight, batch.z)
    assert output.latent.shape == (3, 9)
    assert (output.latent >= 0).all()
    torch.testing.assert_close(model.decode(output.latent), output.flux)


@pytest.mark.parametrize("name", ["dae", "unet"])
def test_a_sigmoid_keeps_flux_between_0_and_1(name: str) -> None:
    batch, _ = population(5)
    bright = batch.x * 100
    options = SMALL[name] | {"output": "sigmoid"}
    flux = built(name, **options)(bright, batch.weight, batch.z).flux
    assert (flux >= 0).all()
    assert (flux <= 1).all()
    assert built(name).options.output == "sigmoid"


def test_unet_has_four_levels_of_64_to_512_filters() -> None:
    model = built("unet", STAR)
    assert [block[0].out_channels for block in model.down] == [64, 128, 256, 512]
    assert model.bottleneck[0].out_channels == 1024
    assert model.dropout.p == 0.3
    # Convolutions of 3, a pair a block; up-convolutions of 2; two numbers a normalised filter.
    assert sum(p.numel() for p in model.parameters()) == 10_818_241


def test_unet_sees_pixels_that_do_not_halve_as_their_mirror() -> None:
    odd = Grid(kind="linear", start=4000, step=5, size=PIXELS - 3)
    short, whole = (built("unet", grid, **SMALL["unet"]) for grid in (odd, GRID))
    whole.load_state_dict(short.state_dict())
    x, weight = torch.rand(2, PIXELS - 3), torch.ones(2, PIXELS - 3)
    mirrored = torch.cat([x, x[:, [-2, -3, -4]]], dim=1)
    actual = short.eval()(x, weight, torch.zeros(2)).flux
    expected = whole.eval()(mirrored, torch.ones(2, PIXELS), torch.zeros(2)).flux
    assert actual.shape == x.shape
    torch.testing.assert_close(actual, expected[:, :-3])


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_unet_starts_as_a_flat_spectrum(output: str) -> None:
    batch, truth = population()
    wanted = replace(batch, target=torch.from_numpy(0.3 * truth).float())
    model = built("unet", **(SMALL["unet"] | {"output": output}))
    model.start(lambda: cut(wanted, 100), seed=1)
    flux = model.eval()(batch.x, batch.weight, batch.z).flux
    torch.testing.assert_close(flux, torch.full_like(flux, 0.3), atol=0.01, rtol=0)


def test_unet_refuses_fewer_pixels_than_it_halves() -> None:
    few = Grid(kind="linear", start=4000, step=5, size=16)
    with pytest.raises(ValueError, match=r"unet: 4 levels of 16 pixels .* use fewer levels"):
        built("unet", few)
    assert built("unet", few, levels=3, filters=2)(
        torch.rand(1, 16), torch.ones(1, 16), torch.zeros(1)
    ).flux.shape == (1, 16)


def test_unet_is_the_same_every_time_but_in_training() -> None:
    batch, _ = population(4)
    model = built("unet", **SMALL["unet"])
    first, again = (model(batch.x, batch.weight, batch.z).flux for _ in range(2))
    assert not torch.equal(first, again)
    model.eval()
    first, again = (model(batch.x, batch.weight, batch.z).flux for _ in range(2))
    assert torch.equal(first, again)


def test_rows_without_data_do_not_enter_the_statistics_of_a_batch() -> None:
    batch, _ = population(6)
    # The odd rows have no data.
    gone = torch.arange(6) % 2 == 1
    holes = replace(
        batch,
        x=torch.where(gone[:, None], 0, batch.x),
        weight=torch.where(gone[:, None], 0, batch.weight),
        ok=batch.ok & ~gone,
    )
    kept = {name: value[~gone] for name, value in vars(batch).items() if value is not None}
    losses, seen, outputs = [], [], []
    for part in (replace(batch, **kept), holes):
        model = built("unet", **SMALL["unet"], dropout=0.0)
        model.start(lambda: [batch], seed=1)
        nn.init.ones_(model.last.weight)
        outputs.append(model(part.x, part.weight, part.z).flux[part.ok])
        losses.append(float(model.loss(part).detach()))
        seen.append(statistics(model))
    # Mean and variance of the 10 layers that are normalised.
    assert len(seen[0]) == 20
    for expected, actual in zip(*seen, strict=True):
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(outputs[1], outputs[0])
    assert losses[0] == pytest.approx(losses[1])


def test_a_batch_without_any_data_teaches_nothing() -> None:
    batch, _ = population(3)
    nothing = torch.zeros_like(batch.x)
    empty = replace(batch, x=nothing, weight=nothing, ok=torch.zeros_like(batch.ok))
    model = built("unet", **SMALL["unet"])
    before = statistics(model)
    loss = model.loss(empty)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((p.grad == 0).all() for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))


@pytest.mark.parametrize(("name", "epochs"), [("dae", 12), ("unet", 6)])
def test_the_truth_is_learnt_from_noisy_spectra(name: str, epochs: int) -> None:
    batch, truth = population()
    noisy = replace(batch, target=torch.from_numpy(truth).float())
    model = built(name, **SMALL[name])
    objectives = taught(model, noisy, epochs=epochs)
    assert objectives[-1] < 0.7 * objectives[0]
    unseen, expected = population(300, seed=5)
    off = model.eval()(unseen.x, unseen.weight, unseen.z).flux.detach().numpy() - expected
    assert np.abs(off).mean() < np.abs(truth.mean(axis=0) - expected).mean()
    assert np.abs(off).mean() < np.abs(unseen.x.numpy() - expected).mean()


@pytest.mark.parametrize("name", ["dae", "unet"])
def test_fewer_bits_teach_too(name: str) -> None:
    batch, _ = population(4)
    model = built(name, **SMALL[name])
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch)
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["dae", "unet"])
def test_every_device_starts_alike(name: str) -> None:
    """Weights come from a generator of the CPU: the state of the global one does not matter."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = built(name, **SMALL[name])
        model.start(lambda: cut(population(10)[0], 10), seed=7)
        found.append(model.state_dict())
    for key, value in found[0].items():
        assert torch.equal(found[1][key], value), key
