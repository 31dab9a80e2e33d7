"""NW and NW-S of Camilleri+2025 are what their paper says, and see their windows alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from storage.names import resolve
from tests.training.small import (
    GRID,
    OPTIONS,
    PIXELS,
    assert_all_pulled_on,
    cut,
    descend,
    population,
)
from training.bridge import bridged
from training.frames import named
from training.model import Denoiser
from training.recipe import ModelCard

pytestmark = pytest.mark.usefixtures("one_thread")

CARDS = Path(__file__).resolve().parents[2] / "deploy/cards/models"
BLUE, RED = slice(0, 40), slice(120, 160)
"Pixels of `GRID` that the small windows hold."


def built(**options: Any) -> Denoiser:
    found: Denoiser = resolve("training.models", "windows").build(
        GRID, **{**OPTIONS["windows"], **options}
    )
    return found


def card(name: str) -> Denoiser:
    return ModelCard.load(CARDS / f"{name}.toml").build(named("fs").grid)


def shapes(layers: nn.ModuleList) -> list[tuple[int, int]]:
    return [(linear.in_features, linear.out_features) for linear in layers]


@pytest.mark.parametrize(("name", "joined"), [("nw", 2800), ("nws", 3600)])
def test_nw_has_the_layers_of_the_paper(name: str, joined: int) -> None:
    model = card(name)
    for branch in model.branches:
        assert shapes(branch) == [(400, 400), (400, 800), (800, 1100)]
    assert shapes(model.trunk) == [
        (2200, 1800),
        (1800, 2100),
        (2100, 2400),
        (2400, 2800),
        (joined, 3000),
        (3000, 3400),
        (3400, 3800),
    ]
    # What the skip brings: 400 + 400 units into 3000.
    assert model.parameters_count() == 53_763_900 + (joined - 2800) * 3000


def test_nw_sees_800_pixels_of_the_frame() -> None:
    wavelength = named("fs").grid.wavelength
    blue, red = (wavelength[part] for part in card("nw").parts)
    np.testing.assert_array_equal(blue, np.arange(3800, 4200))
    np.testing.assert_array_equal(red, np.arange(5000, 5400))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("ivar_input", [False, True])
def test_output_is_that_of_plain_products(skip: bool, ivar_input: bool) -> None:
    batch, _ = population(7)
    model = built(skip=skip, ivar_input=ivar_input, trunk=[24, 32, 28], centre=False)
    model.start(lambda: [batch], seed=1)
    model.eval()

    def layer(x: np.ndarray, linear: nn.Linear) -> np.ndarray:
        weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
        return x @ weight.T + bias

    firsts, ends = [], []
    for part, branch in zip((BLUE, RED), model.branches, strict=True):
        hidden = bridged(batch.x[:, part], batch.weight[:, part]).double().numpy()
        if ivar_input:
            depth = np.log1p(batch.weight[:, part].double().numpy()) / 4
            hidden = np.concatenate([hidden, depth], axis=1)
        hidden = np.maximum(layer(hidden, branch[0]), 0)
        firsts.append(hidden)
        ends.append(np.maximum(layer(hidden, branch[1]), 0))
    hidden = np.maximum(layer(np.concatenate(ends, axis=1), model.trunk[0]), 0)
    if skip:
        hidden = np.concatenate([hidden, *firsts], axis=1)
    hidden = np.maximum(layer(hidden, model.trunk[1]), 0)
    hidden = np.maximum(layer(hidden, model.trunk[2]), 0)
    found = model(batch.x, batch.weight, batch.z)
    np.testing.assert_allclose(found.flux.detach(), layer(hidden, model.trunk[3]), atol=1e-4)
    assert found.latent is None


@pytest.mark.parametrize("skip", [False, True])
def test_nothing_outside_the_windows_is_seen(skip: bool) -> None:
    batch, _ = population(7)
    model = built(skip=skip, centre=False)
    model.start(lambda: [batch], seed=1)
    # Missing to the edge of a window, so that a bridge from outside would tell.
    batch.weight[:, 120:125], batch.weight[:, 30:40] = 0, 0
    outside = torch.ones(PIXELS, dtype=torch.bool)
    outside[BLUE], outside[RED] = False, False
    x, weight = (torch.where(outside, 9.0, v) for v in (batch.x, batch.weight))
    expected = model(batch.x, batch.weight, batch.z).flux
    assert torch.equal(model(x, weight, batch.z).flux, expected)
    x[:, 5] = 9.0
    assert not torch.equal(model(x, torch.ones_like(x), batch.z).flux, expected)


def test_a_window_without_data_is_borne() -> None:
    batch, _ = population(7)
    model = built()
    model.start(lambda: [batch], seed=1)
    batch.weight[2, BLUE] = 0
    assert model(batch.x, batch.weight, batch.z).flux.isfinite().all()


def test_windows_begin_as_the_median_spectrum() -> None:
    batch, _ = population()
    model = built(skip=True)
    model.start(lambda: cut(batch, 100), seed=3)
    output = model(batch.x[:1], batch.weight[:1], batch.z[:1])
    median = batch.x.median(dim=0).values
    torch.testing.assert_close(output.flux[0], median, atol=1e-5, rtol=0)
    for part, branch in zip((BLUE, RED), model.branches, strict=True):
        middle = bridged(batch.x[:, part], batch.weight[:, part]).median(dim=0).values
        first = branch[0](middle)
        torch.testing.assert_close(first, torch.zeros_like(first), atol=1e-5, rtol=0)


def test_every_learnt_number_is_pulled_on_the_skip_too() -> None:
    batch, _ = population(50)
    model = built(skip=True)
    descend(model, batch, lr=1e-3)
    assert_all_pulled_on(model)
    joined = model.trunk[0].weight.grad
    assert joined.shape == (24, 24 + 40)
    assert joined[:, -40:].abs().sum() > 0


def test_layers_join_from_the_first_to_the_last() -> None:
    model = built(skip=True, trunk=[24, 32, 28])
    inputs = [linear.in_features for linear in model.trunk]
    outputs = [linear.out_features for linear in model.trunk]
    assert outputs == [24, 32, 28, PIXELS]
    plain = [2 * 12, *(a for a, _ in pairwise(outputs))]
    assert inputs == [plain[0], plain[1] + 2 * 20, *plain[2:]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"windows": [[3800, 4200]]},
            r"windows: 3800-4200 A on a frame of 3997\.5-4997\.5 A in 200 pixels; expected",
        ),
        ({"windows": [[4900, 5400]]}, r"windows: 4900-5400 A on a frame"),
        ({"windows": [[4001, 4003]]}, r"windows: 4001-4003 A .* that hold a pixel"),
        ({"windows": [[4400, 4200]]}, r"windows: 4400-4200 A; the first is the lower end"),
        ({"windows": []}, r"windows\n.*at least 1 item"),
        ({"trunk": [20], "skip": True}, r"skip: needs two layers or more in the trunk, found 1"),
    ],
)
def test_windows_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(**options)
