"""Recipes: a model card says which network, with which options, learns how."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from storage.grid import Grid
from storage.names import resolve
from training.augment import Augment
from training.descent import Descent
from training.model import Denoiser
from training.rounding import Asked

SHELF = "training.models"


class Fit(Descent):
    """How a model learns; what does not apply to its way of learning is not looked at."""

    epochs: PositiveInt = 20
    "Passes over the training rows; EM steps, for a model that learns by sums."
    batch_size: PositiveInt = 128
    "Spectra a batch and rank."
    patience: NonNegativeInt = 0
    """Epochs, after the first `min_epochs`, without a better validation loss after which to stop;
    0 is never. By gradient only."""
    threads: NonNegativeInt = 0
    "Of each worker; 0 is its share of the cores."
    precision: Asked = "highest"
    """How products are rounded: 'highest' not at all, 'high' and 'medium' as
    torch.set_float32_matmul_precision has it, 'bfloat16' by torch.autocast; 'auto' is the fastest
    that moves what the model says by less than the noise does. What is asked for is measured, and
    a warning says when it is rough. By gradient only."""
    seed: NonNegativeInt = 0
    "Of the starting weights, the order of the rows, and what the model draws."
    save_s: NonNegativeFloat = Field(default=300.0, exclude=True)
    """Seconds after which the state is saved within an epoch, 0 after every batch; the result does
    not depend on it, so neither does the digest of a run."""


class ModelCard(BaseModel):
    """A model as a card describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    "A module on the shelf training.models, or anybody's dotted name."
    options: dict[str, Any] = Field(default_factory=dict)
    "What the module's build() takes besides the grid."
    frame: str = ""
    "How it sees spectra, a name of training.frames; that of the run card when empty."
    augment: Augment = Augment()
    "What the spectra that teach it are turned into, and what they should become."
    fit: Fit = Fit()

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a card.

        Raises
        ------
        ValueError
            Names the file, the key and the nearest known one.
        """
        try:
            return cls.parse(tomllib.loads(Path(path).read_text()))
        except (ValueError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Self:
        """A card from its table, the options tried too.

        Raises
        ------
        ValueError
            Names the key and the nearest known one.
        """
        with_names = {
            "": set(cls.model_fields),
            "fit": set(Fit.model_fields),
            "augment": set(Augment.model_fields),
        }
        try:
            card = cls.model_validate(table)
        except ValidationError as error:
            raise ValueError(_say(error, with_names)) from error
        card._check_options()
        return card

    def build(self, grid: Grid) -> Denoiser:
        """The model, as yet untaught, on the wavelength axis of a frame."""
        self._check_options()
        built: Denoiser = resolve(SHELF, self.model).build(grid, **self.options)
        return built

    def _check_options(self) -> None:
        options = getattr(resolve(SHELF, self.model), "Options", None)
        if options is None:
            return
        try:
            options.model_validate(self.options)
        except ValidationError as error:
            names = {"": set(options.model_fields)}
            raise ValueError(f"{self.model}: [options] {_say(error, names)}") from error


def _say(error: ValidationError, known: dict[str, set[str]]) -> str:
    """The first error in one line, with the nearest known key where a key is unknown."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    *tables, key = (str(part) for part in first["loc"])
    where = ".".join([*tables, key])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}, found {first['input']!r}"
    names = known.get(".".join(tables), set())
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {where!r}; {hint}known: {', '.join(sorted(names)) or 'none'}"
