"""The [tune] table of a card: a random search for the hyper-parameters of a model."""

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.card_table import Table
from training.ranges import Range


class Tune(Table):
    """[tune]: trials of one model, by validation loss."""

    model: str
    "Its name in [[train.model]]; what is not searched is as it stands there."
    trials: PositiveInt = 20
    "Random draws from the ranges; Scourfield et al. 2023 take 100."
    epochs: PositiveInt = 25
    "Of each trial."
    seed: NonNegativeInt = 1
    "Of the draws. A longer search begins with the trials of a shorter one."
    at_once: PositiveInt = 1
    """Trials that run side by side, and share the cores; with gpus of [cluster], each has a GPU,
    and no more run than there are."""
    ranges: dict[str, Range] = Field(min_length=1)
    "By dotted key of the model's card: 'options.dropout', 'fit.lr'."
