"""Trust: a denoised spectrum that is not its input's galaxy is found out by its own residual."""

import numpy as np
import pytest
import torch

from pipeline.trust import LIMIT, misfit

N, P = 400, 3800


def noisy(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    truth = 1 + 0.2 * torch.sin(torch.arange(P) / 300).expand(N, P)
    weight = torch.full((N, P), 25.0)
    return truth + torch.randn(N, P, generator=random) / 5, weight, truth


def test_noise_alone_gives_one() -> None:
    x, weight, truth = noisy()
    found = misfit(x, weight, truth)
    # 76 bands a row: chi^2 of 76 degrees of freedom over 76.
    assert found.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 76 / N))
    assert found.std() == pytest.approx(np.sqrt(2 / 76), rel=0.15)
    assert (found < LIMIT).all()


def test_a_line_that_was_erased_counts_by_its_signal_to_noise() -> None:
    x, weight, truth = noisy()
    # A line of one band and depth d adds (d^2 x weight x pixels) / bands.
    depth = 0.5
    x[:, 1000:1050] -= depth
    expected = 1 + depth**2 * 25 * 50 / 76
    assert misfit(x, weight, truth).mean() == pytest.approx(expected, rel=0.05)
    assert (misfit(x, weight, truth) > LIMIT).all()


def test_a_copy_of_the_input_leaves_nothing() -> None:
    x, weight, _ = noisy()
    assert (misfit(x, weight, x) == 0).all()


def test_pixels_without_data_do_not_count_and_a_row_without_any_has_no_number() -> None:
    x, weight, truth = noisy()
    expected = misfit(x[:, 100:], weight[:, 100:], truth[:, 100:])
    weight[:, :100], x[:, :100] = 0, 99
    np.testing.assert_allclose(misfit(x, weight, truth), expected, rtol=1e-5)
    assert np.isnan(misfit(x[:1], torch.zeros(1, P), truth[:1])).all()
