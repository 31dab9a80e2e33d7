"""Applying a model: in batches of one size, so that a cut changes no bit at any precision."""

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from storage.grid import Grid
from storage.names import resolve
from training.apply import Precision, apply
from training.batch import Batch, take
from training.model import Denoiser, Output
from training.precision import native

PIXELS = 64
GRID = Grid(kind="linear", start=4000, step=1, size=PIXELS)
PRECISIONS = get_args(Precision)


def spectra(n: int, seed: int = 0) -> Batch:
    """Noisy spectra, some pixels of which are missing."""
    random = torch.Generator().manual_seed(seed)
    x = 1 + 0.2 * torch.randn(n, PIXELS, generator=random)
    weight = 25 * (torch.rand(n, PIXELS, generator=random) > 0.1).float()
    ones = torch.ones(n)
    return Batch(x=x, weight=weight, scale=ones, z=0.1 * ones.double(), ok=ones > 0)


def dense() -> Denoiser:
    """A network with drawn weights."""
    model = resolve("training.models", "dense").build(GRID, widths=[PIXELS, 48, 8, 48, PIXELS])
    model.start(lambda: [spectra(100, seed=1)], seed=3)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        last = model.linears[-1].weight
        last.copy_(0.1 * torch.randn(last.shape, generator=random))
    return model.eval()


def ppca() -> Denoiser:
    model = resolve("training.models", "ppca").build(GRID, components=4)
    model.loading.copy_(0.2 * torch.randn(PIXELS, 4, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def said(output: Output) -> list[Tensor]:
    return [value for value in output if value is not None]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", [dense(), ppca()], ids=["dense", "ppca"])
def test_how_rows_are_cut_changes_no_bit(model: Denoiser, precision: Precision) -> None:
    whole, some = spectra(600), slice(256, 600)
    expected = said(apply(model, whole, precision))
    part = take(whole, some)
    for value, of_whole in zip(said(apply(model, part, precision)), expected, strict=True):
        assert torch.equal(value, of_whole[some])


@pytest.mark.parametrize("precision", ["medium", "bfloat16"])
def test_rounded_products_are_close_to_exact_ones(precision: Precision) -> None:
    exact, rounded = (apply(dense(), spectra(40), how) for how in ("float32", precision))
    for value, expected in zip(said(rounded), said(exact), strict=True):
        assert value.dtype == torch.float32
        # Of 8 bits each, in 4 layers.
        torch.testing.assert_close(value, expected, rtol=0.03, atol=0.03)


def test_bfloat16_rounds() -> None:
    exact, rounded = (apply(dense(), spectra(40), how) for how in ("float32", "bfloat16"))
    assert torch.equal(rounded.flux, rounded.flux.bfloat16().float())
    assert not torch.equal(exact.flux, exact.flux.bfloat16().float())


def test_float32_is_what_the_model_gives_by_itself() -> None:
    model, batch = dense(), spectra(256)
    assert torch.equal(apply(model, batch).flux, model(batch.x, batch.weight, batch.z).flux)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_linear_algebra_is_never_rounded(precision: Precision) -> None:
    model, batch = ppca(), spectra(40)
    found, exact = apply(model, batch, precision), apply(model, batch)
    for value, expected in zip(said(found), said(exact), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_holds_for_one_call(precision: Precision) -> None:
    class Broken(Denoiser):
        fit = "gradient"

        def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
            raise ArithmeticError

    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ArithmeticError):
            apply(Broken(), spectra(2), precision)
        assert torch.get_float32_matmul_precision() == "high"
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_weights_are_rounded_once_for_all_batches() -> None:
    seen: list[int] = []

    class Peek(Denoiser):
        fit = "gradient"

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(PIXELS, PIXELS)

        def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
            with torch.profiler.profile() as profile:
                flux = self.linear(x)
            casts = [e for e in profile.events() if e.name == "aten::_to_copy"]
            seen.append(len(casts))
            return Output(flux)

    apply(Peek().eval(), spectra(512), "bfloat16")

    # Spectra, weights and bias; spectra alone.
    assert seen == [3, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_agrees_with_the_cpu(precision: Precision) -> None:
    device = torch.device("cuda")
    if precision != "float32" and not native(precision, device):
        pytest.skip(f"this GPU does not multiply in {precision}")
    close = 1e-4 if precision == "float32" else 0.03
    for make in (dense, ppca):
        here, there = apply(make(), spectra(300)), apply(make().to(device), spectra(300), precision)
        for value, expected in zip(said(there), said(here), strict=True):
            # The result is where the batch is.
            torch.testing.assert_close(value, expected, rtol=close, atol=close)
