"""Every network learns by every loss from every kind of target, with and without its noise seen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from storage.names import resolve, shelf
from tests.training.small import GRID, OPTIONS, PIXELS, population, small
from training import losses
from training.augment import Augment
from training.batch import Batch
from training.distort import distorted
from training.model import Denoiser, Output

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = [name for name in shelf("training.models") if small(name).fit == "gradient"]
SAYS_SIGMA = [name for name in NETWORKS if name not in ("spender", "ensemble")]
CASES = [
    (name, loss)
    for name in NETWORKS
    for loss in get_args(losses.Name)
    # Spender says no sigma.
    if (name, loss) != ("spender", "gaussian")
]


def built(name: str, **more: Any) -> Denoiser:
    options = OPTIONS[name]
    if name == "ensemble":
        options = options | {"options": options["options"] | more}
    else:
        options = options | more
    found: Denoiser = resolve("training.models", name).build(GRID, **options)
    return found


def spectra() -> tuple[Batch, Tensor]:
    """Ten spectra with gaps, the last one without data; and their truth."""
    batch, truth = population(10)
    weight = batch.weight.clone()
    weight[:, 60:80], weight[-1] = 0, 0
    x = torch.where(weight > 0, batch.x, 0.5)
    return replace(batch, x=x, weight=weight, ok=weight.any(1)), torch.from_numpy(truth).float()


def same(batch: Batch, truth: Tensor) -> Batch:
    return batch


def noise_added(batch: Batch, truth: Tensor) -> Batch:
    return distorted(batch, Augment(sigma=0.04, masks=0.1), np.random.default_rng(0))


def noiseless(batch: Batch, truth: Tensor) -> Batch:
    known = (batch.weight > 0).float()
    known[:, 120:130] = 0
    return replace(batch, target=truth, target_weight=known)


def pulled(model: Denoiser, batch: Batch) -> list[Tensor]:
    """The loss, and the slope of every learnt number."""
    model.zero_grad()
    torch.manual_seed(1)
    loss = model.loss(batch)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def spoilt(batch: Batch) -> Batch:
    """Pixels without data are no numbers, in input and target."""
    hidden = replace(batch, x=torch.where(batch.weight > 0, batch.x, torch.nan))
    if batch.target is None:
        return hidden
    target, weight = batch.wanted
    return replace(hidden, target=torch.where(weight > 0, target, torch.nan))


@pytest.mark.parametrize("ivar_input", [False, True])
@pytest.mark.parametrize(("name", "loss"), CASES)
def test_every_loss_is_finite_and_blind_to_missing_pixels(
    name: str, loss: losses.Name, ivar_input: bool
) -> None:
    likelihood = loss == "gaussian"
    model = built(name, loss=loss, ivar_input=ivar_input, **({"sigma": True} if likelihood else {}))
    batch, truth = spectra()
    model.start(lambda: [batch], seed=1)
    with torch.no_grad():
        # A network that starts as one spectrum has no slope but in its last layer.
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    modes: list[Callable[[Batch, Tensor], Batch]] = [same, noise_added]
    # A likelihood takes the noise of the target out, and refuses one that has none.
    for mode in [*modes, *([] if likelihood else [noiseless])]:
        given = mode(batch, truth)
        found = pulled(model, given)
        assert all(value.isfinite().all() for value in found), mode.__name__
        assert len(found) == 1 + len(list(model.parameters())), mode.__name__
        assert sum(float(value.abs().sum()) for value in found[1:]) > 0, mode.__name__
        for value, again in zip(found, pulled(model, spoilt(given)), strict=True):
            assert torch.equal(value, again), mode.__name__


@pytest.mark.parametrize("name", SAYS_SIGMA)
def test_a_sigma_is_learnt_where_the_target_cannot_be_told(name: str) -> None:
    half = PIXELS // 2
    rows = 24
    batch, _ = population(rows)
    x = torch.cat([torch.full((rows, half), 0.5), torch.full((rows, half), 1.5)], dim=1)
    random = torch.Generator().manual_seed(1)
    target = x.clone()
    target[:, half:] += 0.5 * torch.randn(rows, half, generator=random)
    batch = replace(
        batch, x=x, weight=torch.full_like(x, 1e4), target=target, target_weight=1e4 + 0 * x
    )
    # The inputs are all alike: statistics of a batch have nothing to divide by.
    batch = replace(batch, x=x + 0.01 * torch.randn(x.shape, generator=random))
    model = built(name, loss="gaussian", sigma=True)
    model.start(lambda: [batch], seed=1)
    first = model.eval()(batch.x, batch.weight, batch.z).sigma
    assert first is not None
    torch.testing.assert_close(first, torch.full_like(x, 0.1), rtol=0.01, atol=0)
    descent = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    for _ in range(100):
        descent.zero_grad()
        model.loss(batch).backward()
        descent.step()
    sigma = model.eval()(batch.x, batch.weight, batch.z).sigma.detach().mean(0)
    known, scatter = (float(part.median()) for part in (sigma[: half - 5], sigma[half + 5 :]))
    # A hundred steps bring all near the 0.5 of the scatter, and some to it.
    assert 0.2 < scatter < 0.7
    assert known < scatter / 3


NEAR = 4 + 5 + 4 + 5
"Pixels of 4000, 4005, ... A within 12 A of H-delta, H-gamma, H-beta and [OIII] 4959."
STRETCHED = {
    "mae": (3 * NEAR + (200 - NEAR)) / 200,
    "mse": (9 * NEAR + (200 - NEAR)) / 200,
    "rmse": ((9 * NEAR + (200 - NEAR)) / 200) ** 0.5,
    "chi2": 0.5 * 4 * (9 * NEAR + (200 - NEAR)) / 200,
    "sum_squares": 0.5 * 4 * (9 * NEAR + (200 - NEAR)),
}


@pytest.mark.parametrize("loss", STRETCHED)
def test_differences_near_lines_are_stretched(loss: losses.Name) -> None:
    model = built("dense", loss=loss, line_weight=2.0)
    target, weight = torch.full((2, PIXELS), 7.0), torch.full((2, PIXELS), 4.0)
    found = model.distance(Output(target + 1), target, weight)
    assert float(found) == pytest.approx(STRETCHED[loss], rel=1e-5)


@pytest.mark.parametrize("name", ["dense", "windows", "ae", "vae", "dae", "unet"])
def test_every_rest_frame_network_can_learn_lines_more(name: str) -> None:
    batch, _ = spectra()
    found = []
    for more in (0.0, 2.0):
        model = built(name, loss="mse", line_weight=more)
        model.start(lambda: [batch], seed=1)
        found.append(float(pulled(model, batch)[0]))
    assert 0 < found[0] < found[1]


def test_a_likelihood_cannot_be_stretched() -> None:
    with pytest.raises(ValueError, match=r"line_weight: a likelihood cannot be stretched"):
        built("dense", loss="gaussian", sigma=True, line_weight=1.0)
