"""A run can be stopped anywhere and started again; Ray gives what the plain loop gives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from storage.grid import Grid
from storage.names import shelf
from training import state as states
from training.fit import CURVES, session, train
from training.frame import Frame
from training.frames import named
from training.loop import loop
from training.model import Denoiser
from training.recipe import Fit, ModelCard
from training.source import ArraySource
from training.state import State
from training.task import Task

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "deploy/cards/models").glob("*.toml"))
GRID = Grid(kind="linear", start=4000, step=2, size=150)
FRAME = Frame(
    name="t", grid=Grid(kind="linear", start=4005, step=2, size=140), window=(4010, 4280), dust=None
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the workers have here: another number of threads rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task(model: str = "dense", n: int = 300, **fit: Any) -> Task:
    """Learn spectra of one varying component; the last 60 rows are watched."""
    random = np.random.default_rng(0)
    shape = np.sin(GRID.wavelength / 20)
    truth = 1 + 0.3 * random.normal(size=(n, 1)) * shape
    flux = (truth + 0.1 * random.normal(size=truth.shape)).astype("f4")
    arrays = {"flux": flux, "ivar": np.full_like(flux, 100), "z": np.zeros(n), "ebv": np.zeros(n)}
    options = {
        "dense": {"widths": [140, 24, 4, 24, 140]},
        "ppca": {"components": 3},
    }.get(model, {})
    how = {"epochs": 6, "batch_size": 32, "lr": 1e-3} | fit
    return Task(
        card=ModelCard.parse({"model": model, "options": options, "fit": how}),
        source=ArraySource(grid=GRID, arrays=arrays, chunk=50),
        frame=FRAME,
        train=np.arange(n - 60),
        val=np.arange(n - 60, n),
    )


def learn(work: Task, state: State | None = None, **how: Any) -> State:
    """The plain loop, without Ray."""
    return loop(
        work.card.build(FRAME.grid),
        work.batches("train"),
        work.batches("val"),
        work.card.fit,
        state=state,
        **how,
    )


def longer(work: Task, **fit: Any) -> Task:
    card = work.card.model_copy(update={"fit": work.card.fit.model_copy(update=fit)})
    return replace(work, card=card)


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.mark.parametrize("schedule", ["plateau", "constant", "onecycle"])
def test_stopping_and_going_on_changes_no_bit(tmp_path: Path, schedule: str) -> None:
    kept: dict[int, Path] = {}

    def keep(state: State) -> None:
        kept[state.epoch] = tmp_path / str(state.epoch)
        states.save(state, kept[state.epoch])

    work = task(schedule=schedule, stall=0, lr=5e-3)
    whole = learn(work, report=keep)
    resumed = learn(work, state=states.load(kept[3]))
    assert_same(resumed.model, whole.model)
    assert_same(resumed.best, whole.best)
    assert [r["val"] for r in resumed.history] == [r["val"] for r in whole.history]
    assert [r["lr"] for r in resumed.history] == [r["lr"] for r in whole.history]


def test_sums_go_on_too(tmp_path: Path) -> None:
    work = task("ppca")
    first = learn(longer(work, epochs=2))
    states.save(first, tmp_path)
    assert_same(learn(work, state=states.load(tmp_path)).model, learn(work).model)


def test_learning_is_seen_on_rows_it_did_not_see() -> None:
    history = learn(task(epochs=20, lr=5e-3)).history
    assert [record["epoch"] for record in history] == list(range(1, 21))
    # The noise alone is 0.1 sqrt(2 / pi) = 0.08; the component adds as much again.
    assert history[-1]["val"] < 0.09 < history[0]["val"]


def test_best_is_the_epoch_of_the_lowest_validation_loss() -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def keep(state: State) -> None:
        seen[state.epoch] = {name: value.clone() for name, value in state.model.items()}

    last = learn(task(lr=0.1, epochs=8, schedule="constant"), report=keep)
    vals = [record["val"] for record in last.history]
    assert last.best_epoch == 1 + int(np.argmin(vals))
    assert_same(last.best, seen[last.best_epoch])


def test_patience_ends_a_run_that_gets_no_better() -> None:
    last = learn(task(lr=0.3, epochs=200, schedule="constant", patience=3))
    assert last.epoch == last.best_epoch + 3 < 200


def test_plateau_shrinks_the_step_to_its_least() -> None:
    last = learn(task(lr=0.3, epochs=12, stall=0, factor=0.1, min_lr=0.2, clip=1.0))
    assert {round(record["lr"], 12) for record in last.history} == {0.3, 0.2}


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(FloatingPointError, match=r"epoch 1: .* use a smaller lr"):
        learn(task(lr=1e20, schedule="constant"))


def test_without_rows_to_watch_the_training_loss_is_watched() -> None:
    work = task(epochs=2)
    last = loop(work.card.build(FRAME.grid), work.batches("train"), None, work.card.fit)
    assert all(record["val"] == record["train"] for record in last.history)


def test_a_run_is_named_by_what_it_depends_on() -> None:
    work = task()
    assert longer(work, epochs=99).digest8 == work.digest8
    assert longer(work, seed=1).digest8 != work.digest8
    assert replace(work, train=work.train[1:]).digest8 != work.digest8
    assert (
        longer(work, epochs=9, schedule="onecycle").digest8
        != longer(work, epochs=8, schedule="onecycle").digest8
    )


def test_a_model_that_learns_nothing_is_ready_at_once(tmp_path: Path) -> None:
    ready = train(task("butterworth"), tmp_path, "bf")
    assert ready.history == []
    assert not ready.model.training


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_shipped_cards_build(card: Path) -> None:
    assert isinstance(ModelCard.load(card).build(named("fs").grid), Denoiser)


def test_there_is_a_card_for_every_model_of_ours() -> None:
    assert {ModelCard.load(card).model for card in CARDS} >= {
        *({"dense", "ppca", "pca", "mean", "butterworth"} & set(shelf("training.models")))
    }


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


# The driver is a script in another folder, as a user's is; it says how far it is on stdout.
DRIVER = """
import sys
sys.path.insert(0, {tests!r})
import test_fit
from pathlib import Path
from training.fit import session, train
with session(threads=1):
    done = train(test_fit.task(epochs=60), Path("runs"), "dense", threads=1)
print(done.folder.name, len(done.history))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_is_started_again_to_the_same_bits(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=tmp_path, env=environment)
    curves = tmp_path / "runs" / f"dense-{task(epochs=60).digest8}" / CURVES
    family = wait_for(curves, lines=3, process=first)
    # Without its driver a worker goes on for a second or two: enough, here, to finish.
    for process in (*family, first):
        process.send_signal(signal.SIGKILL)
    first.wait()
    assert len(family) == 2
    assert psutil.wait_procs(family, timeout=30)[1] == []
    before = len(curves.read_text().splitlines())
    assert 3 <= before < 60
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert again.stdout.split() == [curves.parent.name, "60"]
    records = [json.loads(line) for line in curves.read_text().splitlines()]
    assert [record["epoch"] for record in records] == list(range(1, 61))
    undisturbed = learn(task(epochs=60))
    (kept,) = curves.parent.glob("checkpoint_2*")
    assert_same(states.load(kept).model, undisturbed.model)
    assert [r["val"] for r in records] == [r["val"] for r in undisturbed.history]


def wait_for(curves: Path, lines: int, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Wait until a run has done some epochs; gives those of its children that train."""
    for _ in range(24000):
        assert process.poll() is None, "the driver ended by itself"
        if curves.exists() and len(curves.read_text().splitlines()) >= lines:
            # Ray's agents, which touch no run, stay for a while; those that train must go.
            return [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if child.name().startswith(("ray::TrainCont", "ray::RayTrain"))
            ]
        time.sleep(0.005)
    raise AssertionError(f"{curves} has fewer than {lines} lines after two minutes")


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


def test_fit_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="colour"):
        Fit.model_validate({"colour": 1})
