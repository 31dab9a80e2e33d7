"""Schedules: the optimiser, how its step size changes, and when it gives up."""

from typing import Any, Protocol

import torch
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from training.descent import Descent


class Follower(Protocol):
    """What changes the step size of an optimiser, after batches or after epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class Schedule:
    """An optimiser and its step size through the epochs; `state` is all of it."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], descent: Descent, epochs: int, batches: int
    ) -> None:
        self.optimiser = _optimiser(parameters, descent)
        self.parameters, self.clip = parameters, descent.clip
        self.follow = _follower(self.optimiser, descent, max(epochs * batches, 1))

    @property
    def lr(self) -> float:
        """Step size now."""
        return float(self.optimiser.param_groups[0]["lr"])

    @property
    def over(self) -> bool:
        """Whether the schedule has given up: no smaller step would help."""
        return isinstance(self.follow, Relative) and self.follow.over

    def step(self, loss: torch.Tensor) -> None:
        """One batch: descend."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        cycle = self.follow
        # The last batch is followed by no step.
        if isinstance(cycle, OneCycleLR) and cycle.last_epoch < cycle.total_steps - 1:
            cycle.step()

    def epoch(self, validation: float) -> None:
        """An epoch is over."""
        if isinstance(self.follow, (ReduceLROnPlateau, Relative, Stairs)):
            self.follow.step(validation)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain numbers that `restore` continues from."""
        found = self.optimiser.state_dict()
        tensors = {
            f"{number}.{name}": value
            for number, moments in found["state"].items()
            for name, value in moments.items()
            if value is not None
        }
        numbers = {} if self.follow is None else _plain(self.follow.state_dict())
        return tensors, {"groups": found["param_groups"], "follow": numbers, "over": self.over}

    def restore(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises
        ------
        ValueError
            When it was taken of a cycle of another length: it would break off, or never come down.
        """
        if isinstance(self.follow, OneCycleLR):
            asked, begun = self.follow.total_steps, numbers["follow"]["total_steps"]
            if asked != begun:
                raise ValueError(
                    f"a cycle of {begun} steps was begun, and this one is of {asked}: rows, "
                    "batches or workers are others; begin anew"
                )
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".", maxsplit=1)
            moments.setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": numbers["groups"]})
        if self.follow is not None:
            self.follow.load_state_dict(numbers["follow"])


class Stairs:
    """The step is multiplied every few epochs."""

    def __init__(self, optimiser: Optimizer, descent: Descent) -> None:
        self.optimiser, self.descent = optimiser, descent
        self.done = 0

    def step(self, validation: float) -> None:
        """An epoch is over, whatever came of it."""
        self.done += 1
        if self.done % self.descent.every == 0:
            _shrink(self.optimiser, self.descent)

    def state_dict(self) -> dict[str, Any]:
        """Epochs done."""
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.done = state_dict["done"]


class Relative:
    """The step shrinks when the loss has not dropped by a share for some epochs; then all ends.

    Every such drop is the mark for the next one, and forgives a step that was shrunk before it.
    """

    def __init__(self, optimiser: Optimizer, descent: Descent) -> None:
        self.optimiser, self.descent = optimiser, descent
        self.mark = float("inf")
        self.done = self.stale = 0
        self.shrunk = self.over = False

    def step(self, validation: float) -> None:
        """An epoch is over."""
        self.done += 1
        wanted = self.mark - self.descent.gain * abs(self.mark)
        # inf - inf is no number; the first loss is a drop all the same.
        if self.done == 1 or validation <= wanted:
            self.mark, self.stale, self.shrunk = validation, 0, False
        elif self.done <= self.descent.min_epochs:
            self.mark = min(self.mark, validation)
        else:
            self._wait()

    def _wait(self) -> None:
        self.stale += 1
        if self.stale < self.descent.stall:
            return
        if self.shrunk:
            self.over = True
        else:
            _shrink(self.optimiser, self.descent)
        self.stale, self.shrunk = 0, True

    def state_dict(self) -> dict[str, Any]:
        """The mark, and how long it has stood."""
        names = ("mark", "done", "stale", "shrunk", "over")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state_dict)


def _optimiser(parameters: list[torch.nn.Parameter], descent: Descent) -> Optimizer:
    # The fused step takes 31 ms for FS where the plain one takes 435 ms on two cores.
    kind = Adam if descent.optimiser == "adam" else SGD
    return kind(parameters, lr=descent.lr, fused=True)


def _follower(optimiser: Optimizer, descent: Descent, batches: int) -> Follower | None:
    match descent.schedule:
        case "plateau":
            return ReduceLROnPlateau(
                optimiser,
                factor=descent.factor,
                patience=descent.stall,
                min_lr=descent.min_lr,
                threshold=descent.threshold,
                # A share of the loss is PyTorch's way; Keras means the loss itself.
                threshold_mode="abs",
            )
        case "onecycle":
            cycled = descent.optimiser == "adam"
            return OneCycleLR(
                optimiser, max_lr=descent.lr, total_steps=batches, cycle_momentum=cycled
            )
        case "relative":
            return Relative(optimiser, descent)
        case "step":
            return Stairs(optimiser, descent)
        case "constant":
            return None


def _shrink(optimiser: Optimizer, descent: Descent) -> None:
    for group in optimiser.param_groups:
        group["lr"] = max(group["lr"] * descent.factor, min(descent.min_lr, group["lr"]))


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What of a scheduler's state is numbers, names and lists of them; JSON can hold it."""
    kinds = (int, float, str, bool, list, type(None))
    return {key: value for key, value in state.items() if isinstance(value, kinds)}
