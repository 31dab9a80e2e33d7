"""Dense: the fully connected autoencoder of Camilleri+2025 (their FS), and its smaller kin.

Input and target are the same noisy spectrum; what the bottleneck cannot carry is the noise.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from storage.grid import Grid
from training.batch import Batch
from training.model import Output
from training.network import Network, NetworkOptions

FS = (3800, 3000, 2100, 1500, 850, 350, 110, 300, 750, 1400, 2700, 3800)
"Units of each layer, Camilleri+2025, Table 1."

START_ROWS = 4096
"Spectra that the starting median comes from: its error is then far below the noise of one."


class Options(NetworkOptions):
    """What a card may say of this model."""

    widths: tuple[PositiveInt, ...] = ()
    "Units from input to output, both included; none: FS, scaled to the pixels of the frame."
    activation: Literal["relu", "prelu"] = "relu"
    "After every layer but the last, the bottleneck included."
    init: Literal["he", "glorot"] = "he"
    "Weights at the start; biases are 0."
    centre: bool = True
    "Start as the median training spectrum: the first and last bias from it, no last weights."


class Dense(Network):
    """Linear layers with an activation after each but the last."""

    def __init__(self, grid: Grid, widths: Sequence[int], options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        into = [widths[0] * self.channels, *widths[1:]]
        self.linears = nn.ModuleList(
            nn.Linear(a, b) for (a, _), (_, b) in zip(pairwise(into), pairwise(widths), strict=True)
        )
        self.activations = nn.ModuleList(
            nn.PReLU(n, init=0.2) if options.activation == "prelu" else nn.ReLU()
            for n in widths[1:-1]
        )
        self.bottleneck = min(range(1, len(widths) - 1), key=lambda layer: widths[layer])

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise; the latent is the narrowest layer, after its activation."""
        hidden = latent = self.seen(x, weight).flatten(1)
        for number, (linear, activation) in enumerate(
            zip(self.linears[:-1], self.activations, strict=True), start=1
        ):
            hidden = activation(linear(hidden))
            if number == self.bottleneck:
                latent = hidden
        return Output(flux=self.linears[-1](hidden), latent=latent)

    @torch.no_grad()
    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights, and centre: b_first -= W_first mu, b_last = mu, W_last = 0.

        Without the biases the net sits on the mean spectrum for hundreds of steps; with a noisy
        output to begin with, the first steps put its units out (all ReLUs dead) for good.
        """
        random = torch.Generator().manual_seed(seed)
        for linear in self.linears:
            assert isinstance(linear, nn.Linear)
            fan_out, fan_in = linear.weight.shape
            variance = 2 / fan_in if self.options.init == "he" else 2 / (fan_in + fan_out)
            # Uniform within sqrt(3 variance), drawn on the CPU so that every device starts alike.
            drawn = torch.empty(linear.weight.shape).uniform_(-1, 1, generator=random)
            linear.weight.copy_(drawn * (3 * variance) ** 0.5)
            linear.bias.zero_()
        if self.options.centre:
            self._centre(median(batches()))

    def _centre(self, mu: Tensor) -> None:
        first, last = self.linears[0], self.linears[-1]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        # What else the net sees of a pixel has no median to speak of.
        first.bias.sub_(first.weight[:, : len(mu)] @ mu.to(first.weight))
        last.bias.copy_(mu)
        last.weight.zero_()


def median(batches: Iterable[Batch]) -> Tensor:
    """Median of the first spectra that have data, (P,): it ignores the odd broken one."""
    found: list[Tensor] = []
    for batch in batches:
        found.append(batch.x[batch.ok])
        if sum(len(x) for x in found) >= START_ROWS:
            break
    return torch.cat(found).median(dim=0).values


def build(grid: Grid, **options: object) -> Dense:
    """A dense autoencoder on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, there is no hidden layer, or the widths do not begin and end
        with the pixels.
    """
    chosen = Options.model_validate(options)
    pixels = grid.size
    scaled = [max(1, round(width * pixels / FS[0])) for width in FS]
    widths = list(chosen.widths) or [pixels, *scaled[1:-1], pixels]
    if len(widths) < 3 or widths[0] != pixels or widths[-1] != pixels:
        raise ValueError(
            f"dense: widths {'-'.join(map(str, widths))} on a frame of {pixels} pixels; "
            f"expected {pixels}-...-{pixels} with a hidden layer between"
        )
    return Dense(grid, widths, chosen)
