"""Losses of two spectra, against sums by hand."""

import math

import pytest
import torch
from torch import Tensor

from training import losses
from training.model import Output

DIFFERENCE = torch.tensor([[1.0, -2.0, 50.0, 3.0], [0.0, 4.0, 50.0, 50.0]])
WEIGHT = torch.tensor([[4.0, 1.0, 0.0, 0.5], [9.0, 0.25, 0.0, 0.0]])
"Where it is 0 the difference does not count."
TARGET = torch.full((2, 4), 7.0)
EXPECTED = {
    "mae": (1 + 2 + 3 + 0 + 4) / 5,
    "mse": (1 + 4 + 9 + 0 + 16) / 5,
    "rmse": (math.sqrt(14 / 3) + math.sqrt(16 / 2)) / 2,
    "chi2": 0.5 * (4 + 4 + 4.5 + 4) / 8,
    "sum_squares": 0.5 * (4 + 4 + 4.5 + 4) / 2,
}


def loss(name: losses.Name, weight: Tensor = WEIGHT, sigma: Tensor | None = None) -> Tensor:
    return losses.named(name)(Output(TARGET + DIFFERENCE, sigma), TARGET, weight)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_the_mean_it_says(name: losses.Name) -> None:
    assert float(loss(name)) == pytest.approx(EXPECTED[name])


def test_a_likelihood_has_the_noise_of_the_target_beside_the_sigma_of_the_model() -> None:
    spread = torch.distributions.Normal(0.0, (0.3**2 + 1 / WEIGHT[WEIGHT > 0]).sqrt())
    expected = -spread.log_prob(DIFFERENCE[WEIGHT > 0]).mean()
    torch.testing.assert_close(loss("gaussian", sigma=torch.full((2, 4), 0.3)), expected)
    with pytest.raises(ValueError, match="loss 'gaussian' needs a model that says its sigma"):
        loss("gaussian")


@pytest.mark.parametrize("name", [*EXPECTED, "gaussian"])
def test_without_data_there_is_no_loss_and_no_slope(name: losses.Name) -> None:
    flux = (TARGET + DIFFERENCE).requires_grad_()
    output = Output(flux, torch.full((2, 4), 0.3))
    found = losses.named(name)(output, TARGET, torch.zeros_like(WEIGHT))
    found.backward()
    assert float(found.detach()) == pytest.approx(0, abs=1e-6)
    assert flux.grad is not None
    assert (flux.grad == 0).all()
