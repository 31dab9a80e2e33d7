"""Task: what is to be learnt, by which model, from which rows; a run is named by its digest."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.batches import Batches
from training.frame import Frame
from training.recipe import ModelCard
from training.source import SpectraSource


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, spectra and rows; it travels to the workers."""

    card: ModelCard
    "The model and how it learns."
    source: SpectraSource
    "The spectra."
    frame: Frame
    "How the model sees them."
    train: NDArray[np.int64]
    "Rows to learn from."
    val: NDArray[np.int64]
    "Rows to watch; may be none."

    @property
    def digest8(self) -> str:
        """Of everything that the result depends on, but the number of epochs: more may follow."""
        fit = self.card.fit.model_dump(mode="json")
        if fit["schedule"] != "onecycle":
            del fit["epochs"]
        said = [self.card.model, self.card.options, fit, self.frame.label, self.source.identity]
        found = hashlib.blake2b(json.dumps(said, sort_keys=True).encode())
        for rows in (self.train, self.val):
            found.update(np.asarray(rows, dtype="<i8").tobytes() + b"|")
        return found.hexdigest()[:8]

    def batches(self, which: Literal["train", "val"], rank: int = 0, world: int = 1) -> Batches:
        """The rows of one side, one rank's share of them."""
        rows = self.train if which == "train" else self.val
        chunks = np.unique(np.asarray(rows) // self.source.chunk).size
        if which == "val" and chunks < world:
            # Too few to share: every rank watches all of them.
            rank, world = 0, 1
        by_gradient = self.card.build(self.frame.grid).fit == "gradient"
        return Batches(
            source=self.source,
            rows=rows,
            frame=self.frame,
            batch_size=self.card.fit.batch_size,
            seed=self.card.fit.seed,
            rank=rank,
            world=world,
            drop_last=which == "train" and by_gradient and world > 1,
            shuffle=which == "train",
        )
