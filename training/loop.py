"""The training loop, by gradient or by sums, in one process or as one rank of several.

Ray is not needed here: `training.fit` runs this function in its workers. A state is all that the
next batch depends on, so a run that is stopped between any two batches goes on to the same bits.
"""

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from training import losses, ranks, rounding
from training.batch import Batch, move
from training.batches import Batches
from training.learner import Gradient, Learner, Sums, spectra
from training.model import Denoiser
from training.progress import Step
from training.recipe import Fit
from training.state import Record, State, Tensors

logger = logging.getLogger(__name__)

Report = Callable[[State], None]
Tell = Callable[[Step], None]

TOGETHER = 16
"Batches after which several ranks ask each other whether to save: each asking makes them wait."
LOOKED = 512
"Spectra that a precision is chosen by."


def loop(
    model: Denoiser,
    train: Batches,
    val: Batches | None,
    fit: Fit,
    *,
    state: State | None = None,
    report: Report = lambda state: None,
    tell: Tell = lambda step: None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    device: torch.device = torch.device("cpu"),  # noqa: B008  # a constant
) -> State:
    """Teach a model in place; gives the state after the last epoch.

    Parameters
    ----------
    model : Denoiser
        As built; it is started here unless a state is given.
    train, val : Batches
        Rows to learn from and rows to watch; without the latter the training loss is watched.
    state : State
        Where an earlier run stopped: finished batches are not done again.
    report : callable
        Told the state after every epoch, and every `fit.save_s` seconds, on every rank.
    tell : callable
        Told of every batch.
    wrap : callable
        Makes a module that averages its gradients over ranks.

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.
    """
    model.to(device)
    if state is None:
        start(model, train, fit.seed, device)
        state = State(epoch=0, model=model.state_dict(), best=model.state_dict())
    model.load_state_dict(state.model)
    batches = len(train)
    learner: Learner = Sums(model)
    if model.fit == "gradient":
        learner = Gradient(model, fit, batches, state, wrap)
    run = _Run(model, train, val, fit, learner, report, tell, device, batches)
    # Seeded anew at each batch, a model that draws random numbers needs no saved generator.
    with torch.random.fork_rng(devices=[]):
        while not over(state, fit):
            state = run.epoch(_placed(state))
            report(state)
    return state


def over(state: State, fit: Fit) -> bool:
    """Whether all epochs are done, or nothing better is to be expected of more."""
    if state.epoch >= fit.epochs or state.schedule.get("over", False):
        return True
    # By sums, there is no schedule.
    if not fit.patience or not state.schedule or not state.history:
        return False
    return state.epoch - max(state.best_epoch, fit.min_epochs) >= fit.patience


def start(model: Denoiser, train: Batches, seed: int, device: torch.device) -> None:
    """Give the model its starting state, the same on every rank."""
    whole = replace(train, rank=0, world=1, drop_last=False)
    model.start(lambda: (move(batch, device) for batch in whole.epoch(0)), seed)
    for value in model.state_dict().values():
        ranks.from_first(value)


@torch.no_grad()
def watch(model: Denoiser, val: Batches, device: torch.device) -> float:
    """Mean of the model's loss over the validation rows; of |output - target|, by sums."""
    model.eval()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in (move(batch, device) for batch in val.epoch(0)):
        if model.fit == "gradient":
            loss = model.loss(batch)
        else:
            loss = losses.mae(model(batch.x, batch.weight, batch.z), *batch.wanted)
        count = spectra(batch)
        total += torch.stack([loss.double() * count, count])
    model.train()
    total = ranks.all_sum(total)
    return float(total[0] / total[1])


@dataclass
class _Run:
    """What stays the same from epoch to epoch."""

    model: Denoiser
    train: Batches
    val: Batches | None
    fit: Fit
    learner: Learner
    report: Report
    tell: Tell
    device: torch.device
    batches: int
    "Of an epoch, for this rank."
    saved: float = field(default_factory=time.monotonic)

    def epoch(self, state: State) -> State:
        """The state after the epoch that a state stands in."""
        began = time.perf_counter() - state.seconds
        if not state.step:
            state = replace(state, precision=self._look(state))
        taken = state.precision["taken"]
        with rounding.products(taken, self.device):
            self._pass(state, began)
            total = {name: ranks.all_sum(value) for name, value in self.learner.sums.items()}
            # In this order: a GPU is done when it says how many.
            rate = float(total["spectra"]) / (time.perf_counter() - began)
            loss = self.learner.end(total)
            seen = self._watch(state, loss)
        _refuse_infinite(loss, seen, state.epoch)
        record = {"epoch": state.epoch + 1, "train": loss, "val": seen, "lr": self.learner.lr}
        record |= {"seconds": time.perf_counter() - began, "spectra_per_s": rate}
        self.learner.judge(seen)
        self.saved = time.monotonic()
        return self._after(state, record)

    def _pass(self, state: State, began: float) -> None:
        """The batches of an epoch, from where the state stands."""
        self.model.train()
        self.learner.sums = {name: value.to(self.device) for name, value in state.sums.items()}
        batches = self.train.epoch(state.epoch, first=state.step)
        for step in itertools.count(state.step + 1):
            batch = next(batches, None)
            if batch is not None:
                self._learn(state, step, batch, began)
            # By sums, one rank may have a batch more than another: none leaves before the last.
            if ranks.world() > 1 and step % TOGETHER:
                continue
            late = time.monotonic() - self.saved >= self.fit.save_s
            more, late = ranks.anyone(batch is not None, late, device=self.device)
            if not more:
                return
            if late:
                self.report(self._within(state, step, time.perf_counter() - began))
                self.saved = time.monotonic()

    def _learn(self, state: State, step: int, batch: Batch, began: float) -> None:
        torch.manual_seed(_seed(self.fit.seed, state.epoch, step, self.train.rank))
        self.learner.learn(move(batch, self.device), state.precision["taken"])
        self.tell(
            Step(
                epoch=state.epoch + 1,
                batch=step,
                batches=self.batches,
                seconds=time.perf_counter() - began,
                learner=self.learner,
            )
        )

    def _watch(self, state: State, loss: float) -> float:
        if self.val is None:
            return loss
        # Running means of a batch, which are of one rank's share, are those of the first rank.
        shown = self.learner.shown
        for value in (*self.model.buffers(), *shown.buffers()):
            ranks.from_first(value)
        torch.manual_seed(_seed(self.fit.seed, state.epoch, self.train.rank))
        with rounding.forward(state.precision["taken"], self.device):
            return watch(shown, self.val, self.device)

    def _look(self, state: State) -> dict[str, object]:
        return rounding.look(
            self.fit.precision, self.model, self._looked, self.train.frame.grid, state.precision
        )

    def _looked(self) -> Batch:
        whole = replace(self.train, rank=0, world=1, drop_last=False, shuffle=False)
        return next(replace(whole, batch_size=LOOKED).epoch(0))

    def _within(self, before: State, step: int, seconds: float) -> State:
        """The state after a batch."""
        now = self.model.state_dict()
        moments, schedule = self.learner.kept()
        known = before.history and self.model.fit == "gradient"
        return replace(
            before,
            model=now,
            best=before.best if known else now,
            moments=moments,
            schedule=schedule,
            step=step,
            sums={name: ranks.gather(value) for name, value in self.learner.sums.items()},
            seconds=seconds,
        )

    def _after(self, before: State, record: Record) -> State:
        """The state after an epoch."""
        now = self.model.state_dict()
        moments, schedule = self.learner.kept()
        best = now
        if self.model.fit == "gradient":
            known = [old["val"] for old in before.history]
            better = not known or record["val"] < min(known)
            best = _copied(self.learner.shown.state_dict()) if better else before.best
        return State(
            epoch=before.epoch + 1,
            model=now,
            best=best,
            history=[*before.history, record],
            moments=moments,
            schedule=schedule,
            precision=before.precision,
        )


def _placed(state: State) -> State:
    """A state with the sums of this rank; of other ranks than these, the epoch begins anew."""
    if not state.step:
        return state
    saved = len(next(iter(state.sums.values())))
    if saved != ranks.world():
        logger.warning(
            "%d ranks left epoch %d after %d batches, %d are here: it begins anew",
            saved,
            state.epoch + 1,
            state.step,
            ranks.world(),
        )
        return replace(state, step=0, sums={}, seconds=0.0)
    mine = {name: value[ranks.mine()].clone() for name, value in state.sums.items()}
    return replace(state, sums=mine)


def _copied(values: Tensors) -> Tensors:
    return {name: value.clone() for name, value in values.items()}


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _refuse_infinite(train: float, val: float, epoch: int) -> None:
    if not all(abs(value) < float("inf") for value in (train, val)):
        raise FloatingPointError(
            f"epoch {epoch + 1}: the training loss is {train}, the validation loss {val}; "
            "use a smaller lr, or clip the gradient"
        )
