"""U-Net: convolutions down to coarser pixels and up again, each level seeing its like on the way.

As Pal & Dobos 2025 use it on stars, after Ronneberger+2015. Their abstract gives a relative error
of 1 % from 1000 spectra; numbers of filters and steps are ours.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from storage.grid import Grid
from training import initial, losses
from training.batch import Batch
from training.model import Output
from training.network import Network, NetworkOptions


class Options(NetworkOptions):
    """What a card may say of this model."""

    loss: losses.Name = "mse"
    "What is made small."
    filters: PositiveInt = 64
    "Of the first level; each next level has twice as many, and the bottleneck below the last."
    levels: PositiveInt = 4
    "Times that the number of pixels is halved."
    dropout: float = Field(default=0.3, ge=0, lt=1)
    "Share of numbers of the bottleneck that are silent at each step of training."
    output: Literal["sigmoid", "linear"] = "sigmoid"
    "'sigmoid' is for flux between 0 and 1, as stars of median 0.5 have it."


class UNet(Network):
    """Blocks of two convolutions; pixels that do not halve are mirrored at the red end."""

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        widths = [options.filters << level for level in range(options.levels + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in pairwise([self.channels, *widths[:-1]]))
        self.bottleneck = _block(widths[-2], widths[-1])
        self.dropout = nn.Dropout(options.dropout)
        upwards = [*pairwise(reversed(widths))]
        self.up = nn.ModuleList(nn.ConvTranspose1d(a, b, 2, stride=2) for a, b in upwards)
        self.join = nn.ModuleList(_block(2 * b, b) for _, b in upwards)
        self.last = nn.Conv1d(widths[0], 1, 1)
        self.spread = nn.Conv1d(widths[0], 1, 1) if options.sigma else None
        self.output = nn.Sigmoid() if options.output == "sigmoid" else nn.Identity()
        self.lacking = -grid.size % (1 << options.levels)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise."""
        seen = self.seen(x, weight)
        if not self.training:
            return Output(*self._denoised(seen).unbind(1))
        # Batch normalisation takes its statistics from all rows: those without data stay out.
        known = (weight > 0).any(1)
        said = x.new_zeros(len(x), 1 + self.options.sigma, x.shape[1])
        if bool(known.any()):
            said[known] = self._denoised(seen[known])
        else:
            # Ranks that share their gradients wait for one, be it 0.
            said = said + 0 * torch.stack([p.sum() for p in self.parameters()]).sum()
        return Output(*said.unbind(1))

    def _denoised(self, seen: Tensor) -> Tensor:
        """Flux, and sigma if it says one, of what is seen: (N, 1 or 2, P)."""
        pixels = seen.shape[-1]
        hidden = nn.functional.pad(seen, (0, self.lacking), mode="reflect")
        levels: list[Tensor] = []
        for block in self.down:
            levels.append(block(hidden))
            hidden = nn.functional.max_pool1d(levels[-1], 2)
        hidden = self.dropout(self.bottleneck(hidden))
        for up, join, level in zip(self.up, self.join, reversed(levels), strict=True):
            hidden = join(torch.cat([level, up(hidden)], dim=1))
        flux, sigma = self.output(self.last(hidden)), self.sigma(hidden)
        said = flux if sigma is None else torch.cat([flux, sigma], dim=1)
        # Under autocast it is of fewer bits than what it is to be put into.
        return said[..., :pixels].to(seen.dtype, memory_format=torch.contiguous_format)

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights (He+2015), and begin as a flat spectrum at the median of the wanted."""
        random = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
                # Each output of an up-convolution comes from one pixel: its kernel is its stride.
                fan = layer.in_channels * (layer.kernel_size[0] // layer.stride[0])
                drawn = torch.empty(layer.weight.shape).uniform_(-1, 1, generator=random)
                layer.weight.copy_(drawn * (6 / fan) ** 0.5)
                if layer.bias is not None:
                    layer.bias.zero_()
        (wanted,) = initial.medians(batches(), lambda batch: (batch.wanted[0],))
        level = wanted.median()
        self.start_sigma()
        self.last.weight.zero_()
        assert self.last.bias is not None
        self.last.bias.fill_(level.logit(eps=0.01) if self.options.output == "sigmoid" else level)


def _block(into: int, out: int) -> nn.Sequential:
    """Two convolutions of 3 pixels, each normalised and cut at 0."""
    layers: list[nn.Module] = []
    for channels in (into, out):
        # Normalisation would take a bias away again.
        layers += [nn.Conv1d(channels, out, 3, padding=1, bias=False), nn.BatchNorm1d(out)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def build(grid: Grid, **options: object) -> UNet:
    """A U-Net on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or there are too few pixels for the levels.
    """
    chosen = Options.model_validate(options)
    if grid.size <= 1 << chosen.levels:
        raise ValueError(
            f"unet: {chosen.levels} levels of {grid.size} pixels leave less than two; "
            "use fewer levels"
        )
    return UNet(grid, chosen)
