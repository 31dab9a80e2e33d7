"""Learners: how one epoch teaches a model, by the gradient of its loss or by sums over all batches.

What a rank has learnt of an epoch so far is in `sums`, so that an epoch can be left and entered
anywhere.
"""

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import rounding
from training.batch import Batch
from training.model import Denoiser
from training.recipe import Fit
from training.schedule import Schedule
from training.state import State, Tensors

Wrap = Callable[[nn.Module], nn.Module]
_Some = tuple[Tensor, ...] | list[Tensor]
MODEL = "model/"
"What the names of a model's own sums begin with."
MEAN = "mean/"
"What the names of a model's mean weights begin with, among the moments."


class Learner(Protocol):
    """Teaches a model; every rank has one."""

    sums: Tensors
    "Of this rank's batches of the epoch."

    @property
    def shown(self) -> Denoiser:
        """What is watched and kept: the model, or one of its mean weights."""
        ...

    @property
    def lr(self) -> float:
        """Step size now; 0 where there is none."""
        ...

    @property
    def loss(self) -> float | None:
        """Mean loss of this rank's batches, if there is one before the epoch is over."""
        ...

    def learn(self, batch: Batch, taken: str) -> None:
        """One batch, its products rounded so."""
        ...

    def end(self, total: Tensors) -> float:
        """The epoch is over; from the sums of all ranks, what it was worth."""
        ...

    def judge(self, loss: float) -> None:
        """What the watched loss came to."""
        ...

    def kept(self) -> tuple[Tensors, dict[str, Any]]:
        """Tensors and numbers of the way down, for the state."""
        ...


class Gradient:
    """Learns by the gradient of `loss`."""

    sums: Tensors

    def __init__(self, model: Denoiser, fit: Fit, batches: int, state: State, wrap: Wrap) -> None:
        self.sums, self.model = {}, model
        self.module = wrap(_Loss(model))
        self.schedule = Schedule(list(model.parameters()), fit, fit.epochs, batches)
        self.mean = _mean(model, fit.average)
        if state.schedule:
            moments = dict(state.moments)
            if self.mean is not None:
                names = self.mean.state_dict()
                self.mean.load_state_dict({name: moments.pop(f"{MEAN}{name}") for name in names})
            self.schedule.restore(moments, state.schedule)

    @property
    def shown(self) -> Denoiser:
        """The model, or one of its mean weights."""
        if self.mean is None:
            return self.model
        return cast(Denoiser, self.mean.module)

    @property
    def lr(self) -> float:
        """Step size now."""
        return self.schedule.lr

    @property
    def loss(self) -> float | None:
        """Mean loss of this rank's batches."""
        return _ratio(self.sums) if self.sums else None

    def learn(self, batch: Batch, taken: str) -> None:
        """One step down."""
        with rounding.forward(taken, batch.x.device):
            loss = self.module(batch)
        self.schedule.step(loss)
        if self.mean is not None:
            self.mean.update_parameters(self.model)
        count = spectra(batch)
        add(self.sums, {"loss": loss.detach().double() * count, "spectra": count})

    def end(self, total: Tensors) -> float:
        """Mean loss over the spectra of all ranks."""
        return _ratio(total)

    def judge(self, loss: float) -> None:
        """The step size may change."""
        self.schedule.epoch(loss)

    def kept(self) -> tuple[Tensors, dict[str, Any]]:
        """Moments, the mean weights among them, and where the schedule stands."""
        moments, numbers = self.schedule.state()
        if self.mean is not None:
            moments |= {f"{MEAN}{name}": value for name, value in self.mean.state_dict().items()}
        return moments, numbers


class Sums:
    """Learns by sums over all batches, of all ranks, and one update an epoch."""

    sums: Tensors
    lr = 0.0
    loss = None

    def __init__(self, model: Denoiser) -> None:
        self.model, self.sums = model, {}

    @property
    def shown(self) -> Denoiser:
        """The model."""
        return self.model

    @torch.no_grad()
    def learn(self, batch: Batch, taken: str) -> None:
        """A batch more."""
        found = self.model.accumulate(batch)
        named = {f"{MODEL}{name}": value.double() for name, value in found.items()}
        add(self.sums, {**named, "spectra": spectra(batch)})

    @torch.no_grad()
    def end(self, total: Tensors) -> float:
        """The objective."""
        named = {name.removeprefix(MODEL): total[name] for name in total if name.startswith(MODEL)}
        return self.model.update(named)

    def judge(self, loss: float) -> None:
        """Nothing depends on it."""

    def kept(self) -> tuple[Tensors, dict[str, Any]]:
        """Nothing but the model itself."""
        return {}, {}


class _Loss(nn.Module):
    """The loss as a forward pass, which is what averaging over ranks hooks into."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.loss(batch)


def _mean(model: Denoiser, kept: float) -> AveragedModel | None:
    """The running mean of a model's weights and buffers, as yet of none."""
    if not kept:
        return None
    averaged = get_ema_multi_avg_fn(kept)  # type: ignore[no-untyped-call]  # torch leaves it so

    def step(mean: _Some, now: _Some, count: Tensor | int) -> None:
        """Tensors of one type."""
        if mean[0].is_floating_point():
            averaged(mean, now, count)
        else:
            # Of places and counts there is no mean.
            torch._foreach_copy_(mean, now)

    return AveragedModel(model, multi_avg_fn=step, use_buffers=True)


def add(total: Tensors, found: Tensors) -> None:
    """Add by name, in place."""
    for name, value in found.items():
        if name in total:
            total[name] += value
        else:
            total[name] = value


def spectra(batch: Batch) -> Tensor:
    """How many, for a mean over batches and ranks."""
    # Not torch.tensor: a GPU would be waited for.
    return torch.full((), len(batch.x), dtype=torch.float64, device=batch.x.device)


def _ratio(total: Tensors) -> float:
    return float(total["loss"] / total["spectra"])
