"""Task: what is to be learnt, by which model, from which rows; a run is named by its digest."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.augment import Augment
from training.batches import Batches
from training.frame import Frame
from training.recipe import ModelCard
from training.source import SpectraSource

VERSION = 1
"""Raised when the same spectra and card teach something else: what was taught before is stale
then, and a run that was left unfinished begins anew. Other changes of the code go on with it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model, spectra and rows; it travels to the workers.

    Raises
    ------
    ValueError
        When the card's loss and its target do not go together.
    """

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

    def __post_init__(self) -> None:
        if self.card.augment.exact and self.card.options.get("loss") == "gaussian":
            raise ValueError(
                f"loss 'gaussian' with target {self.card.augment.target!r}: it takes the target's "
                "noise out of what the model says of its own error, and this one has none; use "
                "another loss, or target 'input' with noise 'split'"
            )

    @property
    def digest8(self) -> str:
        """Of everything that the result of one worker depends on, but the number of epochs."""
        return self.named(1)

    def named(self, workers: int) -> str:
        """What names a run by so many workers: eight hex digits of all that its result depends on.

        A network steps after a batch of each of its workers, so that with more of them it learns
        otherwise; what learns by sums comes to the same. More epochs may follow.
        """
        fit = self.card.fit.model_dump(mode="json")
        if fit["schedule"] != "onecycle":
            del fit["epochs"]
        said = [self.card.model, self.card.options, fit, self.frame.label, self.source.identity]
        said.append({"version": VERSION})
        if self.card.augment != Augment():
            said.append(self.card.augment.model_dump(mode="json"))
        if workers > 1 and self.card.build(self.frame.grid).fit == "gradient":
            said.append({"workers": workers})
        found = hashlib.blake2b(json.dumps(said, sort_keys=True).encode())
        for rows in (self.train, self.val):
            found.update(np.asarray(rows, dtype="<i8").tobytes() + b"|")
        return found.hexdigest()[:8]

    def batches(
        self, which: Literal["train", "val"], rank: int = 0, world: int = 1, **reading: Any
    ) -> Batches:
        """The rows of one side, one rank's share of them.

        `reading` are the fields of `Batches` that change no batch: kept, readers.

        Raises
        ------
        ValueError
            When the model learns nothing from such a target; as `Batches`.
        """
        model, wanted = self.card.build(self.frame.grid), self.card.augment.target
        if wanted != "input" and model.fit == "sums" and not model.by_target:
            raise ValueError(
                f"{self.card.model} with target {wanted!r} of [augment]: it learns from the input "
                "alone; use target 'input', or another model, as wiener"
            )
        rows = self.train if which == "train" else self.val
        given = Batches(
            source=self.source,
            rows=rows,
            frame=self.frame,
            batch_size=self.card.fit.batch_size,
            augment=self.card.augment,
            seed=self.card.fit.seed,
            shuffle=which == "train",
            fixed=which == "val",
            **reading,
        )
        if world == 1 or (which == "val" and given.rows.size < world):
            # Too few to share: every rank watches all of them.
            return given
        equal = which == "train" and model.fit == "gradient"
        return replace(given, rank=rank, world=world, drop_last=equal)
