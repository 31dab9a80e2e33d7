"""The run card: one strict TOML file says everything about a run."""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from deploy.job import Cluster
from pipeline.card_measure import Measure
from pipeline.card_outside import Outside
from pipeline.card_sample import Sample
from pipeline.card_table import Table
from pipeline.card_tune import Tune
from pipeline.card_words import CardError as CardError
from pipeline.card_words import put, words
from storage.objects import Shares

CARDS = Path(__file__).resolve().parents[1] / "deploy" / "cards"
"The cards that ship: model and mock cards are found here by their bare names."


class Run(Table):
    """[run]: where the products of this card go."""

    dir: str
    "Folder of the run: store, checkpoints, report."
    seed: int = 1
    "From which all randomness is spawned."
    commit_s: float = Field(default=120.0, gt=0)
    "Seconds between two commits of a stage, at most: what a crash costs."
    commit_blocks: PositiveInt = 64
    "Blocks between two commits of a stage, at most."


class SurveyTable(Table):
    """[survey]: the files and the store."""

    root: str
    "Folder of the survey's files."
    reader: str = "sdss"
    "Format, a name on storage.readers."
    config: str = ""
    "Instrument configuration; the reader's first when empty."
    options: dict[str, Any] = Field(default_factory=dict)
    "[survey.options]: what the reader is told; `specmill list readers` names its options."
    precision: Literal["lossless", "noise"] = "lossless"
    "Bits of flux and ivar that are kept: all, or those that the noise justifies."
    dust_map: str = ""
    "Folder of the maps of SFD98, for spectra whose files give no E(B-V)."
    store: str = ""
    "The store; <run.dir>/survey.icechunk when empty."


class Simulate(Table):
    """[simulate]: a mock survey, written into survey.root."""

    mock: str
    "A card of deploy/cards/mocks, by name, or the path of one."
    n: PositiveInt
    "Objects."
    repeats: float = Field(default=0.05, ge=0, le=1)
    "Share of the objects that are observed a second time, on another date."


class SplitTable(Table):
    """[split]: which side an object is on."""

    salt: str = "specmill"
    "Hashed with the object's id."
    shares: Shares = Shares()
    "Of train, val, calib and test."


class FrameTable(Table):
    """[frame]: how a model sees a spectrum."""

    name: str = "fs"
    "A name of training.frames, for models whose cards name none."


class TrainModel(Table):
    """[[train.model]]: one model to train."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    "Its name in this run."
    card: str = ""
    "A card of deploy/cards/models, by name, or the path of one; the name when empty."
    overrides: dict[str, Any] = Field(default_factory=dict)
    "Values that replace those of its card, by dotted key."


class Train(Table):
    """[train]: the models."""

    model: tuple[TrainModel, ...]
    workers: PositiveInt = 1
    "Ranks that learn a model together, on their own shares of the spectra; a GPU each, if any."
    kept_gb: NonNegativeFloat = 32
    """What spectra on a model's frame may take in its run's folder while it learns, so that later
    epochs need not read the survey again; at most half of what is free. 0: nothing is kept."""
    follow: bool = False
    "Whether models are trained anew when the survey has grown or changed."


class VerdictTable(Table):
    """[verdict]: the mocks that a model is judged on."""

    mock: str = "mock-v1"
    "A card of deploy/cards/mocks, by name, or the path of one."
    n: PositiveInt = 1000
    "Objects in each bin of S/N."
    reference: PositiveInt = 6000
    "Noiseless objects that the linear reference is learnt from."
    library: NonNegativeInt = 0
    "Noiseless objects of the library reference; 0: the linear one alone. 100,000 take minutes."
    calibrate: NonNegativeInt = 500
    "Objects in each bin of S/N that show what errors denoised indices have; 0: no table is made."


class Route(Table):
    """[[denoise.route]]: which model takes which spectra; the first rule that fits."""

    where: str = ""
    "Expression over the columns; all when empty."
    model: str
    "Name, directory, digest, 'best', or 'none'."
    reason: str = ""
    "Why, for 'none'."


class Denoise(Table):
    """[denoise]: the models at work."""

    route: tuple[Route, ...] = (Route(model="best"),)
    checkpoints: str = ""
    "Folder of the checkpoints; <run.dir>/checkpoints when empty."
    outside: Literal["skip", "flag"] = "skip"
    "What becomes of spectra outside a model's footprint: left out, or done and flagged."
    precision: Literal["float32", "medium", "bfloat16", "auto"] = "float32"
    "Of matrix products; auto is the fastest that moves no index by 0.1 formal errors."
    unproven: bool = False
    "Whether a model whose verdict is failed or missing may be used; the product says so."


class Report(Table):
    """[report]: the page for people."""

    examples: PositiveInt = 6
    "Spectra that are shown."


class Card(Table):
    """A run card."""

    run: Run
    survey: SurveyTable
    simulate: Simulate | None = None
    split: SplitTable = SplitTable()
    sample: Sample = Sample()
    frame: FrameTable = FrameTable()
    train: Train | None = None
    tune: Tune | None = None
    verdict: VerdictTable = VerdictTable()
    denoise: Denoise = Denoise()
    measure: Measure = Measure()
    report: Report = Report()
    outside: Outside = Outside()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _names_differ(self) -> "Card":
        names = [model.name for model in self.train.model] if self.train else []
        if len(set(names)) < len(names):
            raise ValueError(f"train.model: names must differ, found {names}")
        if self.tune and self.tune.model not in names:
            there = ", ".join(names) or "none"
            raise ValueError(f"tune.model: no {self.tune.model!r} in train.model (there: {there})")
        return self

    @property
    def store(self) -> str:
        """Path of the store."""
        return self.survey.store or str(Path(self.run.dir) / "survey.icechunk")

    @property
    def checkpoints(self) -> str:
        """Folder of the checkpoints."""
        return self.denoise.checkpoints or str(Path(self.run.dir) / "checkpoints")

    @property
    def digest(self) -> str:
        """Eight hex digits of everything that products depend on, but for where they are made."""
        return digest8(self.model_dump(mode="json", exclude={"cluster", "tune", "outside"}))


def digest8(value: object) -> str:
    """Eight hex digits of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def load(path: str, settings: Sequence[str] = ()) -> Card:
    """Read a card, with one-off settings ``table.key=value``.

    Raises
    ------
    CardError
        When it is not TOML, an unknown key is in it (names the nearest one), or a value is wrong.
    FileNotFoundError
        When there is no such file.
    """
    content = read_toml(path)
    for setting in settings:
        put(content, setting)
    try:
        return Card(**content)
    except ValidationError as error:
        raise CardError(
            "\n".join(words(path, item, Card.model_json_schema()) for item in error.errors())
        ) from error


def read_toml(path: str) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises
    ------
    CardError
        When it is not TOML.
    FileNotFoundError
        When there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such card; `specmill init DIR` writes one")
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: not TOML ({error})") from error


def shipped(shelf: str, name: str) -> str:
    """Path of a card by its bare name on a shelf of ours, or of anybody's by its path."""
    if name.endswith(".toml"):
        return name
    there = sorted(file.stem for file in (CARDS / shelf).glob("*.toml"))
    if name not in there:
        raise CardError(f"no card {name!r} in {shelf} (there: {', '.join(there)})")
    return str(CARDS / shelf / f"{name}.toml")
