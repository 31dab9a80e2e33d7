"""The training loop, by gradient or by sums, in one process or as one rank of several.

Ray is not needed here: `training.fit` runs this function in its workers.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from training import losses
from training.batch import Batch, move
from training.batches import Batches
from training.model import Denoiser
from training.recipe import Fit
from training.schedule import Schedule
from training.state import Record, State

Report = Callable[[State], None]


def loop(
    model: Denoiser,
    train: Batches,
    val: Batches | None,
    fit: Fit,
    *,
    state: State | None = None,
    report: Report = lambda state: None,
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
        Where an earlier run stopped: finished epochs are not done again.
    report : callable
        Told the state after every epoch, on every rank.
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
    step = _Gradient if model.fit == "gradient" else _Sums
    way = step(model, train, fit, state, wrap, device)
    while state.epoch < fit.epochs and not _stalled(state, fit, model.fit):
        began = time.perf_counter()
        # Seeded anew each epoch, a model that draws random numbers needs no saved generator.
        with torch.random.fork_rng(devices=[]), _precision(fit, model.fit):
            torch.manual_seed(_seed(fit.seed, state.epoch, train.rank))
            loss = way.epoch(state.epoch)
            seen = loss if val is None else watch(model, val, device)
        _refuse_infinite(loss, seen, state.epoch)
        record = {"epoch": state.epoch + 1, "train": loss, "val": seen, "lr": way.lr}
        record["seconds"] = time.perf_counter() - began
        state = way.state(state, record)
        report(state)
    return state


def start(model: Denoiser, train: Batches, seed: int, device: torch.device) -> None:
    """Give the model its starting state, the same on every rank."""
    whole = replace(train, rank=0, world=1, drop_last=False)
    model.start(lambda: (move(batch, device) for batch in whole.epoch(0)), seed)
    if _ranks() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, src=0)


@torch.no_grad()
def watch(model: Denoiser, val: Batches, device: torch.device) -> float:
    """Mean of the model's loss over the validation rows; of |output - input|, by sums."""
    model.eval()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for batch in (move(batch, device) for batch in val.epoch(0)):
        if model.fit == "gradient":
            loss = model.loss(batch)
        else:
            loss = losses.mae(model(batch.x, batch.weight, batch.z), *batch.wanted)
        total += _counted(loss, batch)
    model.train()
    return _ratio(_all_sum(total))


class _Gradient:
    """Learns by the gradient of `loss`."""

    def __init__(
        self,
        model: Denoiser,
        train: Batches,
        fit: Fit,
        state: State,
        wrap: Callable[[nn.Module], nn.Module],
        device: torch.device,
    ) -> None:
        self.model, self.train, self.device = model, train, device
        self.module = wrap(_Loss(model))
        self.schedule = Schedule(list(model.parameters()), fit, fit.epochs, len(train))
        if state.epoch:
            self.schedule.restore(state.moments, state.schedule)

    @property
    def lr(self) -> float:
        return self.schedule.lr

    def epoch(self, number: int) -> float:
        self.model.train()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for batch in self.train.epoch(number):
            loss = self.module(move(batch, self.device))
            self.schedule.step(loss)
            total += _counted(loss.detach(), batch)
        return _ratio(_all_sum(total))

    def state(self, before: State, record: Record) -> State:
        self.schedule.epoch(record["val"])
        moments, numbers = self.schedule.state()
        now = self.model.state_dict()
        known = [old["val"] for old in before.history]
        better = not known or record["val"] < min(known)
        best = {name: value.clone() for name, value in now.items()} if better else before.best
        return State(
            epoch=before.epoch + 1,
            model=now,
            best=best,
            history=[*before.history, record],
            moments=moments,
            schedule=numbers,
        )


class _Sums:
    """Learns by sums over all batches, of all ranks, and one update an epoch."""

    lr = 0.0

    def __init__(
        self,
        model: Denoiser,
        train: Batches,
        fit: Fit,
        state: State,
        wrap: Callable[[nn.Module], nn.Module],
        device: torch.device,
    ) -> None:
        self.model, self.train, self.device = model, train, device

    @torch.no_grad()
    def epoch(self, number: int) -> float:
        total: dict[str, Tensor] = {}
        for batch in self.train.epoch(number):
            for name, value in self.model.accumulate(move(batch, self.device)).items():
                if name in total:
                    total[name] += value
                else:
                    total[name] = value.double()
        return self.model.update({name: _all_sum(value) for name, value in total.items()})

    def state(self, before: State, record: Record) -> State:
        now = self.model.state_dict()
        return State(epoch=before.epoch + 1, model=now, best=now, history=[*before.history, record])


class _Loss(nn.Module):
    """The loss as a forward pass, which is what averaging over ranks hooks into."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.loss(batch)


def _counted(loss: Tensor, batch: Batch) -> Tensor:
    """Loss times spectra, and spectra: what a mean over batches and ranks is made of."""
    count = torch.tensor(len(batch.x), dtype=torch.float64, device=loss.device)
    return torch.stack([loss.double() * count, count])


def _ratio(total: Tensor) -> float:
    return float(total[0] / total[1])


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _all_sum(value: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if _ranks() > 1:
        dist.all_reduce(value)
    return value


def _stalled(state: State, fit: Fit, way: str) -> bool:
    if way != "gradient" or not fit.patience or not state.history:
        return False
    return state.epoch - state.best_epoch >= fit.patience


def _refuse_infinite(train: float, val: float, epoch: int) -> None:
    if not all(abs(value) < float("inf") for value in (train, val)):
        raise FloatingPointError(
            f"epoch {epoch + 1}: the training loss is {train}, the validation loss {val}; "
            "use a smaller lr, or clip the gradient"
        )


@contextmanager
def _precision(fit: Fit, way: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(fit.precision if way == "gradient" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
