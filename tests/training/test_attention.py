"""The encoder's parts give what PyTorch's own layers give, one after another."""

import pytest
import torch
from torch import nn

from training.attention import Block, Encoder, First, Tower


def plainly(block: Block, x: torch.Tensor) -> torch.Tensor:
    """The same block of layers that do one thing each, channels first and in float64."""
    out, into, taps = block.conv.weight.shape
    conv = nn.Conv1d(into, out, taps, padding=taps // 2)
    with torch.no_grad():
        conv.weight.copy_(block.conv.weight)
        conv.bias.copy_(torch.zeros(out) if block.conv.bias is None else block.conv.bias)
    layers = nn.Sequential(
        conv,
        nn.InstanceNorm1d(out) if block.norm else nn.Identity(),
        nn.PReLU(out),
        nn.MaxPool1d(block.pool, padding=block.pool // 2),
    ).double()
    layers[2].weight = nn.Parameter(block.slope.double())
    found: torch.Tensor = layers(x.mT.double()).mT
    return found


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("slopes", [(0.1, 0.9), (-0.8, 0.5), (1.0, 2.0)])
@pytest.mark.parametrize(("kind", "into", "pool"), [(First, 1, 5), (First, 2, 5), (Block, 6, 11)])
def test_a_block_is_convolution_norm_prelu_and_pool(
    kind: type[Block], into: int, pool: int, slopes: tuple[float, float], norm: bool
) -> None:
    torch.manual_seed(1)
    block = kind(into, 12, pool, pool, norm)
    with torch.no_grad():
        block.slope.copy_(torch.linspace(*slopes, 12))
    x = 1 + 0.3 * torch.randn(3, 203, into)
    expected = plainly(block, x)
    torch.testing.assert_close(block(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_a_block_has_the_gradient_of_its_layers(norm: bool) -> None:
    torch.manual_seed(1)
    for block in (First(1, 12, 5, 5, norm), Block(6, 12, 11, 11, norm)):
        with torch.no_grad():
            block.slope.copy_(torch.linspace(-0.5, 0.5, 12))
        x = torch.randn(3, 203, block.conv.weight.shape[1], requires_grad=True)
        wanted = (x, block.conv.weight)
        pull = torch.randn(block(x).shape)
        mine = torch.autograd.grad(block(x), wanted, pull)
        layers = plainly(block, x)
        (theirs,) = torch.autograd.grad(layers, x, pull.double())
        torch.testing.assert_close(mine[0], theirs, atol=2e-5, rtol=1e-4)
        assert mine[1].isfinite().all()


def test_a_flat_spectrum_is_finite_through_the_norm() -> None:
    block = First(1, 4, 5, 5, True)
    assert block(torch.zeros(2, 100, 1)).isfinite().all()
    assert block(torch.ones(2, 100, 1)).isfinite().all()


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    torch.manual_seed(1)
    tower = Tower(1, (8, 12, 16), (5, 11, 21))
    x = torch.randn(37, 1, 300)
    torch.testing.assert_close(tower(x)[20:23], tower(x[20:23]), atol=1e-5, rtol=1e-5)


def test_weights_can_steer_the_attention() -> None:
    torch.manual_seed(1)
    sizes = (8, 12, 16), (5, 11, 21)
    other = Tower(1, (8, 12, 8), (5, 11, 21))
    encoder = Encoder(Tower(1, *sizes), [8, 4], other)
    x, weight = torch.randn(2, 1, 300), torch.rand(2, 1, 300)
    _, attention = encoder.attend(x, weight)
    torch.testing.assert_close(attention.sum(1), torch.ones(2, 8))
    assert not torch.equal(attention, encoder.attend(x, weight.flip(2))[1])
