"""State: a training run between two batches, in memory and on disk; tensors and JSON, no pickle."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Record = dict[str, float]
"One epoch: epoch, train, val, lr, seconds, spectra_per_s."

FILE = "state.safetensors"
"Tensors, and in its header the numbers as JSON: one file is replaced whole."
NUMBERS = ("epoch", "step", "seconds", "history", "schedule", "precision")
PARTS = ("model", "moments", "sums")


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that the next batch depends on; random numbers are drawn anew for each."""

    epoch: int
    "Epochs done."
    model: Tensors
    "The model's state_dict, as it is now."
    best: Tensors
    "Its state_dict at the lowest validation loss; the same as `model` when it learns by sums."
    history: list[Record] = field(default_factory=list)
    "One record an epoch."
    moments: Tensors = field(default_factory=dict)
    "The optimiser's tensors."
    schedule: dict[str, Any] = field(default_factory=dict)
    "The optimiser's and the schedule's numbers."
    precision: dict[str, Any] = field(default_factory=dict)
    "How products are rounded, and what is known of it: `training.rounding.look`."
    step: int = 0
    "Batches done, by each rank, of the epoch that comes after `epoch`."
    sums: Tensors = field(default_factory=dict)
    "(ranks, ...) what those batches came to, for each rank."
    seconds: float = 0.0
    "What they took, s."

    @property
    def best_epoch(self) -> int:
        """Epoch, from 1, of the lowest validation loss; the first of equals."""
        return int(min(self.history, key=lambda record: record["val"])["epoch"])

    @property
    def position(self) -> tuple[int, int]:
        """Epochs done, and batches of the next one."""
        return self.epoch, self.step


def save(state: State, folder: Path) -> None:
    """Write a state into a folder, whole, in place of the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    same = state.best is state.model
    parts = PARTS if same else (*PARTS, "best")
    tensors = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part in parts
        for name, value in getattr(state, part).items()
    }
    # Python writes a float so that it reads back the same: the step size too is bit-identical.
    numbers = {name: getattr(state, name) for name in NUMBERS} | {"best_is_model": same}
    temporary = folder / f"{FILE}.partial"
    save_file(tensors, temporary, metadata={"numbers": json.dumps(numbers)})
    temporary.replace(folder / FILE)


def load(folder: Path) -> State:
    """Read what `save` wrote."""
    parts: dict[str, Any] = {part: {} for part in (*PARTS, "best")}
    with safe_open(folder / FILE, framework="pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
        for key in file.keys():  # noqa: SIM118  # not a mapping
            part, name = key.split("/", maxsplit=1)
            parts[part][name] = file.get_tensor(key)
    if numbers.pop("best_is_model"):
        parts["best"] = parts["model"]
    return State(**parts, **numbers)
