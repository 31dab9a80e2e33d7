"""Tune: which trials there are, what is kept of them, and that none is done twice."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deploy.job import Cluster
from pipeline import tune as tuning
from pipeline.card import Card, CardError, Train, TrainModel, load
from pipeline.train import model_card
from pipeline.tune import markdown, overrides, ranked, read, results, side_by_side, trials, tune
from storage.lease import Lease, LeaseError
from tests.pipeline.scene import card_of, ingested
from tests.training.small import small
from training.fit import DIVERGED, Trained
from training.search import Result, found, summary
from training.task import Task

RANGES = {"options.components": {"choice": [2, 3, 4]}, "fit.batch_size": {"choice": [64, 128]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    ingested(folder, 80)
    return folder


def searching(folder: Path, run: Path | None = None, **table: Any) -> Card:
    """A card that searches for a ppca on the store of a folder."""
    store = str(folder / "survey.icechunk")
    return card_of(
        run or folder,
        survey={"root": "files", "config": "sdss", "store": store},
        train={"model": [{"name": "p", "card": "ppca", "overrides": {"fit.batch_size": 32}}]},
        tune={"model": "p", "trials": 5, "epochs": 2, "ranges": RANGES, **table},
    )


class Fake:
    """A search that trains nothing; it dies after so many trials."""

    def __init__(self, dies: int = 99) -> None:
        self.dies, self.done = dies, list[str]()
        self.given: dict[str, int] = {}

    def __call__(
        self, tasks: Mapping[str, Task], folder: Path, note: Callable[[Result], None], **given: int
    ) -> dict[str, str]:
        self.given = given
        for name, task in tasks.items():
            if len(self.done) == self.dies:
                raise KeyboardInterrupt
            self.done.append(name)
            components = task.card.options["components"]
            loss = None if components == 4 else 1.0 / components
            note(
                Result(
                    name=name, val=loss, train=loss, best_epoch=2, epochs=2, seconds=components / 2
                )
            )
        return {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def make(dies: int = 99) -> Fake:
        made = Fake(dies)
        monkeypatch.setattr(tuning, "search", made)
        monkeypatch.setattr(tuning, "session", lambda **_: nullcontext())
        monkeypatch.setattr(tuning.signals, "rearm", lambda: None)
        return made

    return make


def test_trials_are_the_model_with_what_was_drawn(folder: Path) -> None:
    card = searching(folder)
    for trial in trials(card):
        plain = model_card(card, TrainModel(name="ppca", overrides={"fit.epochs": 2, **trial.set}))
        assert trial.task.card == plain
        assert trial.task.card.fit.epochs == 2
        assert set(trial.set) == set(RANGES)


def test_a_longer_search_begins_with_the_shorter_one_and_draws_nothing_twice(folder: Path) -> None:
    short, long = ([trial.digest for trial in trials(searching(folder, trials=n))] for n in (5, 60))
    assert long[: len(short)] == short
    # Three by two values.
    assert len(long) == len(set(long)) == 6


def test_a_search_that_was_killed_repeats_no_trial(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake]
) -> None:
    card = searching(folder, tmp_path, trials=60)
    first = fake(dies=2)
    with pytest.raises(KeyboardInterrupt):
        tune(card)
    assert len(read(results(card))) == 2
    second = fake()
    lines = tune(card)
    assert len(lines) == 6
    assert len(second.done) == 4
    assert not set(first.done) & set(second.done)
    third = fake()
    assert tune(card) == lines
    assert third.done == []


def test_results_are_json_lines_and_a_table_the_best_first(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake]
) -> None:
    card = searching(folder, tmp_path, trials=60)
    fake()
    lines = tune(card)
    assert [line["val"] for line in lines] == pytest.approx([1 / 3, 1 / 3, 0.5, 0.5, None, None])
    told = [json.loads(line) for line in results(card).read_text().splitlines()]
    assert sorted(told, key=str) == sorted(lines, key=str)
    assert {"trial", "number", "set", "parameters", "val", "train", "seconds"} <= set(told[0])
    table = (tmp_path / "tune" / "p.md").read_text()
    assert table == markdown(lines)
    best = [str(lines[0]["number"]), str(lines[0]["set"]["fit.batch_size"])]
    assert table.splitlines()[2].startswith(f"| {' | '.join(best)} | 3 | 0.333333 |")
    assert "not finite" in table.splitlines()[-1]


def test_another_search_leaves_the_lines_of_the_first(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake]
) -> None:
    card = searching(folder, tmp_path)
    fake()
    before = tune(card)
    more = tune(searching(folder, tmp_path, epochs=3))
    kept = {line["trial"] for line in read(results(card))}
    assert kept == {line["trial"] for line in (*before, *more)}
    assert not {line["trial"] for line in before} & {line["trial"] for line in more}
    assert tune(card) == before


def test_the_best_is_printed_as_a_table_that_a_card_takes(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake]
) -> None:
    card = searching(folder, tmp_path)
    fake()
    best = tune(card)[0]
    file = tmp_path / "card.toml"
    file.write_text(f"[run]\ndir='x'\n[survey]\nroot='y'\n{overrides(card, best)}\n")
    made = load(str(file)).train
    assert made is not None
    assert made.model[0].overrides == {"fit.batch_size": 32, **best["set"]}
    assert (made.model[0].name, made.model[0].card) == ("p", "ppca")


def test_trials_that_broke_off_are_no_results(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake()
    monkeypatch.setattr(tuning, "search", lambda tasks, *_, **__: dict.fromkeys(tasks, "no room"))
    with pytest.raises(RuntimeError, match=r"trials broke off; the same command.*first: no room"):
        tune(searching(folder, tmp_path))
    assert not results(searching(folder, tmp_path)).exists()


def test_a_second_search_of_the_same_model_waits_for_the_first(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake]
) -> None:
    card = searching(folder, tmp_path)
    (tmp_path / "tune").mkdir()
    lease = Lease(str(tmp_path / "tune" / "p"), "tune")
    fake()
    with pytest.raises(LeaseError, match=r"p\.lease: .*wait for it"):
        tune(card)
    lease.release()
    assert tune(card)


def test_mistakes_in_a_search_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tune.model: no 'q' in train.model \(there: p\)"):
        searching(folder, model="q")
    with pytest.raises(ValueError, match=r"'component'.*did you mean 'components'"):
        trials(searching(folder, ranges={"options.component": {"choice": [1]}}))
    with pytest.raises(ValueError, match="the card has no table for tune"):
        trials(card_of(folder))
    low = {"model": [{"name": "p", "card": "butterworth"}]}
    cut = searching(folder, ranges={"options.cutoff": {"uniform": [0.5, 1]}})
    with pytest.raises(ValueError, match=r"tune.model: 'p' learns nothing"):
        trials(cut.model_copy(update={"train": Train.model_validate(low)}))
    file = tmp_path / "card.toml"
    file.write_text("[run]\ndir='x'\n[survey]\nroot='y'\n[tune]\nmodel='p'\nranges={}\n")
    with pytest.raises(CardError, match=r"\[tune\] ranges: .*at least 1"):
        load(str(file))


def test_a_search_leaves_the_digest_of_a_card_alone(folder: Path) -> None:
    card = searching(folder)
    assert card.digest == card.model_copy(update={"tune": None}).digest


def test_with_gpus_no_more_trials_run_than_there_are(
    folder: Path, tmp_path: Path, fake: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("pipeline.tune.torch.cuda.device_count", lambda: 2)
    cores = searching(folder, tmp_path, at_once=3)
    card = cores.model_copy(update={"cluster": Cluster(gpus=1, workers=4, threads=1)})
    assert (side_by_side(cores), side_by_side(card)) == (3, 2)
    made = fake()
    tune(card)
    assert made.given == {"threads": 2, "at_once": 2, "gpu": True}
    monkeypatch.setattr("pipeline.tune.torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"cluster.gpus: 1 asked for, .* set gpus = 0"):
        side_by_side(card)
    # How many there are elsewhere is for that cluster to know.
    monkeypatch.setenv("RAY_ADDRESS", "ray://x:1")
    assert side_by_side(card) == 3


def test_a_trial_on_a_gpu_is_trained_on_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def none(*_: object, gpu: bool, **__: object) -> None:
        asked.append(gpu)
        raise RuntimeError("training failed")

    monkeypatch.setattr("training.search.fit.train", none)
    for gpu in (False, True):
        with pytest.raises(RuntimeError, match="training failed"):
            found("a", trials(searching(folder))[0].task, tmp_path, 1, gpu)
    assert asked == [False, True]


def test_ranking_puts_what_did_not_stay_finite_last() -> None:
    lines = [{"val": v, "number": n} for n, v in enumerate((None, 2.0, -1.0, 2.0))]
    assert [line["number"] for line in ranked(lines)] == [2, 1, 3, 0]


@pytest.mark.parametrize(("model", "epoch", "val"), [("dense", 2, 4.0), ("ppca", 3, 6.0)])
def test_a_result_is_that_of_the_epoch_that_is_kept(model: str, epoch: int, val: float) -> None:
    history = [
        {"epoch": n + 1.0, "train": 3.0 - n, "val": val, "lr": 1.0, "seconds": 2.0}
        for n, val in enumerate((5.0, 4.0, 6.0))
    ]
    done = Trained(model=small(model), history=history, folder=Path("x"))
    assert summary("a", history, done.kept) == Result(
        name="a", val=val, train=4.0 - epoch, best_epoch=epoch, epochs=3, seconds=6.0
    )


def test_a_loss_that_is_not_finite_is_a_result_and_a_fault_is_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = trials(searching(folder))[0].task

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("training failed")

    monkeypatch.setattr("training.search.fit.train", broken)
    with pytest.raises(RuntimeError, match="training failed"):
        found("a", task, tmp_path, 1)
    (tmp_path / f"a-{task.digest8}").mkdir()
    (tmp_path / f"a-{task.digest8}" / DIVERGED).write_text("epoch 1")
    assert found("a", task, tmp_path, 1).val is None


@pytest.mark.ray
@pytest.mark.slow
def test_ray_tune_runs_the_trials_and_leaves_no_file_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    card = searching(folder, tmp_path, trials=2)
    lines = tune(card)
    assert len(lines) == len(trials(card)) == 2
    assert all(line["val"] is not None and line["epochs"] == 2 for line in lines)
    left = {file.suffix for file in (tmp_path / "tune").rglob("*") if file.is_file()}
    assert ".pkl" not in left
    assert not list((tmp_path / "tune").rglob("checkpoint_*"))
    assert tune(card) == lines
