"""How products are rounded while a network learns: what bands measure, what auto takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.grid import Grid
from tests.training.course import assert_alike, learn, task
from training import precision, rounding
from training import state as states
from training.batch import Batch
from training.model import Denoiser, Output
from training.recipe import Fit

GRID = Grid(kind="linear", start=4000, step=1, size=301)
"Three bands of 100 A, and a pixel."
NOISE = 0.2
"Of one pixel."
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old processors multiply bfloat16 too, only slowly."""
    monkeypatch.setattr(precision, "native", lambda one, device: one == "bfloat16")


class Rounded(Denoiser):
    """Moves its output by `gain` 2^-10 where products are rounded to 8 bits; else gives 1."""

    fit = "gradient"

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.one = nn.Linear(1, 1, bias=False)
        # In 8 bits that is 1.
        self.one.weight.data.fill_(1 + 2**-10)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        lost = (1 + 2**-10) - self.one(x.new_ones(len(x), 1)).float()
        return Output(torch.ones_like(x) + self.gain * lost)


class Summed(Rounded):
    fit = "sums"


def spectra(n: int = 20) -> Batch:
    x, ones = torch.ones(n, GRID.size), torch.ones(n)
    return Batch(
        x=x, weight=torch.full_like(x, NOISE**-2), scale=ones, z=ones.double(), ok=ones > 0
    )


def look(asked: rounding.Asked, model: Denoiser, before: dict[str, Any] | None = None) -> Any:
    return rounding.look(asked, model, spectra, GRID, before or {})


def test_bands_are_means_with_the_error_of_the_noise() -> None:
    random = np.random.default_rng(0)
    flux, weight = random.normal(size=(4, 301)), random.uniform(1, 9, size=(4, 301))
    weight[0, 100:105] = 0
    names, measure = rounding.bands(GRID)
    value, error = measure(torch.from_numpy(flux), torch.from_numpy(weight))
    assert names == ["4000-4100 A", "4100-4200 A", "4200-4300 A"]
    good = np.arange(105, 200)
    assert value[0, 1].item() == pytest.approx(flux[0, good].mean())
    assert error[0, 1].item() == pytest.approx(np.sqrt((1 / weight[0, good]).sum()) / 95)
    np.testing.assert_allclose(value[1:, 0], flux[1:, :100].mean(1))


def test_a_band_without_data_is_not_measured() -> None:
    flux, weight = torch.ones(1, 301), torch.ones(1, 301)
    weight[:, :11] = 0
    value, error = rounding.bands(GRID)[1](flux, weight)
    assert value[0].isnan().tolist() == [True, False, False]
    assert error[0].isnan().tolist() == [True, False, False]


def test_a_short_frame_is_one_band() -> None:
    names, measure = rounding.bands(Grid(kind="linear", start=5000, step=2, size=21))
    assert names == ["5000-5040 A"]
    assert measure(torch.arange(21.0)[None], None)[0].item() == pytest.approx(9.5)


@pytest.mark.usefixtures("_any_cpu")
def test_auto_takes_what_moves_no_band_by_a_tenth_of_its_noise() -> None:
    # A band of 100 pixels has an error of 0.02; a tenth of it is 0.002 = 2.05 * 2^-10.
    for gain, expected in ((1.9, "bfloat16"), (2.2, "highest")):
        found = look("auto", Rounded(gain))
        assert found["taken"] == expected
        assert found["worst"]["bfloat16"] == pytest.approx(gain * 2**-10 / 0.02, rel=1e-3)
        assert (found["rows"], found["bands"]) == (20, 3)


@pytest.mark.usefixtures("_any_cpu")
def test_auto_never_goes_back_to_a_faster_way() -> None:
    model = Rounded(1.0)
    found = look("auto", model, {"taken": "medium"})
    assert found["taken"] == "medium"
    assert found["worst"].keys() == {"medium"}
    before = {"taken": "highest", "asked": "auto"}
    assert look("auto", model, before) is before


@pytest.mark.usefixtures("_any_cpu")
def test_auto_leaves_a_way_that_has_become_too_rough() -> None:
    before = look("auto", Rounded(1.0))
    assert before["taken"] == "bfloat16"
    assert look("auto", Rounded(9.0), before)["taken"] == "highest"


def never() -> Batch:
    raise AssertionError


def test_what_does_not_round_is_not_measured() -> None:
    found = rounding.look("highest", Rounded(1.0), never, GRID, {})
    assert found == {"asked": "highest", "taken": "highest"}
    found = rounding.look("auto", Summed(1.0), never, GRID, {})
    assert found == {"asked": "auto", "taken": "highest"}


@pytest.mark.parametrize("gain", [1.9, 2.2])
def test_what_is_asked_for_is_taken_measured_and_said_when_it_is_rough(
    gain: float, caplog: pytest.LogCaptureFixture
) -> None:
    found = look("bfloat16", Rounded(gain))
    assert (found["asked"], found["taken"]) == ("bfloat16", "bfloat16")
    assert found["worst"]["bfloat16"] == pytest.approx(gain * 2**-10 / 0.02, rel=1e-3)
    assert found["shifts"]["bfloat16"].keys() == {"4000-4100 A", "4100-4200 A", "4200-4300 A"}
    said = "moves the mean of a band of 100 A by 0.11 of its formal error; precision 'auto'"
    assert (said in caplog.text) == (gain > 2)


def test_what_is_asked_for_is_measured_again_when_the_network_has_learnt() -> None:
    found: dict[str, Any] = {}
    measured = []
    for time in range(10):
        # A network that starts as one spectrum is moved by nothing.
        found = look("bfloat16", Rounded(float(time)), found)
        measured.append(found["worst"]["bfloat16"] / (2**-10 / 0.02))
    assert measured == pytest.approx([0, 1, 2, 2, 4, 4, 4, 4, 8, 8], rel=1e-3)


@pytest.mark.parametrize("asked", ["high", "medium"])
def test_of_high_the_shifts_of_medium_are_known(asked: rounding.Asked) -> None:
    found = look(asked, Rounded(1.0))
    assert found["taken"] == asked
    assert found["worst"].keys() == {"medium"}


def test_a_look_leaves_the_model_learning() -> None:
    model = Rounded(1.0).train()
    look("auto", model)
    assert model.training


def test_rounding_holds_for_what_is_inside() -> None:
    cpu = torch.device("cpu")
    with rounding.products("medium", cpu), rounding.forward("bfloat16", cpu):
        assert torch.get_float32_matmul_precision() == "medium"
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "highest"
    assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_a_network_learns_though_it_is_rounded() -> None:
    last = learn(task(epochs=20, lr=5e-3, precision="bfloat16"))
    assert last.precision["taken"] == "bfloat16"
    assert last.precision["worst"]["bfloat16"] > 0
    assert last.history[-1]["val"] < 0.09 < last.history[0]["val"]
    # What was learnt is kept whole.
    assert {value.dtype for value in last.model.values()} == {torch.float32}


@pytest.mark.usefixtures("_any_cpu")
def test_a_run_that_goes_on_is_rounded_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LIMIT", 1.0)
    work = task(epochs=3, batch_size=64, precision="auto", save_s=0)

    def keep(state: states.State) -> None:
        states.save(state, tmp_path / "{}-{}".format(*state.position))

    whole = learn(work, report=keep)
    assert whole.precision["asked"] == "auto"
    assert whole.precision["taken"] == "bfloat16"
    kept = states.load(tmp_path / "2-2")
    assert kept.precision == whole.precision
    # Within an epoch nobody asks, whatever this machine would say.
    monkeypatch.setattr(precision, "native", lambda one, device: False)
    assert_alike(learn(work, state=kept), whole)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"precision\n  Input should be 'highest', 'high'"):
        Fit.model_validate({"precision": "half"})
