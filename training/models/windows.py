"""Windows: the whole spectrum from two narrow parts of it, NW and NW-S of Camilleri+2025.

Each part has layers of its own; joined, they go on to the full frame. There is no bottleneck: what
the parts do not tell cannot be copied. In NW-S, with `skip`, what the first layer of each part
gives is seen again near the end; the authors' script makes that joined layer and then does not use
it, so that their published NW-S may be an NW. Here it is connected.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Self, cast

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from storage.grid import Grid
from training.batch import Batch
from training.bridge import bridged
from training.initial import Init, centre, draw, layers, medians
from training.model import Output
from training.network import Network, NetworkOptions

PLACES = ((3800.0, 4200.0), (5000.0, 5400.0))
"The 'blue' and the 'red' window of Sharbaf+2023, A."
BRANCH = (400, 800, 1100)
TRUNK = (1800, 2100, 2400, 2800, 3000, 3400)
"Units of the hidden layers before and after the join, Camilleri+2025, Table 1."


class Options(NetworkOptions):
    """What a card may say of this model."""

    windows: tuple[tuple[float, float], ...] = Field(default=PLACES, min_length=1)
    "Rest wavelengths that it sees, vacuum A; first included, last not."
    branch: tuple[PositiveInt, ...] = Field(default=BRANCH, min_length=1)
    "Units of the hidden layers of each window."
    trunk: tuple[PositiveInt, ...] = TRUNK
    "Units of the hidden layers after the windows are joined."
    skip: bool = False
    "NW-S: the first layer of every window goes into the last layer of the trunk but one, too."
    init: Init = "he"
    "Weights at the start; biases are 0."
    centre: bool = True
    "Start as the median training spectrum: the first and last biases from it, no last weights."

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        for low, high in self.windows:
            if not low < high:
                raise ValueError(f"windows: {low:g}-{high:g} A; the first is the lower end")
        if self.skip and len(self.trunk) < 2:
            raise ValueError(
                f"skip: needs two layers or more in the trunk, found {len(self.trunk)}"
            )
        return self


class Windows(Network):
    """Linear layers with a ReLU after each but the last, apart for each window at first."""

    def __init__(self, grid: Grid, options: Options) -> None:
        super().__init__(grid, options)
        self.options = options
        self.parts = [_part(grid, window) for window in options.windows]
        self.branches = nn.ModuleList(
            layers([(part.stop - part.start) * self.channels, *options.branch])
            for part in self.parts
        )
        into = [len(self.parts) * options.branch[-1], *options.trunk]
        self.again = len(options.trunk) - 2 if options.skip else -1
        widths = [*into, grid.size]
        if options.skip:
            into[self.again] += len(self.parts) * options.branch[0]
        self.trunk = layers(widths, into)
        self.spread = nn.Linear(into[-1], grid.size) if options.sigma else None

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        """Denoise; it has no latent."""
        firsts, ends = [], []
        for part, branch in zip(self.parts, self.branches, strict=True):
            first, *others = _linears(branch)
            # Gaps are bridged inside a window: nothing beyond it is seen.
            hidden = first(self.seen(x[:, part], weight[:, part]).flatten(1)).relu()
            firsts.append(hidden)
            for linear in others:
                hidden = linear(hidden).relu()
            ends.append(hidden)
        hidden = torch.cat(ends, dim=1)
        *trunk, last = _linears(self.trunk)
        for number, linear in enumerate(trunk):
            if number == self.again:
                hidden = torch.cat([hidden, *firsts], dim=1)
            hidden = linear(hidden).relu()
        return Output(flux=last(hidden), sigma=self.sigma(hidden))

    def start(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Draw the weights, and begin as the median spectrum if so."""
        branches = [_linears(branch) for branch in self.branches]
        trunk = _linears(self.trunk)
        draw(chain(*branches, trunk), self.options.init, seed)
        self.start_sigma()
        if self.options.centre:
            *inputs, target = medians(batches(), lambda b: [*self._inputs(b), bridged(*b.wanted)])
            firsts = [branch[0] for branch in branches]
            centre(zip(firsts, inputs, strict=True), trunk[-1], target)

    def _inputs(self, batch: Batch) -> list[Tensor]:
        return [self.seen(batch.x[:, part], batch.weight[:, part])[:, 0] for part in self.parts]


def _linears(found: nn.Module) -> list[nn.Linear]:
    return [cast(nn.Linear, linear) for linear in cast(nn.ModuleList, found)]


def _part(grid: Grid, window: tuple[float, float]) -> slice:
    """Pixels of a window.

    Raises
    ------
    ValueError
        When the grid does not hold it.
    """
    low, high = window
    first, last = grid.edges[[0, -1]]
    inside = np.searchsorted(grid.wavelength, window)
    if low < first or high > last or inside[0] == inside[1]:
        raise ValueError(
            f"windows: {low:g}-{high:g} A on a frame of {first:g}-{last:g} A in {grid.size} "
            "pixels; expected windows inside the frame that hold a pixel: set [options] windows"
        )
    return slice(int(inside[0]), int(inside[1]))


def build(grid: Grid, **options: object) -> Windows:
    """A network of windows on a grid.

    Raises
    ------
    ValueError
        When an option is unknown, or the grid does not hold the windows.
    """
    return Windows(grid, Options.model_validate(options))
