"""Train: what a checkpoint says of how it was made, and when it is made again."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline.train
import training.task
from pipeline.card import Card
from pipeline.sample import sample
from pipeline.shelves import trained
from pipeline.train import is_done, missing, tasks, train
from storage.schema import Split
from storage.store import Survey
from tests.pipeline.scene import card_of, ingested
from training import checkpoint, fit, origin, registry
from training.frames import named
from training.session import session

pytestmark = pytest.mark.slow

MODELS = [{"name": "mean"}, {"name": "low", "card": "butterworth"}]
JUDGED = {"n": 60, "reference": 300, "calibrate": 20}
LITTLE = {"verdict": JUDGED, "cluster": {"workers": 1, "threads": 2}}


def taught(folder: Path, *models: dict[str, Any], **tables: Any) -> Card:
    return card_of(folder, **{"train": {"model": list(models or MODELS)}, **LITTLE, **tables})


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    with session(threads=2):
        yield


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, _ray: None) -> tuple[Card, Card]:
    """The same trained in two folders, from two stores of the same spectra."""
    cards = []
    for name in ("here", "there"):
        folder = tmp_path_factory.mktemp(name)
        ingested(folder, 200)
        cards.append(taught(folder))
        assert not is_done(cards[-1])
        train(cards[-1])
    return cards[0], cards[1]


@pytest.mark.ray
def test_a_checkpoint_is_the_same_wherever_it_was_trained(twice: tuple[Card, Card]) -> None:
    here, there = (registry.aliases(card.checkpoints) for card in twice)
    assert here == there
    assert set(here) == {"mean", "low"}


@pytest.mark.ray
def test_a_checkpoint_says_how_it_was_trained_but_not_when(twice: tuple[Card, Card]) -> None:
    card = twice[0]
    snapshots = [version.snapshot for version in Survey.open(card.store).history()]
    for name in registry.aliases(card.checkpoints).values():
        text = (Path(card.checkpoints) / name / "card.json").read_text()
        assert not [snapshot for snapshot in snapshots if snapshot in text]
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)
        assert card.run.dir not in text
        about = json.loads(text)
        assert about["training"]["rows"]["train"] == sample_size(card)
        assert about["footprint"]["classes"] == ["GALAXY"]


@pytest.mark.ray
def test_when_and_where_it_was_trained_lies_beside(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[0].checkpoints)
    for name in registry.aliases(folder).values():
        found = checkpoint.load(folder / name)
        assert found.origin.snapshot == Survey.open(twice[0].store).snapshot
        assert (found.origin.workers, found.origin.device) == (1, "cpu")
        assert found.origin.date[:3] == "202"
        assert found.card.code == found.origin.code[0]
    # A filter learns nothing.
    taught = {alias: load_origin(folder, alias).seconds > 0 for alias in ("mean", "low")}
    assert taught == {"mean": True, "low": False}
    table = trained(twice[0])
    (when,) = (list(column.cells) for column in table.columns if column.header == "when")
    assert when == [load_origin(folder, alias).words for alias in ("low", "mean")]


def load_origin(folder: Path, alias: str) -> origin.Origin:
    return checkpoint.load(registry.resolve(folder, alias)).origin


def sample_size(card: Card) -> int:
    return int(sample(card, Survey.open(card.store), Split.TRAIN).size)


@pytest.mark.ray
def test_a_checkpoint_is_judged_as_it_should(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[0].checkpoints)
    reasons = {
        alias: checkpoint.load(folder / name).verdict
        for alias, name in registry.aliases(folder).items()
    }
    assert reasons["mean"]["reason"].startswith("paints the average galaxy")
    assert reasons["low"]["reason"].startswith("copies the noise")


@pytest.mark.ray
def test_what_does_not_change_a_model_trains_nothing(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[0].run.dir)
    assert is_done(taught(folder))
    assert is_done(taught(folder, report={"examples": 2}, measure={"inputs": ["raw"]}))
    assert is_done(taught(folder, MODELS[0]))


@pytest.mark.ray
@pytest.mark.parametrize(
    "change",
    [
        {"train": {"model": [{"name": "mean", "overrides": {"fit.batch_size": 64}}]}},
        {"train": {"model": [{"name": "mean", "overrides": {"fit.epochs": 2}}]}},
        {"train": {"model": [*MODELS, {"name": "pca"}]}},
        {"verdict": {**JUDGED, "n": 61}},
        {"sample": {"where": "z < 0.1"}},
        {"run": {"seed": 2}},
    ],
    ids=str,
)
def test_what_changes_a_model_or_its_verdict_trains_again(
    twice: tuple[Card, Card], change: dict[str, Any]
) -> None:
    folder = Path(twice[0].run.dir)
    run = {"dir": str(folder), **change.get("run", {})}
    assert not is_done(taught(folder, **{**change, "run": run}))


@pytest.mark.ray
@pytest.mark.parametrize(
    "change",
    [
        {"verdict": {**JUDGED, "calibrate": 21}},
        {"measure": {"draws": 32}},
        {"measure": {"indices": ["Mgb", "Fe4383"]}},
    ],
    ids=str,
)
def test_what_changes_errors_makes_their_tables_again_and_trains_nothing(
    twice: tuple[Card, Card], change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(twice[0].run.dir)
    card, before = taught(folder, **change), registry.aliases(twice[0].checkpoints)
    monkeypatch.setattr(fit, "session", lambda *_, **__: pytest.fail("taught"))
    assert not is_done(card)
    said = train(card)
    assert all(": errors from " in line for line in said.splitlines())
    assert is_done(card)
    assert registry.aliases(card.checkpoints) == before
    train(twice[0])
    assert is_done(twice[0])


@pytest.mark.ray
def test_only_the_model_that_changed_is_trained_again(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[1].run.dir)
    before = registry.aliases(twice[1].checkpoints)
    low = {"name": "low", "card": "butterworth", "overrides": {"options.cutoff": 0.5}}
    card = taught(folder, MODELS[0], low)
    assert not is_done(card)
    said = train(card)
    after = registry.aliases(card.checkpoints)
    assert after["mean"] == before["mean"]
    assert after["low"] != before["low"]
    assert {line.split("-")[0].strip() for line in said.splitlines()} == {"low"}
    assert is_done(card)


@pytest.mark.ray
def test_code_that_teaches_something_else_makes_every_model_stale(
    twice: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = twice[0]
    assert is_done(card)
    before = {name: task.digest8 for name, task in tasks(card).items()}
    # One number, which a run and a checkpoint both depend on.
    assert pipeline.train.VERSION == training.task.VERSION
    for place in ("training.task.VERSION", "pipeline.train.VERSION"):
        monkeypatch.setattr(place, 1 + training.task.VERSION)
    assert set(missing(card)) == {"mean", "low"}
    assert all(task.digest8 != before[name] for name, task in missing(card).items())


@pytest.mark.ray
def test_a_checkpoint_made_again_says_the_code_that_taught_it(
    twice: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(twice[1].checkpoints)
    path = registry.resolve(folder, "mean")
    text = (path / "card.json").read_text()
    monkeypatch.setattr("pipeline.train.code_version", lambda: "9.9+upgraded")
    monkeypatch.setattr("training.origin.code_version", lambda: "9.9+upgraded")
    taught = load_origin(folder, "mean")
    shutil.rmtree(path)
    train(twice[1])
    assert (registry.resolve(folder, "mean") / "card.json").read_text() == text
    assert load_origin(folder, "mean") == taught


@pytest.mark.ray
def test_a_checkpoint_that_was_removed_is_made_again(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[0].run.dir)
    path = Path(twice[0].checkpoints) / registry.aliases(twice[0].checkpoints)["low"]
    aside = path.with_name(f"aside-{path.name}")
    path.rename(aside)
    assert not is_done(taught(folder))
    aside.rename(path)
    assert is_done(taught(folder))


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_each_model_is_trained_and_judged_on_its_own_frame(tmp_path: Path) -> None:
    ingested(tmp_path, 200)
    own = {"name": "low", "card": "butterworth", "overrides": {"frame": "s23"}}
    card = taught(tmp_path, MODELS[0], own)
    train(card)
    for alias, frame in (("mean", "fs"), ("low", "s23")):
        found = checkpoint.load(registry.resolve(card.checkpoints, alias))
        assert found.frame == named(frame)
        assert found.verdict is not None
        assert found.card.training["metrics"].keys() <= {"best_epoch", "best_val", "train", "val"}
    assert is_done(card)


@pytest.mark.ray
@pytest.mark.slow
def test_a_damaged_checkpoint_is_put_aside_and_made_again(twice: tuple[Card, Card]) -> None:
    folder = Path(twice[1].checkpoints)
    path = registry.resolve(folder, "mean")
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert not is_done(twice[1])
    train(twice[1])
    assert registry.resolve(folder, "mean") == path
    assert checkpoint.load(path).verdict is not None
    assert (folder / f".damaged-{path.name}").is_dir()
