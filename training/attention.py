"""Attention: the encoder of Melchior+2023, after Serra+2018: what matters, wherever it falls.

Three convolutions turn a spectrum into channels of wavelength segments; half of the channels say
where the other half are worth listening to. Axes: N spectra, L pixels or segments, C channels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.convolution import convolve

EPSILON = 1e-5
"Added to a variance that is divided by."
ROWS = 16
"Spectra at a time on a CPU: what they need then stays near the core."


class Block(nn.Module):
    """Convolution, instance norm, PReLU, and the largest value of every segment."""

    def __init__(self, into: int, out: int, taps: int, pool: int, norm: bool) -> None:
        super().__init__()
        self.norm, self.pool = norm, pool
        # A norm takes away what a bias adds.
        self.conv = nn.Conv1d(into, out, taps, padding=taps // 2, bias=not norm)
        self.slope = nn.Parameter(torch.empty(out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        self.conv.reset_parameters()
        nn.init.constant_(self.slope, 0.25)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, segments, O)."""
        y = convolve(x, self.conv.weight)
        if self.norm:
            y, variance = centred(y)
            mean, scale = torch.zeros_like(variance), (variance + EPSILON).rsqrt()
        else:
            mean, scale = self.bias
        low = -largest(-y, self.pool) if self.falls else None
        return self.activated(largest(y, self.pool), low, mean, scale)

    @property
    def bias(self) -> tuple[Tensor, Tensor]:
        """What is taken off the channels of a convolution, and what they are times, (O,) each."""
        assert self.conv.bias is not None
        return -self.conv.bias, torch.ones_like(self.conv.bias)

    @property
    def falls(self) -> bool:
        """Whether an activation falls below 0: the smallest value may then become the largest."""
        return self.pool > 1 and bool((self.slope < 0).any())

    def activated(self, high: Tensor, low: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
        """Norm and PReLU of the largest values (N, segments, O), and of the smallest ones.

        They come after the pool, since they keep the order of values, or turn all of it around.
        """
        found = F.prelu(((high - mean) * scale).mT, self.slope).mT
        if low is None:
            return found
        return torch.maximum(found, F.prelu(((low - mean) * scale).mT, self.slope).mT)


class First(Block):
    """The block that sees the spectrum: a few taps give many channels.

    Mean and variance of the channels follow from those of the taps, without a look at them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, segments, O)."""
        taps = self.conv.weight.shape[2]
        side = taps // 2
        seen = F.pad(x, (0, 0, side, side)).unfold(1, taps, 1).flatten(2)
        weight = self.conv.weight.flatten(1)
        mean, scale = self._from_taps(seen, weight)
        high = largest(seen @ weight.T, self.pool)
        # The smallest value of a channel is the largest one of its opposite.
        low = -largest(seen @ -weight.T, self.pool) if self.falls else None
        return self.activated(high, low, mean, scale)

    def _from_taps(self, seen: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        if not self.norm:
            return self.bias
        # Taps beside each other hold nearly the same: their differences want more digits.
        exact, weight = seen.double(), weight.double()
        mean = exact.mean(dim=1, keepdim=True)
        exact = exact - mean
        covariance = exact.mT @ exact / seen.shape[1]
        variance = ((weight @ covariance) * weight).sum(-1).clamp(min=0)
        scale = (variance + EPSILON).rsqrt()
        return (mean @ weight.T).to(seen), scale.unsqueeze(1).to(seen)


class Tower(nn.Module):
    """Blocks one after another: (N, C, P) to (N, segments, channels of the last)."""

    def __init__(
        self, into: int, filters: Sequence[int], taps: Sequence[int], norm: bool = True
    ) -> None:
        super().__init__()
        pools = [*taps[:-1], 1]
        shapes = list(zip(pairwise([into, *filters]), taps, pools, strict=True))
        blocks = [
            (First if number == 0 else Block)(before, after, width, pool, norm)
            for number, ((before, after), width, pool) in enumerate(shapes)
        ]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Channels of every segment."""
        rows = ROWS if x.device.type == "cpu" else len(x)
        early = [self._early(part) for part in torch.split(x.mT, max(rows, 1))]
        found: Tensor = self.blocks[-1](torch.cat(early))
        return found

    def _early(self, x: Tensor) -> Tensor:
        for block in self.blocks[:-1]:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Spectra (N, C, P), and numbers beside them, to latents (N, S)."""

    def __init__(self, tower: Tower, widths: Sequence[int], other: Tower | None = None) -> None:
        super().__init__()
        self.tower, self.other = tower, other
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.slopes = nn.ModuleList(nn.PReLU(width) for width in widths[1:-1])

    def attend(self, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values and attention, each (N, segments, C); attention is of sum 1 over segments.

        `weight` (N, 1, P) has a tower of its own, whose channels the keys are times (their 3.3).
        """
        values, keys = self.tower(x).chunk(2, dim=2)
        if self.other is not None:
            assert weight is not None
            keys = keys * self.other(weight)
        return values, torch.softmax(keys, dim=1)

    def compress(self, values: Tensor, attention: Tensor, beside: Tensor | None) -> Tensor:
        """Latents (N, S) of attended values, and of what is beside them (N, B)."""
        hidden = (values * attention).sum(dim=1)
        if beside is not None:
            hidden = torch.cat([hidden, beside.to(hidden)], dim=1)
        for linear, slope in zip(self.linears[:-1], self.slopes, strict=True):
            hidden = slope(linear(hidden))
        found: Tensor = self.linears[-1](hidden)
        return found


def centred(y: Tensor) -> tuple[Tensor, Tensor]:
    """Channels (N, L, C) less their mean over pixels, and their variance (N, 1, C)."""
    with torch.autocast(y.device.type, enabled=False):
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        # Means as products with ones: torch.var takes three times as long.
        ones = y.new_full((1, y.shape[1]), 1 / y.shape[1]).expand(len(y), -1, -1)
        y = y - torch.bmm(ones, y)
        return y, torch.bmm(ones, y.square())


def largest(y: Tensor, pool: int) -> Tensor:
    """The largest value around every pool-th pixel, (N, L, C) to (N, segments, C)."""
    if pool == 1:
        return y
    wide = F.max_pool2d(y.mT.unsqueeze(2), (1, pool), (1, pool), (0, pool // 2))
    return wide.squeeze(2).mT
