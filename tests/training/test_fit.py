"""Training with Ray gives what the plain loop gives; cards that are wrong are named."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from storage.names import shelf
from storage.provenance import code_version
from tests.training.course import learn, longer, task
from training import curves, origin
from training import fit as fitting
from training.fit import train
from training.frames import named
from training.keeper import Keeper
from training.model import Denoiser
from training.recipe import Fit, ModelCard
from training.session import require_gpus, session
from training.task import VERSION

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "deploy/cards/models").glob("*.toml"))
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_is_named_by_what_it_depends_on() -> None:
    work = task()
    assert longer(work, epochs=99).digest8 == work.digest8
    assert longer(work, save_s=1.0).digest8 == work.digest8
    assert longer(work, seed=1).digest8 != work.digest8
    assert longer(work, optimiser="sgd").digest8 != work.digest8
    assert replace(work, train=work.train[1:]).digest8 != work.digest8
    assert (
        longer(work, epochs=9, schedule="onecycle").digest8
        != longer(work, epochs=8, schedule="onecycle").digest8
    )


def test_a_run_of_other_workers_is_another_where_they_learn_otherwise() -> None:
    # A network steps after a batch of each.
    assert len({task().named(workers) for workers in (1, 2, 4)}) == 3
    assert task().named(1) == task().digest8
    assert task("ppca").named(4) == task("ppca").digest8


def test_code_that_teaches_something_else_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = task().digest8
    monkeypatch.setattr("training.task.VERSION", VERSION + 1)
    assert task().digest8 != before


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (1, r"train\.workers: 4 asked for, .* shows 1; set workers = 1 of \[train\], gpus = 0"),
        (0, r"this machine shows 0; set gpus = 0 of \[cluster\] to train on cores, or RAY_ADDRESS"),
    ],
)
def test_more_workers_than_gpus_are_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, message: str
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(fitting, "session", lambda **_: pytest.fail("Ray"))
    with pytest.raises(ValueError, match=message):
        train(task(), tmp_path, "dense", workers=4, gpu=True)


def test_how_many_gpus_a_cluster_has_is_not_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("RAY_ADDRESS", "node1:6379")
    require_gpus(4)


def test_how_often_a_state_is_saved_is_no_part_of_what_was_learnt() -> None:
    assert "save_s" not in task(save_s=1).card.model_dump(mode="json")["fit"]
    assert task(save_s=1).card.fit.save_s == 1


def test_a_model_that_learns_nothing_is_ready_at_once(tmp_path: Path) -> None:
    ready = train(task("butterworth"), tmp_path, "bf")
    assert ready.history == []
    assert ready.precision == {}
    assert not ready.model.training


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_shipped_cards_build(card: Path) -> None:
    assert isinstance(ModelCard.load(card).build(named("fs").grid), Denoiser)


def test_there_is_a_card_for_every_model_of_ours() -> None:
    assert {ModelCard.load(card).model for card in CARDS} == set(shelf("training.models"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model = "dense"\n[fit]\nepoch = 3', r"unknown key 'fit\.epoch'; did you mean 'epochs'"),
        ('modle = "dense"', "unknown key 'modle'; did you mean 'model'|model: Field required"),
        ('model = "dense"\n[options]\nwidth = [3]', "dense: .*'width'; did you mean 'widths'"),
        ('model = "dens"', "did you mean 'dense'"),
        ('model = "dense"\n[fit]\nlr = -1.0', r"fit\.lr: Input should be greater than 0, found -1"),
        ("model = ", "Invalid value"),
    ],
)
def test_mistakes_in_a_card_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(ValueError, match=rf"card\.toml: .*({message})"):
        ModelCard.load(tmp_path / "card.toml")


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    by_sums, by_gradient = task("ppca", epochs=3), task(epochs=12, lr=5e-3, batch_size=20)
    with session(threads=1, workers=2), session(threads=1, workers=2):
        two = train(by_sums, tmp_path, "ppca", workers=2, threads=1)
        shared = train(by_gradient, tmp_path, "dense", workers=2, threads=1)
        broken = replace(
            by_gradient, source=replace(by_gradient.source, arrays={}), val=by_sums.val
        )
        with pytest.raises((RuntimeError, KeyError), match="flux"):
            train(broken, tmp_path, "broken", workers=2, threads=1)
    # Rows are summed in another order, so the last digits differ.
    one = learn(by_sums)
    torch.testing.assert_close(two.model.state_dict()["mean"], one.model["mean"], atol=1e-4, rtol=0)
    flux = two.model(torch.ones(1, 140), torch.full((1, 140), 9.0), torch.zeros(1)).flux
    assert flux.isfinite().all()
    assert shared.history[-1]["val"] < 0.09 < shared.history[0]["val"]
    left = [p.name() for p in psutil.Process().children(recursive=True)]
    assert not [name for name in left if "ray" in name or "gcs" in name]


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_tells_how_it_went(tmp_path: Path) -> None:
    work = task(epochs=3, precision="bfloat16")
    with session(threads=1):
        done = train(work, tmp_path, "dense", threads=1)
        # A loss that is not finite would be so again: it is tried once.
        wild = task(epochs=3, lr=1e20, schedule="constant")
        with pytest.raises(RuntimeError, match=r"wild-.{8}: training failed: epoch 1: .* smaller"):
            train(wild, tmp_path, "wild", threads=1)
    records = [json.loads(line) for line in (done.folder / curves.LINES).read_text().splitlines()]
    assert records == done.history
    assert {*records[0]} == {"epoch", "train", "val", "lr", "seconds", "spectra_per_s"}
    assert done.precision.items() >= {"asked": "bfloat16", "taken": "bfloat16"}.items()
    # What is asked for is measured, too.
    assert done.precision["worst"]["bfloat16"] > 0
    names = {path.name for path in done.folder.iterdir() if not path.name.startswith("checkpoint_")}
    assert names >= {"curves.jsonl", "curves.png"}
    assert not names & {"progress.json", "diverged.txt", "kept"}
    assert done.origin is not None
    assert done.origin.seconds == pytest.approx(sum(record["seconds"] for record in records))
    assert (done.origin.workers, done.origin.threads, done.origin.device) == (1, 1, "cpu")
    assert done.origin.code == (code_version(),)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_go_on_with_what_others_began_only_where_they_learn_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cycle, sums = task(schedule="onecycle", epochs=3), task("ppca", epochs=2)
    with session(threads=1, workers=2):
        one = train(cycle, tmp_path, "dense", threads=1)
        with caplog.at_level(logging.WARNING):
            two = train(cycle, tmp_path, "dense", workers=2, threads=1)
        begun = train(sums, tmp_path, "ppca", threads=1)
        further = train(longer(sums, epochs=4), tmp_path, "ppca", workers=2, threads=1)
    assert f"{one.folder.name} was begun with workers = 1; with 2" in caplog.text
    assert f"{two.folder.name} begins anew" in caplog.text
    # All of its cycle: the step comes down.
    assert [record["epoch"] for record in two.history] == [1, 2, 3]
    assert two.history[-1]["lr"] < 1e-3 / 25 / 100
    # What was begun stays as it is, and what learns by sums goes on.
    assert origin.read(one.folder) == one.origin.model_copy(update={"seconds": 0.0})
    assert further.folder == begun.folder
    assert further.history[:2] == begun.history
    assert further.origin.workers == 2


def test_fit_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="colour"):
        Fit.model_validate({"colour": 1})


@pytest.mark.ray
@pytest.mark.slow
def test_a_state_that_takes_long_to_save_is_not_saved_after_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.train

    kept: list[bool] = []
    monkeypatch.setattr(
        ray.train, "report", lambda metrics, checkpoint=None: kept.append(checkpoint is not None)
    )
    work = task(epochs=3)
    learn(work, report=Keeper(work.card.fit, 0, tmp_path, cost=1000.0))
    # What is learnt is never lost.
    assert kept == [False, False, True]
    assert len(curves.read(tmp_path / curves.LINES)) == 3
