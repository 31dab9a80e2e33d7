"""The Savitzky-Golay filter is that of SciPy, and does not see missing pixels."""

import numpy as np
import pytest
import torch
from scipy.signal import freqz, savgol_coeffs, savgol_filter

from storage.names import resolve
from tests.training.small import GRID, PIXELS, population
from training.bridge import bridged
from training.model import Denoiser


def built(**options: int) -> Denoiser:
    found: Denoiser = resolve("training.models", "savgol").build(GRID, **options)
    return found


def filtered(x: torch.Tensor, weight: torch.Tensor, **options: int) -> torch.Tensor:
    return built(**options)(x, weight, torch.zeros(len(x))).flux


@pytest.mark.parametrize(
    ("window", "order"), [(19, 6), (7, 2), (5, 0), (1, 0), (3, 2), (PIXELS - 1, 3)]
)
def test_savgol_is_that_of_scipy(window: int, order: int) -> None:
    batch, _ = population(10)
    whole = torch.ones_like(batch.x)
    expected = savgol_filter(batch.x.double().numpy(), window, order)
    found = filtered(batch.x, whole, window=window, order=order)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_polynomial_passes_unchanged_to_its_ends() -> None:
    place = torch.linspace(-1, 1, PIXELS)
    x = torch.stack([place**power for power in range(5)])
    found = filtered(x, torch.ones_like(x), window=21, order=4)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=0)


def test_gaps_are_bridged_first() -> None:
    batch, _ = population(10)
    spoilt = torch.where(batch.weight > 0, batch.x, 1e3)
    found = filtered(spoilt, batch.weight)
    torch.testing.assert_close(
        found, filtered(bridged(batch.x, batch.weight), torch.ones_like(batch.x))
    )


def test_by_default_half_of_the_power_is_gone_where_butterworth_has_it() -> None:
    options = resolve("training.models", "savgol").Options()
    cutoff = resolve("training.models", "butterworth").Options().cutoff
    frequency, gain = freqz(savgol_coeffs(options.window, options.order), worN=4096)
    assert frequency[np.argmax(np.abs(gain) ** 2 < 0.5)] == pytest.approx(cutoff, rel=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 18}, r"window = 18, order = 6: the window is odd"),
        ({"window": 5, "order": 5}, r"window = 5, order = 5: .*longer than the order"),
        ({"window": 301}, r"window of 301 pixels on a frame of 200; take a shorter one"),
    ],
)
def test_a_window_that_fits_no_polynomial_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(**options)
