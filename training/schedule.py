"""Schedules: the optimiser, how its step size changes, and when to stop."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

Name = Literal["plateau", "constant", "onecycle"]


class Descent(BaseModel):
    """How a model that learns by gradient goes downhill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimiser: Literal["adam"] = "adam"
    "Adam with betas (0.9, 0.999) and no weight decay."
    lr: PositiveFloat = 1e-4
    "Step size; the largest one, for 'onecycle'."
    schedule: Name = "plateau"
    "'plateau' shrinks the step when the validation loss stalls; 'onecycle' moves it every batch."
    factor: float = Field(default=0.78, gt=0, lt=1)
    "Of 'plateau': what the step is multiplied by."
    stall: NonNegativeInt = 4
    "Of 'plateau': epochs without a better validation loss that are borne."
    min_lr: NonNegativeFloat = 1e-7
    "Of 'plateau': the smallest step."
    clip: NonNegativeFloat = 0.0
    "Largest norm of the gradient; 0 is no limit."


class Schedule:
    """An optimiser and its step size through the epochs; `state` is all of it, but the moments."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], descent: Descent, epochs: int, batches: int
    ) -> None:
        # The fused step takes 31 ms for FS where the plain one takes 435 ms on two cores.
        self.optimiser: Optimizer = torch.optim.Adam(parameters, lr=descent.lr, fused=True)
        self.parameters, self.clip = parameters, descent.clip
        self.plateau: ReduceLROnPlateau | None = None
        self.cycle: OneCycleLR | None = None
        if descent.schedule == "plateau":
            self.plateau = ReduceLROnPlateau(
                self.optimiser,
                factor=descent.factor,
                patience=descent.stall,
                min_lr=descent.min_lr,
                # The default asks for a gain of 1e-4 of the loss; a long run gains less each time.
                threshold=0.0,
            )
        if descent.schedule == "onecycle":
            self.cycle = OneCycleLR(
                self.optimiser, max_lr=descent.lr, total_steps=max(epochs * batches, 1)
            )

    @property
    def lr(self) -> float:
        """Step size now."""
        return float(self.optimiser.param_groups[0]["lr"])

    def step(self, loss: torch.Tensor) -> None:
        """One batch: descend."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        # Of several ranks' shares, one epoch's may hold a batch more than another's.
        if self.cycle is not None and self.cycle.last_epoch < self.cycle.total_steps - 1:
            self.cycle.step()

    def epoch(self, validation: float) -> None:
        """An epoch is over."""
        if self.plateau is not None:
            self.plateau.step(validation)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain numbers that `restore` continues from."""
        found = self.optimiser.state_dict()
        tensors = {
            f"{number}.{name}": value
            for number, moments in found["state"].items()
            for name, value in moments.items()
        }
        follow = self.plateau or self.cycle
        numbers = {} if follow is None else _plain(follow.state_dict())
        return tensors, {"groups": found["param_groups"], "follow": numbers}

    def restore(self, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".", maxsplit=1)
            moments.setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict({"state": moments, "param_groups": numbers["groups"]})
        follow = self.plateau or self.cycle
        if follow is not None:
            follow.load_state_dict(numbers["follow"])


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """What of a scheduler's state is numbers, names and lists of them; JSON can hold it."""
    kinds = (int, float, str, bool, list, type(None))
    return {key: value for key, value in state.items() if isinstance(value, kinds)}
