"""Dense: the fully connected autoencoders of Camilleri+2025 (their FS and CS), and smaller kin.

Input and target are the same noisy spectrum; what the bottleneck cannot carry is the noise. Their
CS sees the spectrum without its continuum, and has to infer that from the lines.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from storage.grid import Grid
from training.batch import Batch
from training.bridge import bridged
from training.continuum import Continuum
from training.initial import Init, centre, draw, layers, medians
from training.model import Output
from training.network import Network, NetworkOptions

FS = (3800, 3000, 2100, 1500, 850, 350, 110, 300, 750, 1400, 2700, 3800)
"Units of each layer, Camilleri+2025, Table 1."


class Options(NetworkOptions):
    """What a card may say of this model."""

    widths: tuple[PositiveInt, ...] = ()
    "Units from input to output, both included; none: FS, scaled to the pixels of the frame."
    activation: Literal["relu", "prelu"] = "relu"
    "After every layer but the last, the bottleneck included; a PReLU has a slope for each unit."
    continuum: Literal["none", "subtract", "divide"] = "none"
    """What is done with the pseudo-continuum of the input (`training.continuum`) before it is
    seen; the target keeps its own."""
    init: Init = "he"
    "Weights at the start; biases are 0."
    centre: bool = True
    "Start as the median training spectrum: the first and last bias from it, no last weights."
    less_median: bool = False
    """Whether the first layer sees the flux less that of the median training spectrum. What it can
    learn is the same, but not the way there: steps of Adam no longer move all weights of a unit
    together, which puts most units of a wide first layer out for good."""


class Dense(Network):
    """Linear layers with an activation after each but the last."""

    median: Tensor

    def __init__(self, grid: Grid, widths: Sequence[int], options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        self.continuum = None if options.continuum == "none" else Continuum(grid)
        self.linears = layers(widths, [widths[0] * self.channels, *widths[1:-1]])
        self.activations = nn.ModuleList(
            nn.PReLU(n, init=0.2) if options.activation == "prelu" else nn.ReLU()
            for n in widths[1:-1]
        )
        self.spread = nn.Linear(widths[-2], widths[-1]) if options.sigma else None
        if options.less_median:
            self.register_buffer("median", torch.zeros(grid.size))
        self.bottleneck = min(range(1, len(widths) - 1), key=lambda layer: widths[layer])

    def seen(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the network sees, (N, channels, P): as any, without continuum and median if so."""
        seen = super().seen(x, weight)
        flux = seen[:, 0]
        if self.continuum is not None:
            divide = self.options.continuum == "divide"
            change = self.continuum.divided if divide else self.continuum.subtracted
            flux = change(flux, weight)
        if self.options.less_median:
            flux = flux - self.median
        return torch.cat([flux[:, None], seen[:, 1:]], dim=1)

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise; the latent is the narrowest layer, after its activation."""
        hidden = latent = self.seen(x, weight).flatten(1)
        for number, (linear, activation) in enumerate(
            zip(self.linears[:-1], self.activations, strict=True), start=1
        ):
            hidden = activation(linear(hidden))
            if number == self.bottleneck:
                latent = hidden
        return Output(self.linears[-1](hidden), self.sigma(hidden), latent)

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights, know the median, and begin as the median spectrum, if so."""
        linears = [cast(nn.Linear, linear) for linear in self.linears]
        draw(linears, self.options.init, seed)
        self.start_sigma()
        if not (self.options.centre or self.options.less_median):
            return
        flux, target = medians(
            batches(), lambda b: (self.seen(b.x, b.weight)[:, 0], bridged(*b.wanted))
        )
        if self.options.less_median:
            self.median.copy_(flux)
            flux = torch.zeros_like(flux)
        if self.options.centre:
            centre([(linears[0], flux)], linears[-1], target)


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
