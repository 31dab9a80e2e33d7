"""Keeper: hands the states of a run to Ray, which keeps the last one."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from training import curves
from training.loop import over
from training.recipe import Fit
from training.state import Record, State, save

SAVING = 10
"How much longer than a state takes to be saved it must have been trained, where an epoch is over."


@dataclass
class Keeper:
    """One of every rank; all ranks meet here."""

    fit: Fit
    rank: int
    folder: Path
    "Of the run."
    cost: float = 0.0
    "What the last one took, s."
    kept: float = field(default_factory=time.monotonic)
    "When that was."

    def __call__(self, state: State) -> None:
        """An epoch is over, or a state is due within one."""
        import ray.train

        at = dict(zip(("epoch", "batch"), state.position, strict=True))
        metrics = (dict(state.history[-1]) if state.history else {}) | at
        if not self.rank and not state.step:
            curves.write(state.history, self.folder / curves.LINES)
        if self.rank or not self._is_worth_it(state):
            ray.train.report(metrics)
        else:
            self._keep(state, metrics)

    def _is_worth_it(self, state: State) -> bool:
        if state.step or over(state, self.fit):
            return True
        # On a GPU an epoch may take less than writing the moments of 40 million numbers.
        return time.monotonic() - self.kept >= SAVING * self.cost

    def _keep(self, state: State, metrics: Record) -> None:
        import ray.train
        from ray.train import Checkpoint

        began = time.monotonic()
        # Beside the run, so that keeping it is a rename away and /tmp need not hold it.
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".state-") as temporary:
            save(state, Path(temporary))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(temporary))
        self.kept = time.monotonic()
        self.cost = self.kept - began
