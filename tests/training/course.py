"""Course: something small to learn, the plain loop that learns it, and a model that draws."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.grid import Grid
from training.batch import Batch
from training.frame import Frame
from training.loop import loop
from training.model import Denoiser, Output
from training.recipe import ModelCard
from training.source import ArraySource
from training.state import State
from training.task import Task

GRID = Grid(kind="linear", start=4000, step=2, size=150)
FRAME = Frame(
    name="t", grid=Grid(kind="linear", start=4005, step=2, size=140), window=(4010, 4280), dust=None
)
DRAWS = "tests.training.course"
"The model of this file, as a card names it."


def task(model: str = "dense", n: int = 300, **fit: Any) -> Task:
    """Learn spectra of one varying component; the last 60 rows are watched."""
    random = np.random.default_rng(0)
    shape = np.sin(GRID.wavelength / 20)
    truth = 1 + 0.3 * random.normal(size=(n, 1)) * shape
    flux = (truth + 0.1 * random.normal(size=truth.shape)).astype("f4")
    arrays = {"flux": flux, "ivar": np.full_like(flux, 100), "z": np.zeros(n), "ebv": np.zeros(n)}
    options = {
        "dense": {"widths": [140, 24, 4, 24, 140]},
        "ppca": {"components": 3},
    }.get(model, {})
    how = {"epochs": 6, "batch_size": 32, "lr": 1e-3} | fit
    return Task(
        card=ModelCard.parse({"model": model, "options": options, "fit": how}),
        source=ArraySource(grid=GRID, arrays=arrays, chunk=50),
        frame=FRAME,
        train=np.arange(n - 60),
        val=np.arange(n - 60, n),
    )


def learn(
    work: Task, state: State | None = None, rank: int = 0, world: int = 1, **how: Any
) -> State:
    """The plain loop, without Ray."""
    return loop(
        work.card.build(FRAME.grid),
        work.batches("train", rank, world),
        work.batches("val", rank, world),
        work.card.fit,
        state=state,
        **how,
    )


def longer(work: Task, **fit: Any) -> Task:
    """The same with another way of learning."""
    card = work.card.model_copy(update={"fit": work.card.fit.model_copy(update=fit)})
    return replace(work, card=card)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To the bit."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name].cpu(), value.cpu()), name


def assert_alike(actual: State, expected: State) -> None:
    """To the bit, but for what the clock said."""
    for part in ("model", "best", "moments"):
        assert_same(getattr(actual, part), getattr(expected, part))
    # A file has lists where memory may have tuples.
    assert json.dumps(actual.schedule) == json.dumps(expected.schedule)
    assert actual.precision == expected.precision
    told = ("epoch", "train", "val", "lr")
    assert [[r[key] for key in told] for r in actual.history] == [
        [r[key] for key in told] for r in expected.history
    ]


class Drawing(Denoiser):
    """A network with random draws, and with running means over batches."""

    fit = "gradient"

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(pixels, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(16, pixels),
        )

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        made = self.net(x)
        if self.training:
            made = made + 0.01 * torch.randn_like(made)
        return Output(made)

    def loss(self, batch: Batch) -> Tensor:
        return (self(batch.x, batch.weight, batch.z).flux - batch.x).abs().mean()


def build(grid: Grid, **options: object) -> Drawing:
    """What a shelf's module has."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Drawing(grid.size)
