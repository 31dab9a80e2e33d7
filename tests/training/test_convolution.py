"""The short way to convolve gives what the plain way gives."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.convolution import convolve, plan

SHAPES = [
    # Spectra, pixels, channels in and out, taps.
    (2, 785, 64, 64, 11),
    (3, 72, 64, 128, 21),
    (1, 73, 96, 64, 21),
    (2, 50, 64, 80, 5),
    (4, 9, 128, 128, 9),
]


def case(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows, pixels, into, out, taps = shape
    random = torch.Generator().manual_seed(1)
    x = torch.randn(rows, pixels, into, generator=random, dtype=dtype)
    weight = torch.randn(out, into, taps, generator=random, dtype=dtype)
    return x.requires_grad_(), (weight / (into * taps) ** 0.5).requires_grad_()


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv1d(x.mT.double(), weight.double(), padding=weight.shape[2] // 2).mT


@pytest.mark.parametrize("shape", SHAPES)
def test_the_short_way_gives_the_same(shape: tuple[int, int, int, int, int]) -> None:
    _, pixels, into, out, taps = shape
    assert plan(pixels, into, out, taps) is not None
    x, weight = case(shape, torch.float32)
    # Values are of order 1: float32 sums of a thousand products are good to 1e-6.
    torch.testing.assert_close(convolve(x, weight).double(), plain(x, weight), atol=5e-6, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_short_way_has_the_same_gradient(shape: tuple[int, int, int, int, int]) -> None:
    x, weight = case(shape, torch.float32)
    expected = plain(x, weight)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    for way in (convolve(x, weight), expected):
        found = torch.autograd.grad(way, (x, weight), pull.to(way))
        if way is not expected:
            short = found
    for mine, theirs in zip(short, found, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(mine / scale, theirs / scale, atol=3e-6, rtol=0)


def test_few_channels_are_left_to_the_plain_way() -> None:
    assert plan(980, 1, 16, 5) is None
    assert plan(196, 16, 32, 11) is None
    x, weight = case((2, 30, 3, 4, 5), torch.float32)
    torch.testing.assert_close(convolve(x, weight).double(), plain(x, weight), atol=1e-6, rtol=0)


def test_a_shift_of_the_input_is_a_shift_of_the_output() -> None:
    x, weight = case((1, 785, 64, 32, 11), torch.float32)
    moved = convolve(torch.roll(x, 37, dims=1), weight)
    expected = torch.roll(convolve(x, weight), 37, dims=1)
    torch.testing.assert_close(moved[:, 50:-10], expected[:, 50:-10], atol=5e-6, rtol=0)
