"""The reduced cards of autoencoders and star networks learn what a mock survey has to teach."""

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from storage.grid import Grid
from storage.names import resolve
from training.augment import Augment
from training.batch import Batch, join
from training.frames import named
from training.loop import loop
from training.losses import sum_squares
from training.model import Denoiser, Output
from training.recipe import Fit, ModelCard
from training.source import Arrays, ArraySource
from training.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")

CARDS = Path(__file__).parents[2] / "deploy/cards"
# What the frames look at: a test spends no time on pixels that nobody sees.
GRIDS = {
    "star-v1": Grid(kind="log", start=3.848, step=1e-4, size=1010),
    "mock-v1": Grid(kind="log", start=3.565, step=1e-4, size=4150),
}
UNSEEN = 300


@cache
def survey(mock: str, n: int) -> Arrays:
    """The first `UNSEEN` are for the test."""
    options = tomllib.loads((CARDS / f"mocks/{mock}.toml").read_text())
    made = resolve("storage.mocks", options.pop("mock")).build(**options)
    truth = made.truth(n, GRIDS[mock], 1, "small")
    seen = made.observe(truth, GRIDS[mock], 1, "small")
    found = {name: seen[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")}
    return found | {"truth": truth["flux"].to_numpy()}


def task(how: ModelCard, mock: str, n: int) -> Task:
    return Task(
        card=how,
        source=ArraySource(grid=GRIDS[mock], arrays=survey(mock, n), chunk=100),
        frame=named(how.frame),
        train=np.arange(UNSEEN, n),
        val=np.arange(UNSEEN),
    )


def taught(work: Task) -> Denoiser:
    model = work.card.build(work.frame.grid)
    history = loop(model, work.batches("train"), work.batches("val"), work.card.fit).history
    assert history[-1]["val"] <= history[0]["val"]
    return model.eval().requires_grad_(False)


def unseen(work: Task) -> Batch:
    return join(list(work.batches("val").epoch(0)))


def mean_of(work: Task) -> Tensor:
    """The mean of what was wanted."""
    lesson = join(list(work.batches("train").epoch(0)))
    return lesson.wanted[0][lesson.ok].mean(0)


@pytest.mark.slow
@pytest.mark.parametrize(("card", "n"), [("dae-small", 900), ("unet-small", 500)])
def test_a_star_comes_nearer_to_its_truth(card: str, n: int) -> None:
    work = task(ModelCard.load(CARDS / f"models/{card}.toml"), "star-v1", n)
    model, mean, batch = taught(work), mean_of(work), unseen(work)
    arrays = {name: value[:UNSEEN] for name, value in survey("star-v1", n).items()}
    good = np.ma.masked_equal(arrays["ivar"], 0)
    snr = np.ma.median(arrays["truth"] * np.ma.sqrt(good), axis=1).filled(0)
    wanted, weight = batch.wanted
    rows = torch.from_numpy((snr > 5) & (snr < 15)) & batch.ok
    assert rows.sum() > 50
    pixels = rows[:, None] & (weight > 0)

    def off(flux: Tensor) -> float:
        """Mean |R|."""
        return float(((flux - wanted).abs() / wanted)[pixels].mean())

    output = off(model(batch.x, batch.weight, batch.z).flux)
    assert output < 0.7 * off(batch.x)
    assert output < 0.7 * off(mean.expand_as(wanted))


@pytest.mark.slow
@pytest.mark.parametrize("card", ["ae-small", "vae-small"])
def test_a_galaxy_comes_nearer_to_its_truth_than_by_components(card: str) -> None:
    how = ModelCard.load(CARDS / f"models/{card}.toml")
    work = task(how, "mock-v1", 1500)
    model, mean, batch = taught(work), mean_of(work), unseen(work)
    bare = how.model_copy(update={"augment": Augment(target="truth")})
    truth, known = unseen(replace(work, card=bare)).wanted
    linear = how.model_copy(
        update={"model": "pca", "options": {"components": 4}, "fit": Fit(epochs=1)}
    )
    components = taught(replace(work, card=linear))
    pixels = batch.ok[:, None] & (known > 0)

    def off(flux: Tensor) -> float:
        return float((flux - truth).abs()[pixels].mean())

    output = model(batch.x, batch.weight, batch.z)
    by_components = components(batch.x, batch.weight, batch.z)
    assert output.latent is not None
    assert output.latent.shape == (UNSEEN, 4)
    assert off(output.flux) < 0.7 * off(mean.expand_as(truth))
    assert off(output.flux) < off(by_components.flux)
    target, weight = batch.wanted
    softened = weight / (1 + 2e-6 * weight)
    constant = Output(flux=mean.expand_as(truth))
    losses = [float(sum_squares(o, target, softened)) for o in (output, by_components, constant)]
    assert losses[0] < losses[1] < losses[2]
