"""Trials on a linear-Gaussian stand-in for a mock: the reference must come out as the limit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from storage.grid import Grid
from storage.mock import generator
from tests.training.toy import FRAME, GRID, Toy, objects
from training.model import Denoiser, Output
from training.reference import Linear
from training.trials import Trials, examine, library, linear, trial
from training.verdict import judge

Function = Callable[[Tensor, Tensor], Tensor]

NAMES = ("mean", "slope")
BINS = {"2-3": (2.0, 3.0), "5-6": (5.0, 6.0), "natural": None}


class Sines(Toy):
    """Spectra of three components at one of two redshifts; one pixel in 50 has no data."""

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        rng = generator(seed, stream)
        shape = np.sin(np.outer([1, 2, 3], (grid.wavelength - 4000) / 150))
        flux = 2.0 * (1 + rng.normal(0, 0.15, (n, 3)) @ shape)
        return objects(flux, rng.choice([0.0, 0.02], n))


def measure(
    wavelength: np.ndarray, flux: Tensor, ivar: Tensor | None, z: Tensor | None = None
) -> Tensor:
    """Two linear indices, of pixels with data."""
    good = torch.ones_like(flux) if ivar is None else (ivar > 0).float()
    ramp = torch.linspace(-1, 1, 100)
    part, seen = flux[:, 50:150], good[:, 50:150]
    mean = (part * seen).sum(1) / seen.sum(1)
    slope = (part * seen * ramp).sum(1) / (seen * ramp**2).sum(1)
    found = torch.stack([mean, slope], 1)
    # As an index does where too much of its band is missing.
    return torch.where(seen.mean(1, keepdim=True) < 0.9, torch.nan, found)


class Mapped(Denoiser):
    """A function as a denoiser."""

    fit = "none"

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        return Output(self.dropout(self.function(x, weight)))


@pytest.fixture(scope="module")
def reference() -> Linear:
    return linear(Sines(), FRAME, GRID, n=500, seed=1, components=6)


@pytest.fixture(scope="module")
def trials(reference: Linear) -> Trials:
    return trial(
        Sines(),
        FRAME,
        GRID,
        n=300,
        seed=1,
        measure=measure,
        names=NAMES,
        references={"linear": reference},
        bins=BINS,
    )


def test_trials_are_at_the_snr_asked_for(trials: Trials) -> None:
    assert list(trials.exposures) == list(BINS)
    assert 2.0 < trials.exposures["2-3"].snr < 3.0
    assert 5.0 < trials.exposures["5-6"].snr < 6.0
    assert trials.truth["5-6"].shape == (300, 2)


def test_the_bins_show_one_population_with_noise_of_their_own(trials: Trials) -> None:
    np.testing.assert_array_equal(trials.truth["2-3"], trials.truth["5-6"])
    wide, narrow = (
        np.nanstd(trials.exposures[name].noisy - trials.truth[name]) for name in ("2-3", "5-6")
    )
    assert wide / narrow == pytest.approx(5.5 / 2.5, rel=0.15)


def test_the_posterior_mean_passes_next_to_the_reference(trials: Trials, reference: Linear) -> None:
    verdict = judge(
        examine(Mapped(lambda x, weight: reference(x, weight).flux), trials), n_train=500
    )
    assert verdict.passed, verdict.reason
    # The reference also knows that rebinned noise is correlated.
    worth = [s.worth.value for found in verdict.statistics.values() for s in found.values()]
    assert 0.99 < np.mean(worth) < 1.1


def test_the_full_spectrum_is_held_against_the_truth(trials: Trials, reference: Linear) -> None:
    verdict = judge(
        examine(Mapped(lambda x, weight: reference(x, weight).flux), trials), n_train=500
    )
    assert verdict.rms.keys() == BINS.keys()
    found = verdict.rms["5-6"]
    # Three components at two redshifts are six numbers, of 294 pixels.
    assert found["linear"].value == pytest.approx(np.sqrt(6 / 294), rel=0.15)
    assert found["output"] == found["linear"]
    copied = judge(examine(Mapped(lambda x, weight: x), trials), n_train=500)
    assert copied.rms["5-6"]["output"].value == pytest.approx(1, abs=0.02)


def test_the_truth_is_on_the_scale_of_the_noisy_spectrum(trials: Trials) -> None:
    seen = trials.exposures["2-3"]
    due = seen.clean.on(seen.batch.scale)
    good = seen.batch.weight > 0
    pull = ((seen.batch.x - due.x) * seen.batch.weight.sqrt())[good]
    assert abs(float(pull.mean())) < 0.01
    # On scales of their own both are 1 in the window, whatever its noise.
    whole = good[:, 150:250].all(1)
    window = (seen.batch.x - seen.clean.on().x)[whole, 150:250].mean(1)
    assert float(window.abs().max()) < 1e-4


def test_the_library_stands_beside_the_linear_reference(reference: Linear) -> None:
    draws = library(Sines(), FRAME, GRID, n=3000, seed=1, of=reference, width=0.3)
    assert draws.latents.shape == (3000, 6)
    found = trial(
        Sines(),
        FRAME,
        GRID,
        n=100,
        seed=1,
        measure=measure,
        names=NAMES,
        references={"linear": reference, "library": draws},
        bins={"5-6": (5.0, 6.0)},
    )
    verdict = judge(examine(Mapped(lambda x, weight: x), found), n_train=1)
    assert verdict.draws["5-6"]["library"] > 0
    assert "linear" not in verdict.draws["5-6"]
    both = verdict.rms["5-6"]
    assert both["library"].value == pytest.approx(both["linear"].value, rel=0.1)


def test_a_copy_and_a_constant_fail_for_their_reasons(trials: Trials) -> None:
    copied = judge(examine(Mapped(lambda x, weight: x), trials), n_train=500)
    assert copied.reason.startswith("copies the noise")
    constant = judge(examine(Mapped(lambda x, weight: torch.ones_like(x)), trials), n_train=500)
    assert constant.reason.startswith("paints the average galaxy")


def test_the_model_is_asked_in_eval_mode(trials: Trials) -> None:
    model = Mapped(lambda x, weight: x).train()
    first, second = (examine(model, trials)["natural"].output for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not model.training


def test_masked_bands_are_dropped(trials: Trials) -> None:
    seen = trials.exposures["5-6"]
    seen.batch.weight[:11, 50:100] = 0
    blind = measure(trials.wavelength, seen.batch.x, seen.batch.weight).numpy()
    seen.noisy[:] = blind
    sample = examine(Mapped(lambda x, weight: x), trials)["5-6"]
    assert judge({"5-6": sample}, n_train=1).statistics["5-6"]["mean"].dropped == 11


def test_a_mock_that_misses_the_frame_is_named() -> None:
    beyond = FRAME.model_copy(
        update={"grid": Grid(kind="linear", start=3500.0, step=2.0, size=600)}
    )
    with pytest.raises(ValueError, match=r"linear reference: 0 of 50 mock spectra cover"):
        linear(Sines(), beyond, GRID, n=50, seed=1)
