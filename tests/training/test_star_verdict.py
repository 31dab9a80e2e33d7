"""The verdict on stars: whole spectra against the noise, the mean star and a linear reference."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from storage.grid import Grid
from storage.mock import generator
from tests.training.toy import Toy, objects
from training.frame import Frame
from training.model import Denoiser, Output
from training.star_verdict import NAME, Trials, judge, residual, trial
from training.trials import linear
from training.verdict import Verdict

GRID = Grid(kind="linear", start=8000.0, step=1.0, size=300)
FRAME = Frame(
    name="small",
    grid=Grid(kind="linear", start=8010.0, step=1.0, size=260),
    window=(8010.0, 8250.0),
    dust=None,
    rest=False,
    norm="median",
    level=0.5,
)
BINS = {"2-3": (2.0, 3.0), "5-6": (5.0, 6.0), "20-25": (20.0, 25.0), "natural": None}


class Cut(Toy):
    """A continuum of any slope cut by a line of any depth; one pixel in 50 has no data."""

    level = 3.0

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        rng = generator(seed, stream)
        line = np.exp(-0.5 * ((grid.wavelength - 8130) / 25) ** 2)
        slope = rng.uniform(-0.7, 0.7, (n, 1)) * (grid.wavelength - 8150) / 150
        flux = 3.0 * (1 + slope) * (1 - rng.uniform(0.1, 0.8, (n, 1)) * line)
        z, ebv = rng.uniform(-1e-3, 1e-3, n), rng.uniform(0, 0.1, n)
        return objects(flux, z, ebv=ebv)


class Says(Denoiser):
    """Whatever it is told to say of x."""

    fit = "none"

    def __init__(self, word: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.word = word

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        return Output(flux=self.word(x))


@pytest.fixture(scope="module")
def trials() -> Trials:
    mock = Cut()
    reference = linear(mock, FRAME, GRID, 300, seed=3, components=4)
    return trial(mock, FRAME, GRID, reference, n=200, seed=3, bins=BINS)


def smoothed(x: Tensor, width: int = 9) -> Tensor:
    padded = torch.nn.functional.pad(x[:, None], (width // 2, width // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[:, 0]


def verdict(trials: Trials, word: Callable[[Tensor], Tensor]) -> Verdict:
    return judge(Says(word), trials, n_train=1000)


def test_residual_is_relative_to_the_truth_over_good_pixels() -> None:
    truth = torch.tensor([[2.0, 4.0, 1.0, 0.001]])
    output = torch.tensor([[1.0, 5.0, 9.0, 0.101]])
    weight = torch.tensor([[1.0, 1.0, 0.0, 1.0]])
    size, sign = residual(output, truth, weight, least=0.1)
    assert size.item() == pytest.approx((0.5 + 0.25 + 1.0) / 3)
    assert sign.item() == pytest.approx((-0.5 + 0.25 + 1.0) / 3)


def test_a_smoother_of_broad_lines_passes(trials: Trials) -> None:
    found = verdict(trials, smoothed)
    assert found.passed
    at = found.statistics["5-6"][NAME]
    # Nine pixels of independent noise: a third of it is left.
    assert at.delta_o.value / at.noise.value == pytest.approx(1 / 3, rel=0.15)
    assert at.noise.value == pytest.approx(np.sqrt(2 / np.pi) / 5.5, rel=0.3)
    assert found.floor == 2.0


def test_what_copies_its_input_leaves_the_noise(trials: Trials) -> None:
    found = verdict(trials, lambda x: x)
    assert not found.passed
    assert found.reason.startswith("leaves the noise: |R| at S/N 2-3 is ")
    assert found.statistics["5-6"][NAME].delta_n.value == pytest.approx(0, abs=1e-6)
    assert found.ceiling == 0


def test_the_mean_star_is_not_enough(trials: Trials) -> None:
    mean = Says(lambda x: trials.reference.mean.expand_as(x))
    found = judge(mean, trials, 1000, decisive=("2-3",))
    assert not found.passed
    assert found.reason.startswith("paints the average star")
    at = found.statistics["natural"][NAME]
    assert at.delta_o.value == pytest.approx(at.scatter.value)


def test_the_ceiling_is_where_the_noise_is_less_than_the_model_s_error(trials: Trials) -> None:
    found = verdict(trials, lambda x: 1.1 * smoothed(x))
    at = {name: s[NAME] for name, s in found.statistics.items()}
    assert at["5-6"].delta_o.value < at["5-6"].noise.value
    assert at["20-25"].delta_o.value > at["20-25"].noise.value
    assert found.ceiling is not None
    assert at["5-6"].snr < found.ceiling < at["20-25"].snr
    assert at["natural"].bias.value == pytest.approx(0.1, abs=0.01)


def test_bins_that_do_not_decide_fail_nobody(trials: Trials) -> None:
    bad = Says(lambda x: 1.1 * smoothed(x))
    assert judge(bad, trials, 1000, decisive=("5-6",)).passed
    assert not judge(bad, trials, 1000, decisive=("20-25",)).passed
    with pytest.raises(ValueError, match=r"expected at least one that decides \(30-40\)"):
        judge(bad, trials, 1000, decisive=("30-40",))


def test_a_verdict_survives_json(trials: Trials) -> None:
    found = verdict(trials, smoothed)
    again = Verdict.model_validate_json(found.model_dump_json())
    assert (again.passed, again.reason, again.findings) == (True, found.reason, found.findings)
    assert np.isnan(again.statistics["5-6"][NAME].slope_truth.value)
    assert 0 < again.score < 1


def test_stars_that_are_not_on_the_frame_are_counted(trials: Trials) -> None:
    class Blind(Cut):
        def observe(self, *given: object, **more: object) -> xr.Dataset:
            seen = super().observe(*given, **more)  # type: ignore[arg-type]
            return seen.assign(ivar=seen["ivar"] * 0)

    with pytest.raises(ValueError, match="stars at S/N 2-3: 0 of 20 lie on the frame with data"):
        judge(
            Says(smoothed),
            trial(Blind(), FRAME, GRID, trials.reference, n=20, seed=1, bins=BINS),
            n_train=1,
        )
