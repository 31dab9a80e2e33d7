"""The training loop: what it learns, what it says of it, and when it ends."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.course import DRAWS, FRAME, assert_same, learn, task
from training.loop import loop
from training.progress import Step
from training.state import State

pytestmark = pytest.mark.usefixtures("one_thread")


def test_learning_is_seen_on_rows_it_did_not_see() -> None:
    history = learn(task(epochs=20, lr=5e-3)).history
    assert [record["epoch"] for record in history] == list(range(1, 21))
    # The noise alone is 0.1 sqrt(2 / pi) = 0.08; the component adds as much again.
    assert history[-1]["val"] < 0.09 < history[0]["val"]


def test_best_is_the_epoch_of_the_lowest_validation_loss() -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def keep(state: State) -> None:
        seen[state.epoch] = {name: value.clone() for name, value in state.model.items()}

    last = learn(task(lr=0.1, epochs=8, schedule="constant"), report=keep)
    vals = [record["val"] for record in last.history]
    assert last.best_epoch == 1 + int(np.argmin(vals))
    assert_same(last.best, seen[last.best_epoch])


def test_the_mean_of_the_weights_is_watched_and_kept() -> None:
    mean: dict[str, torch.Tensor] = {}

    def tell(step: Step) -> None:
        for name, value in step.learner.model.state_dict().items():
            before = mean.get(name, value)
            mean[name] = 0.8 * before + 0.2 * value

    work = task(lr=0.02, epochs=1, schedule="constant", batch_size=20, average=0.8)
    last = learn(work, tell=tell)
    for name, value in last.best.items():
        torch.testing.assert_close(value, mean[name])
        assert not torch.equal(value, last.model[name])
    model = work.card.build(FRAME.grid)
    model.load_state_dict(mean)
    (whole,) = task(batch_size=10_000).batches("val").epoch(0)
    with torch.no_grad():
        expected = float(model.loss(whole))
    assert last.history[0]["val"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(FloatingPointError, match=r"epoch 1: .* use a smaller lr"):
        learn(task(lr=1e20, schedule="constant"))


def test_without_rows_to_watch_the_training_loss_is_watched() -> None:
    work = task(epochs=2)
    last = loop(work.card.build(FRAME.grid), work.batches("train"), None, work.card.fit)
    assert all(record["val"] == record["train"] for record in last.history)


def test_the_training_loss_is_the_mean_over_spectra() -> None:
    """Of a model that hardly moves, the last batch being a half one."""
    work = task(epochs=1, lr=1e-12, batch_size=160)
    last = learn(work)
    model = work.card.build(FRAME.grid)
    model.load_state_dict(last.model)
    (whole,) = task(batch_size=240).batches("train").epoch(0)
    with torch.no_grad():
        expected = float(model.loss(whole))
    assert last.history[0]["train"] == pytest.approx(expected, rel=1e-5)


def test_every_batch_is_told() -> None:
    told: list[dict[str, float]] = []

    def tell(step: Step) -> None:
        told.append(step.record())

    last = learn(task(epochs=2, batch_size=100), tell=tell)
    assert [(one["epoch"], one["batch"], one["batches"]) for one in told] == [
        *((1, batch, 3) for batch in (1, 2, 3)),
        *((2, batch, 3) for batch in (1, 2, 3)),
    ]
    for end, record in zip(told[2::3], last.history, strict=True):
        assert end["train"] == pytest.approx(record["train"])
        assert end["spectra_per_s"] * end["seconds"] == pytest.approx(240)


def test_draws_differ_from_batch_to_batch_and_from_epoch_to_epoch() -> None:
    drawn: list[float] = []
    learn(task(DRAWS, epochs=2, batch_size=120), tell=lambda step: drawn.append(torch.rand(1)))
    assert len({float(one) for one in drawn}) == 4


def test_what_others_draw_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learn(task(DRAWS, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_another_seed_draws_otherwise() -> None:
    first, second = (learn(task(DRAWS, epochs=1, seed=seed)).history for seed in (0, 1))
    assert first[0]["train"] != second[0]["train"]


def test_a_state_is_saved_as_often_as_is_asked(tmp_path: Path) -> None:
    def positions(**fit: float) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        learn(task(epochs=2, batch_size=120, **fit), report=lambda one: found.append(one.position))
        return found

    assert positions(save_s=300) == [(1, 0), (2, 0)]
    assert positions(save_s=0) == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
