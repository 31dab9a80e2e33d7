"""Choosing a precision: what moves an index too far is refused, and what was found is recorded."""

import json

import pytest
import torch
from torch import Tensor, nn

from storage.grid import Grid
from storage.names import resolve
from training import precision
from training.batch import Batch
from training.model import Denoiser, Output
from training.precision import choose

PIXELS = 64
GRID = Grid(kind="linear", start=4000, step=1, size=PIXELS)
NAMES = ("blue", "red", "never")
NOISE = 0.2
"Of one pixel."


class Amplified(Denoiser):
    """Doubles its rounding errors again and again, and gives the spectrum where there are none."""

    fit = "gradient"

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.same = nn.Linear(PIXELS, PIXELS, bias=False)
        nn.init.eye_(self.same.weight)
        # 1 + 2^-10 is 1 in 8 bits; in 24 it is what it is.
        self.same.weight.data.mul_(1 + 2**-10)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        exact = x * (1 + 2**-10)
        return Output(x + self.gain * (self.same(x).float() - exact))


def spectra(n: int = 300) -> Batch:
    random = torch.Generator().manual_seed(0)
    # In 8 bits already, so that what is rounded is known: the weights alone.
    x = (1 + NOISE * torch.randn(n, PIXELS, generator=random)).bfloat16().float()
    ones = torch.ones(n)
    return Batch(
        x=x, weight=torch.full_like(x, NOISE**-2), scale=ones, z=ones.double(), ok=ones > 0
    )


def means(flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Means of both halves and something that is never measured, with their errors."""
    halves = [flux[:, : PIXELS // 2], flux[:, PIXELS // 2 :]]
    value = torch.stack([*(half.double().mean(1) for half in halves), flux[:, 0] * torch.nan], 1)
    return value, torch.full_like(value, NOISE / (PIXELS / 2) ** 0.5)


@pytest.fixture
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old processors multiply bfloat16 too, only slowly."""
    monkeypatch.setattr(precision, "native", lambda one, device: one == "bfloat16")


@pytest.mark.usefixtures("_any_cpu")
def test_auto_takes_what_moves_no_index() -> None:
    choice = choose("auto", Amplified(0.1), spectra(), NAMES, means)

    assert choice.precision == "bfloat16"
    shifts = choice.shifts["bfloat16"]
    assert shifts.keys() == {"blue", "red"}
    assert all(shift is not None and 0 < shift < 0.1 for shift in shifts.values())


@pytest.mark.usefixtures("_any_cpu")
def test_auto_refuses_what_moves_an_index_too_far() -> None:
    choice = choose("auto", Amplified(100), spectra(), NAMES, means)

    assert choice.precision == "float32"
    # The weights lose 2^-10 of about 1: 0.098 for a gain of 100.
    expected = 100 * 2**-10 / (NOISE / 32**0.5)
    assert choice.shifts["bfloat16"]["blue"] == pytest.approx(expected, rel=0.1)


def test_what_is_asked_for_is_taken_and_its_shifts_are_known() -> None:
    choice = choose("bfloat16", Amplified(100), spectra(), NAMES, means)

    assert choice.precision == "bfloat16"
    assert choice.shifts["bfloat16"]["red"] > precision.LIMIT


def test_float32_is_not_measured() -> None:
    def never(flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        raise AssertionError

    choice = choose("float32", Amplified(1), spectra(), NAMES, never)
    assert (choice.precision, choice.shifts) == ("float32", {})


@pytest.mark.parametrize("asked", ["auto", "bfloat16", "medium"])
def test_linear_algebra_is_float32_whatever_is_asked(asked: precision.Asked) -> None:
    model = resolve("training.models", "ppca").build(GRID, components=2).eval()
    assert choose(asked, model, spectra(), NAMES, means).precision == "float32"


@pytest.mark.usefixtures("_any_cpu")
def test_a_value_that_is_gone_has_moved_too_far() -> None:
    def strict(flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        value, error = means(flux, weight)
        exact = torch.isclose(flux.bfloat16().float(), flux, rtol=0, atol=0).all(1)
        return value.masked_fill(exact[:, None], torch.nan), error

    model = resolve("training.models", "dense").build(GRID, widths=[PIXELS, 8, PIXELS]).eval()
    choice = choose("auto", model, spectra(), NAMES, strict)
    assert choice.precision == "float32"
    assert choice.shifts == {"bfloat16": {"blue": None, "red": None}}


@pytest.mark.usefixtures("_any_cpu")
def test_where_no_index_is_known_nothing_is_rounded() -> None:
    def blind(flux: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        value, error = means(flux, weight)
        return value * torch.nan, error

    assert choose("auto", Amplified(0), spectra(), NAMES, blind).precision == "float32"


def test_a_choice_is_the_same_again_and_goes_into_attributes() -> None:
    first, second = (choose("auto", Amplified(3), spectra(), NAMES, means) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(first.attrs, allow_nan=False)) == first.attrs
    assert first.attrs["precision_asked"] == "auto"
    assert first.attrs["precision_rows"] == 300


def test_an_unknown_precision_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'half' is unknown; known: float32, medium, bfloat16"):
        choose("half", Amplified(1), spectra(), NAMES, means)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_is_measured_on_itself() -> None:
    device = torch.device("cuda")
    choice = choose("auto", Amplified(100).to(device), spectra(), NAMES, means)
    assert choice.precision == "float32"
    assert choice.shifts
