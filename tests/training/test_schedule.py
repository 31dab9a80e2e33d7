"""Schedules against sequences worked out by hand, and against PyTorch's own."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.course import learn, task
from training.descent import Descent
from training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")


def made(epochs: int = 10, batches: int = 1, **descent: Any) -> tuple[Schedule, nn.Parameter]:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    return Schedule([weight], Descent(lr=1.0, **descent), epochs, batches), weight


def steps(schedule: Schedule, losses: list[float]) -> list[float]:
    """The step size of each epoch, and of the one after."""
    found = [schedule.lr]
    for loss in losses:
        schedule.epoch(loss)
        found.append(schedule.lr)
    return found


def test_sgd_is_plain() -> None:
    schedule, weight = made(optimiser="sgd", schedule="constant")
    for _ in range(2):
        schedule.step((weight * torch.tensor([0.25, -0.5])).sum())
    # Neither momentum nor decay: twice the step, the gradient being the same.
    assert weight.tolist() == [1 - 2 * 0.25, 2 + 2 * 0.5]


def test_adam_is_that_of_its_paper() -> None:
    schedule, weight = made(schedule="constant")
    gradients, m, v, expected = [0.5, -1.5, 2.0], 0.0, 0.0, 1.0
    for t, g in enumerate(gradients, 1):
        schedule.step(weight[0] * g)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected -= (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert weight[0].item() == pytest.approx(expected, abs=1e-6)


def test_a_long_gradient_is_cut_to_its_length() -> None:
    schedule, weight = made(optimiser="sgd", schedule="constant", clip=0.5)
    schedule.step((weight * torch.tensor([3.0, 4.0])).sum())
    assert weight.tolist() == pytest.approx([1 - 0.3, 2 - 0.4], abs=1e-5)


def test_plateau_bears_its_patience() -> None:
    schedule, _ = made(schedule="plateau", factor=0.78, stall=2, min_lr=0.5)
    #         best  best  1    2    3: shrink; best; 1, 2, 3: shrink to the least
    losses = [1.0, 0.9, 0.9, 1.0, 0.95, 0.8, 0.9, 0.9, 0.9, 0.7]
    expected = [1, 1, 1, 1, 1, 0.78, 0.78, 0.78, 0.78, 0.6084, 0.6084]
    assert steps(schedule, losses) == pytest.approx(expected)
    assert steps(schedule, [0.9] * 3)[-1] == 0.5


def test_a_loss_is_better_by_more_than_the_threshold() -> None:
    """As of Keras: `min_delta` is of the loss itself, and the best one has to have it to count."""
    losses = [0.5, 0.46, 0.42, 0.41, 0.37]
    # .46 is not better than .5 by enough, .42 is; .41 is not better than that, .37 is.
    for threshold, expected in ((0.045, [1, 1, 0.5, 0.5, 0.25, 0.25]), (0.0, [1.0] * 6)):
        schedule, _ = made(schedule="plateau", factor=0.5, stall=0, threshold=threshold)
        assert steps(schedule, losses) == pytest.approx(expected)
    assert "threshold" not in Descent().model_dump()


def test_plateau_by_itself_is_that_of_camilleri() -> None:
    fit = Descent()
    assert (fit.optimiser, fit.lr, fit.schedule) == ("adam", 1e-4, "plateau")
    assert (fit.factor, fit.stall, fit.min_lr) == (0.78, 4, 1e-7)


def test_onecycle_rises_and_falls_as_a_cosine() -> None:
    """From 1/25 up to 1 in 30 % of the batches, then down to 1e-4 of where it began."""
    epochs, batches = 4, 25
    schedule, weight = made(epochs, batches, schedule="onecycle")
    found = []
    for _ in range(epochs * batches):
        found.append(schedule.lr)
        schedule.step(weight.sum())
    top, last = 0.3 * 100 - 1, 99

    def cosine(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    expected = [
        cosine(1 / 25, 1, i / top) if i <= top else cosine(1, 4e-6, (i - top) / (last - top))
        for i in range(100)
    ]
    assert found == pytest.approx(expected, rel=1e-9)
    assert schedule.lr == found[-1]


def test_onecycle_goes_with_plain_descent_too() -> None:
    schedule, weight = made(schedule="onecycle", optimiser="sgd")
    schedule.step(weight.sum())
    assert weight[0].item() == pytest.approx(1 - 1 / 25)


@pytest.mark.parametrize(("every", "factor"), [(150, 0.5), (200, 0.1), (1, 0.9)])
def test_steps_are_those_of_pytorch(every: int, factor: float) -> None:
    schedule, _ = made(schedule="step", every=every, factor=factor, min_lr=0)
    peer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.StepLR(peer, step_size=every, gamma=factor)
    expected = [1.0]
    for _ in range(320):
        peer.step()
        theirs.step()
        expected.append(peer.param_groups[0]["lr"])
    assert steps(schedule, [1.0] * 320) == expected


def test_steps_halve_by_themselves_and_end_at_the_least() -> None:
    schedule, _ = made(schedule="step", every=2, min_lr=0.3)
    assert steps(schedule, [1.0] * 6) == [1, 1, 0.5, 0.5, 0.3, 0.3, 0.3]


def test_relative_by_itself_is_that_of_scourfield() -> None:
    fit = Descent(schedule="relative")
    assert (fit.factor, fit.gain, fit.stall, fit.min_epochs) == (0.1, 0.1, 5, 50)
    assert Descent(schedule="relative", stall=7, min_epochs=0).stall == 7


def test_relative_wants_a_tenth_within_five_epochs() -> None:
    schedule, _ = made(schedule="relative", min_epochs=0)
    # 95 is no drop of a tenth from 100; 90 is one, in the fifth epoch: nothing happens.
    assert steps(schedule, [100, 95, 95, 95, 95, 90])[-1] == 1.0
    # From 90 on the mark is 81: five epochs above it shrink the step,
    assert steps(schedule, [85, 84, 83, 82, 82]) == pytest.approx([1, 1, 1, 1, 1, 0.1])
    assert not schedule.over
    # a drop forgives that,
    assert steps(schedule, [81, 80, 80, 80, 80, 80])[-1] == pytest.approx(0.01)
    assert not schedule.over
    # five more without one shrink it, and the next five end it.
    steps(schedule, [80] * 4)
    assert not schedule.over
    steps(schedule, [80])
    assert schedule.over


def test_relative_does_not_count_before_its_time() -> None:
    schedule, _ = made(schedule="relative", stall=2, min_epochs=6)
    # The mark is the best of the first six: 50, so 46 is no drop of a tenth and 45 is one.
    assert steps(schedule, [100, 100, 100, 100, 100, 50, 46, 45, 45, 45])[-3:] == [1, 1, 0.1]


def test_relative_counts_below_zero() -> None:
    """Where likelihoods are, a tenth of -100 is 10."""
    schedule, _ = made(schedule="relative", stall=1, min_epochs=0)
    assert steps(schedule, [-100, -110, -120, -121]) == [1, 1, 1, 0.1, 0.1]


@pytest.mark.parametrize("name", ["plateau", "constant", "onecycle", "relative", "step"])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_schedule_goes_on_where_it_was(name: Any, optimiser: Any) -> None:
    how = {"schedule": name, "optimiser": optimiser, "stall": 1, "every": 2, "min_epochs": 0}
    losses = [1.0, 1.0, 0.99, 0.98, 0.5, 0.5, 0.5, 0.5]

    def run(schedule: Schedule, weight: nn.Parameter, some: list[float]) -> list[float]:
        found = []
        for loss in some:
            schedule.step((weight**2).sum())
            schedule.epoch(loss)
            found += [schedule.lr, *weight.tolist(), float(schedule.over)]
        return found

    whole = run(*made(**how), losses)
    first, weight = made(**how)
    begun = run(first, weight, losses[:3])
    second, other = made(**how)
    other.data.copy_(weight.data)
    second.restore(*first.state())
    assert begun + run(second, other, losses[3:]) == whole


def test_a_cycle_of_another_length_is_not_gone_on_with() -> None:
    first, weight = made(4, 25, schedule="onecycle")
    first.step(weight.sum())
    other, _ = made(4, 13, schedule="onecycle")
    with pytest.raises(ValueError, match=r"a cycle of 100 steps was begun, and this one is of 52"):
        other.restore(*first.state())


def test_relative_ends_a_run() -> None:
    how = {"schedule": "relative", "gain": 0.99, "stall": 2, "min_epochs": 3}
    last = learn(task(epochs=100, **how))
    # Nothing drops by 99 %: two epochs after the third the step shrinks, two later all ends.
    assert [record["lr"] for record in last.history] == pytest.approx([1e-3] * 5 + [1e-4] * 2)
    assert learn(task(epochs=100, **how), state=last) is last


def test_patience_ends_a_run_that_gets_no_better() -> None:
    last = learn(task(lr=0.3, epochs=200, schedule="constant", patience=3))
    assert last.epoch == last.best_epoch + 3 < 200


def test_patience_begins_after_the_first_epochs() -> None:
    how = {"lr": 0.3, "epochs": 200, "schedule": "constant", "patience": 3}
    assert learn(task(**how)).epoch < 25
    last = learn(task(**how, min_epochs=25))
    assert last.epoch == max(last.best_epoch, 25) + 3


def test_plateau_shrinks_the_step_to_its_least() -> None:
    last = learn(task(lr=0.3, epochs=12, stall=0, factor=0.1, min_lr=0.2, clip=1.0))
    assert {round(record["lr"], 12) for record in last.history} == {0.3, 0.2}
