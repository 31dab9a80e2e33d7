"""Recipes: a model card says which network, with which options, learns how."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from storage.grid import Grid
from storage.names import resolve
from training.augment import Augment
from training.model import Denoiser
from training.schedule import Descent

SHELF = "training.models"


class Fit(Descent):
    """How a model learns; what does not apply to its way of learning is not looked at."""

    epochs: PositiveInt = 20
    "Passes over the training rows; EM steps, for a model that learns by sums."
    batch_size: PositiveInt = 128
    "Spectra a batch and rank."
    patience: NonNegativeInt = 0
    "Epochs without a better validation loss after which to stop; 0 is never. By gradient only."
    threads: NonNegativeInt = 0
    "Of each worker; 0 is its share of the cores."
    precision: Literal["highest", "high", "medium"] = "highest"
    "Of float32 products, as torch.set_float32_matmul_precision. By gradient only."
    seed: NonNegativeInt = 0
    "Of the starting weights and the order of the rows."


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
    *tables, key = (str(part) for part in first["loc"])
    where = ".".join([*tables, key])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}, found {first['input']!r}"
    names = known.get(".".join(tables), set())
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {where!r}; {hint}known: {', '.join(sorted(names)) or 'none'}"
