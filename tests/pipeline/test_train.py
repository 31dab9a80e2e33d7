"""Train: which rows teach which model, and when it is done again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.card import Card, CardError, TrainModel
from pipeline.sample import sample
from pipeline.train import is_done, model_card, tasks, train
from storage.grid import Grid
from storage.schema import ObjectType, Split, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, ingested
from training import checkpoint, fit, registry
from training.frame import Frame
from training.frames import FRAMES, named
from training.session import session

pytestmark = pytest.mark.slow

MODELS = [{"name": "mean"}, {"name": "low", "card": "butterworth"}]
JUDGED = {"n": 60, "reference": 300, "calibrate": 20}
LITTLE = {"verdict": JUDGED, "cluster": {"workers": 1, "threads": 2}}


def taught(folder: Path, *models: dict[str, Any], **tables: Any) -> Card:
    return card_of(folder, **{"train": {"model": list(models or MODELS)}, **LITTLE, **tables})


def test_a_run_card_overrides_its_model_card_by_dotted_key() -> None:
    card = card_of(Path("x"), run={"dir": "x", "seed": 7})
    plain = model_card(card, TrainModel(name="ppca"))
    changes = {"options.components": 8, "fit.epochs": 5}
    found = model_card(card, TrainModel(name="ppca", overrides=changes))
    assert found.options == {**plain.options, "components": 8}
    assert found.fit == plain.fit.model_copy(update={"epochs": 5})
    nested = TrainModel(name="ppca", overrides={"options": {"components": 8}, "fit": {"epochs": 5}})
    assert model_card(card, nested) == found


def test_a_model_is_seeded_by_the_run_unless_its_card_says_otherwise() -> None:
    card = card_of(Path("x"), run={"dir": "x", "seed": 7})
    assert model_card(card, TrainModel(name="ppca")).fit.seed == 7
    own = TrainModel(name="ppca", overrides={"fit.seed": 3})
    assert model_card(card, own).fit.seed == 3


def test_a_wrong_override_names_the_key() -> None:
    card = card_of(Path("x"))
    with pytest.raises(ValueError, match=r"'component'.*did you mean 'components'"):
        model_card(card, TrainModel(name="ppca", overrides={"options.component": 8}))
    with pytest.raises(CardError, match="no card 'ppcb' in models"):
        model_card(card, TrainModel(name="ppcb"))


def test_only_done_science_rows_of_the_right_side_teach(tmp_path: Path) -> None:
    path = ingested(tmp_path, 80)
    sides = np.full(80, Split.TRAIN, "u1")
    sides[:20] = Split.TEST
    with writing(path, "test") as writer:
        kinds = np.full(80, "GALAXY", np.dtypes.StringDType())
        zwarn = np.zeros(80, "i4")
        zwarn[30] = 4
        writer.write_columns(SPECTRA, 0, {"split": sides, "class": kinds, "zwarn": zwarn})
        writer.commit("sides", {"group": SPECTRA})
    card, survey = card_of(tmp_path), Survey.open(path)
    ds = survey.dataset(SPECTRA).load()
    expected = (ds["split"] == Split.TRAIN) & (ds["status"] == Status.DONE)
    expected &= (ds["object_type"] == ObjectType.SCIENCE) & (ds["zwarn"] == 0)
    rows = sample(card, survey, Split.TRAIN)
    np.testing.assert_array_equal(rows, np.flatnonzero(expected))
    assert not {30, 77, 78} & set(rows.tolist())
    assert {20, 79} <= set(rows.tolist())
    assert sample(card, survey, Split.VAL).size == 0


def test_the_card_chooses_the_sample_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    survey = Survey.open(ingested(tmp_path, 80))
    near = sample(card_of(tmp_path, sample={"where": "z < 0.08"}), survey, Split.TRAIN)
    z = survey.dataset(SPECTRA)["z"].to_numpy()[near]
    assert z.size > 0
    assert (z < 0.08).all()
    with pytest.raises(ValueError, match=r"sample.where: 'z > 9' leaves none of 80 spectra"):
        sample(card_of(tmp_path, sample={"where": "z > 9"}), survey, Split.TRAIN)


def test_a_survey_that_is_not_ingested_whole_teaches_nobody(tmp_path: Path) -> None:
    path = ingested(tmp_path, 80)
    with writing(path, "test") as writer:
        writer.set_attrs(SPECTRA, {"complete": False})
        writer.commit("broken off")
    with pytest.raises(ValueError, match="not ingested whole; `specmill ingest CARD` goes on"):
        tasks(taught(tmp_path))


def test_a_model_sees_its_own_frame_or_that_of_the_run(tmp_path: Path) -> None:
    ingested(tmp_path, 80)
    own = {"name": "low", "card": "butterworth", "overrides": {"frame": "s23"}}
    found = tasks(taught(tmp_path, MODELS[0], own))
    assert {name: task.frame.name for name, task in found.items()} == {"mean": "fs", "low": "s23"}
    wrong = {**own, "overrides": {"frame": "s24"}}
    with pytest.raises(ValueError, match=r"frame 's24' is unknown; .*did you mean 's23'"):
        tasks(taught(tmp_path, wrong))


def test_a_sample_beyond_a_frame_is_refused_before_anything_is_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested(tmp_path, 80)
    monkeypatch.setattr(fit, "train", lambda *_, **__: pytest.fail("taught"))
    red = Grid(kind="linear", start=7000, step=1, size=2000)
    monkeypatch.setitem(FRAMES, "red", Frame(name="red", grid=red, window=(7100, 7200)))
    low = {"name": "low", "card": "butterworth", "overrides": {"frame": "red"}}
    with pytest.raises(ValueError, match=r"none of \d+ training rows has enough frame pixels"):
        train(taught(tmp_path, low))


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
