"""Train: which rows teach which model, on which frame, and what is refused before."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.card import CardError, TrainModel
from pipeline.sample import sample
from pipeline.train import model_card, tasks, train
from storage.grid import Grid
from storage.schema import ObjectType, Split, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import SPECTRA, card_of, ingested
from tests.pipeline.test_train import MODELS, taught
from training import fit
from training.frame import Frame
from training.frames import FRAMES

pytestmark = pytest.mark.slow


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


def test_more_workers_than_gpus_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingested(tmp_path, 80)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("pipeline.train._footprint", lambda *_: pytest.fail("read"))
    table = {"model": MODELS, "workers": 2}
    with pytest.raises(ValueError, match=r"train\.workers: 2 asked for, each on a GPU of its own"):
        train(taught(tmp_path, train=table, cluster={"backend": "cuda", "gpus": 1}))
