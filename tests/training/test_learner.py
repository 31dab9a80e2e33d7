"""Learners: what is averaged of a network, and what of it is learnt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.course import FRAME, learn, longer, task
from training import learner
from training.frames import named
from training.progress import Step
from training.recipe import ModelCard
from training.task import Task

CARDS = Path(__file__).resolve().parents[2] / "deploy/cards/models"
pytestmark = pytest.mark.usefixtures("one_thread")


def less_continuum(**fit: Any) -> Task:
    """A network that looks up the places of knots in a table of integers."""
    work = task(epochs=2, batch_size=30, schedule="constant", **fit)
    options = work.card.options | {"continuum": "subtract", "activation": "prelu"}
    return replace(work, card=work.card.model_copy(update={"options": options}))


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.95, 0.993, 0.9995])
def test_of_what_is_no_number_there_is_no_mean(kept: float) -> None:
    shown: dict[str, torch.Tensor] = {}

    def tell(step: Step) -> None:
        shown.update(step.learner.shown.named_buffers())

    learn(less_continuum(average=kept), tell=tell)
    built = dict(less_continuum().card.build(FRAME.grid).named_buffers())
    assert built["continuum.left"].dtype == torch.int64
    assert built["continuum.counts"].dtype == torch.bool
    assert shown.keys() == built.keys()
    for name, value in built.items():
        assert torch.equal(shown[name], value), name


def test_what_is_watched_is_what_is_kept() -> None:
    """Of a network with tables: the loss of the weights that were saved, opened anew."""
    work = less_continuum(average=0.9, lr=5e-3)
    last = learn(work)
    model = work.card.build(FRAME.grid).eval()
    model.load_state_dict(last.best)
    (whole,) = longer(work, batch_size=10_000).batches("val").epoch(0)
    with torch.no_grad():
        expected = float(model.loss(whole))
    assert min(record["val"] for record in last.history) == pytest.approx(expected, rel=1e-5)


def test_how_many_spectra_is_a_sum_like_any() -> None:
    (whole,) = task(batch_size=10_000).batches("train").epoch(0)
    count = learner.spectra(whole)
    assert (count.dtype, count.shape, count.item()) == (torch.float64, (), 240)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_gpu_is_not_waited_for_to_count_spectra() -> None:
    (whole,) = task(batch_size=10_000).batches("train").epoch(0)
    there = replace(whole, x=whole.x.cuda())
    torch.cuda.set_sync_debug_mode("error")
    try:
        count = learner.spectra(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert count.item() == 240


@pytest.mark.parametrize(
    ("card", "count"),
    # The running means and variances of 24 layers beside them are not learnt by gradient.
    [("unet", 10_818_241), ("fs", 37_825_860), ("dae", 45_270_016)],
)
def test_what_is_learnt_is_counted(card: str, count: int) -> None:
    made = ModelCard.load(CARDS / f"{card}.toml")
    assert made.build(named(made.frame or "fs").grid).parameters_count() == count


def test_by_sums_all_that_is_kept_is_learnt() -> None:
    model = task("ppca").card.build(FRAME.grid)
    # Mean, scatter and doubt of each pixel, and three components.
    assert model.parameters_count() == FRAME.grid.size * (3 + 3)
