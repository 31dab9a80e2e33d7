"""State: a training run between two epochs, in memory and on disk (tensors and JSON, no pickle)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Record = dict[str, float]
"One epoch: epoch, train, val, lr, seconds."

FILE = "state.safetensors"
"Tensors, and in its header the numbers as JSON: one file is replaced whole."


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that the next epoch depends on."""

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

    @property
    def best_epoch(self) -> int:
        """Epoch, from 1, of the lowest validation loss; the first of equals."""
        return int(min(self.history, key=lambda record: record["val"])["epoch"])


def save(state: State, folder: Path) -> None:
    """Write a state into a folder, whole, in place of the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"model": state.model, "moments": state.moments}
    if state.best is not state.model:
        parts["best"] = state.best
    tensors = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    # Python writes a float so that it reads back the same: the step size too is bit-identical.
    numbers = json.dumps(
        {
            "epoch": state.epoch,
            "history": state.history,
            "schedule": state.schedule,
            "best_is_model": state.best is state.model,
        }
    )
    temporary = folder / f"{FILE}.partial"
    save_file(tensors, temporary, metadata={"numbers": numbers})
    temporary.replace(folder / FILE)


def load(folder: Path) -> State:
    """Read what `save` wrote."""
    parts: dict[str, Tensors] = {"model": {}, "moments": {}, "best": {}}
    with safe_open(folder / FILE, framework="pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
        for key in file.keys():  # noqa: SIM118  # not a mapping
            part, name = key.split("/", maxsplit=1)
            parts[part][name] = file.get_tensor(key)
    return State(
        epoch=numbers["epoch"],
        model=parts["model"],
        best=parts["model"] if numbers["best_is_model"] else parts["best"],
        history=numbers["history"],
        moments=parts["moments"],
        schedule=numbers["schedule"],
    )


def write_curves(history: list[Record], path: Path) -> None:
    """The history as JSON lines, replaced whole: a run that goes on repeats no line."""
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
    temporary.replace(path)
