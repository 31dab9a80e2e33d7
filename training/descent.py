"""Descent: which optimiser a card asks for, how its step size changes, and when it may give up."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Name = Literal["plateau", "constant", "onecycle", "relative", "step"]

USUAL: dict[str, dict[str, float]] = {
    "relative": {"factor": 0.1, "stall": 5, "min_epochs": 50},
    "step": {"factor": 0.5},
}
"What a schedule means by itself; a card that says otherwise is followed."


class Descent(BaseModel):
    """How a model that learns by gradient goes downhill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimiser: Literal["adam", "sgd"] = "adam"
    """'adam': betas (0.9, 0.999), as Camilleri+2025, Scourfield+2023 and Melchior+2023 use it;
    'sgd': plain, as Pal & Dobos (2024). Neither has momentum beside that, or weight decay."""
    lr: PositiveFloat = 1e-4
    """Step size; the largest one, for 'onecycle'. 1e-4 in Camilleri+2025 and Scourfield+2023, 1e-3
    in Melchior+2023, 100 with 'sgd' in Pal & Dobos (2024)."""
    schedule: Name = "plateau"
    """'plateau' shrinks the step when the validation loss stalls (Camilleri+2025, Pal & Dobos
    2024); 'onecycle' raises and lowers it with every batch (Melchior+2023); 'relative' shrinks it
    when the validation loss has not dropped by `gain`, and ends when it still does not
    (Scourfield+2023); 'step' shrinks it every so many epochs; 'constant' leaves it."""
    factor: float = Field(default=0.78, gt=0, lt=1)
    """What the step is multiplied by when it shrinks: 0.78 in Camilleri+2025; 0.1 by itself for
    'relative', as in Scourfield+2023; 0.5 by itself for 'step'; 0.5 in Pal & Dobos (2024)."""
    stall: NonNegativeInt = 4
    """Of 'plateau': epochs without a better validation loss that are borne, the next one shrinks
    the step; the patience of 4 that Camilleri+2025 gave Keras, which counts that one too, is 3.
    Of 'relative': epochs in which the drop must come, 5 by itself."""
    threshold: float = Field(default=0.0, ge=0, exclude_if=lambda least: least == 0)
    """Of 'plateau': the validation loss must drop by more than this to be better; 1e-4 in
    Camilleri+2025, for Keras has it so unless told otherwise."""
    gain: float = Field(default=0.1, gt=0, lt=1)
    "Of 'relative': share of the validation loss that it must drop by (Scourfield+2023)."
    every: PositiveInt = 150
    "Of 'step': epochs between two steps down."
    min_lr: NonNegativeFloat = 1e-7
    "The step is not shrunk below this; the value of Camilleri+2025."
    min_epochs: NonNegativeInt = 0
    """Epochs before `patience` and 'relative' begin to count; 50 by itself for 'relative', since a
    network may give the mean spectrum for many epochs before it learns more."""
    clip: NonNegativeFloat = 0.0
    "Largest norm of the gradient; 0 is no limit."
    average: float = Field(default=0.0, ge=0, lt=1, exclude_if=lambda kept: kept == 0)
    """What a step keeps of the running mean of the weights; the mean is what is watched and kept,
    0 is no mean. 0.99 is a mean over a hundred batches: it takes out what single steps jitter."""

    @model_validator(mode="before")
    @classmethod
    def _as_usual(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        return USUAL.get(str(said.get("schedule")), {}) | said
