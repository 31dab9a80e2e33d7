"""A run can be stopped between any two batches, and goes on to the same bits."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tests.training.course import DRAWS, assert_alike, assert_same, learn, longer, task
from training import curves
from training import state as states
from training.fit import train
from training.ranks import world
from training.session import session
from training.state import State
from training.task import Task

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def keeping(folder: Path) -> Callable[[State], None]:
    """Writes every state that it is told, by its position."""

    def keep(state: State) -> None:
        states.save(state, folder / "{}-{}".format(*state.position))

    return keep


@pytest.mark.parametrize(
    ("model", "fit"),
    [
        ("dense", {"schedule": "plateau", "stall": 0, "lr": 5e-3}),
        ("dense", {"schedule": "onecycle", "lr": 5e-3}),
        ("dense", {"schedule": "relative", "gain": 0.9, "stall": 1, "min_epochs": 0}),
        ("dense", {"schedule": "step", "every": 1, "optimiser": "sgd", "lr": 1.0, "clip": 0.1}),
        ("dense", {"average": 0.9, "lr": 5e-3}),
        (DRAWS, {"schedule": "constant"}),
        (DRAWS, {"precision": "bfloat16"}),
        ("ppca", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_stopping_between_two_batches_changes_no_bit(
    tmp_path: Path, model: str, fit: dict[str, Any]
) -> None:
    work = task(model, epochs=4, batch_size=64, save_s=0, **fit)
    whole = learn(work, report=keeping(tmp_path))
    assert_alike(whole, learn(longer(work, save_s=300)))
    # Within the first epoch, after the last batch of one, between two, and within a later one.
    for position in ("0-2", "0-4", "1-0", "2-3"):
        assert_alike(learn(work, state=states.load(tmp_path / position)), whole)


def test_sums_so_far_are_kept(tmp_path: Path) -> None:
    work = task("ppca", epochs=1, batch_size=64, save_s=0)
    learn(work, report=keeping(tmp_path))
    kept = states.load(tmp_path / "0-2")
    # One rank, two batches.
    assert kept.sums["spectra"].tolist() == [128]
    assert kept.sums.keys() > {"spectra"}
    assert states.load(tmp_path / "1-0").sums == {}


def test_the_best_so_far_is_kept_beside_the_last(tmp_path: Path) -> None:
    work = task(DRAWS, lr=0.1, epochs=6, batch_size=64, schedule="constant", save_s=0)
    vals = [record["val"] for record in learn(work, report=keeping(tmp_path)).history]
    best = [1 + vals.index(min(vals[:done])) for done in range(1, 6)]
    # So large a step makes an epoch worse than one before.
    done = next(done for done in range(1, 6) if best[done - 1] < done)
    kept = states.load(tmp_path / f"{done}-2")
    assert_same(kept.best, states.load(tmp_path / f"{best[done - 1]}-0").model)
    assert any(not torch.equal(value, kept.model[name]) for name, value in kept.best.items())


def test_more_epochs_go_on_from_fewer(tmp_path: Path) -> None:
    for model in ("dense", "ppca"):
        work = task(model, epochs=5)
        states.save(learn(longer(work, epochs=2)), tmp_path / model)
        assert_alike(learn(work, state=states.load(tmp_path / model)), learn(work))


def test_other_ranks_begin_the_epoch_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = task("ppca", epochs=2, batch_size=64, save_s=0)
    whole = learn(work, report=keeping(tmp_path))
    kept = states.load(tmp_path / "1-3")
    two = {name: torch.cat([value, value]) for name, value in kept.sums.items()}
    with caplog.at_level(logging.WARNING):
        found = learn(work, state=states.State(**vars(kept) | {"sums": two}))
    assert "2 ranks left epoch 2 after 3 batches, 1 are here: it begins anew" in caplog.text
    # By sums nothing is learnt before the epoch is over.
    assert_alike(found, whole)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["dense", DRAWS, "ppca"])
@pytest.mark.parametrize("precision", ["highest", "bfloat16"])
def test_a_gpu_goes_on_to_the_same_bits(tmp_path: Path, model: str, precision: str) -> None:
    gpu = {"device": torch.device("cuda")}
    work = task(model, epochs=3, batch_size=64, save_s=0, precision=precision)
    whole = learn(work, report=keeping(tmp_path), **gpu)
    for position in ("0-2", "1-3"):
        assert_alike(learn(work, state=states.load(tmp_path / position), **gpu), whole)


def _rank(rank: int, folder: Path) -> None:
    """One of two; asserts here reach the test."""
    torch.set_num_threads(1)
    meet = f"file://{folder / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    assert world() == 2
    how = {"wrap": lambda module: DistributedDataParallel(module, find_unused_parameters=True)}
    for model, position in ((DRAWS, "1-16"), ("ppca", "1-16"), ("ppca", "0-48")):
        # By sums, 47 batches of the first and 48 of the other: the first waits for it.
        work = task(model, n=249, epochs=2, batch_size=2, save_s=0)
        kept = keeping(folder / model) if not rank else lambda state: None
        whole = learn(work, None, rank, 2, report=kept, **how)
        dist.barrier()
        state = states.load(folder / model / position)
        assert len(state.sums["spectra"]) == 2
        assert_alike(learn(work, state, rank, 2, **how), whole)
        both = [torch.empty_like(value) for value in whole.model.values() for _ in range(2)]
        for value, (first, second) in zip(
            whole.model.values(), zip(both[::2], both[1::2], strict=True), strict=True
        ):
            dist.all_gather([first, second], value.contiguous())
            # Running means are those of the first when rows are watched.
            assert torch.equal(first, second)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_stop_between_two_batches_too(tmp_path: Path) -> None:
    spawn(_rank, (tmp_path,), nprocs=2)


def last_position(folder: Path) -> tuple[int, int]:
    """Of the state that Ray has kept: epochs, batches."""
    try:
        said = json.loads((folder / "checkpoint_manager_snapshot.json").read_text())
        metrics = said["latest_checkpoint_result"]["metrics"]
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return (0, 0)
    return metrics["epoch"], metrics["batch"]


def wait_for(folder: Path, position: tuple[int, int]) -> None:
    """Until a run is so far."""
    for _ in range(24000):
        if last_position(folder) >= position:
            return
        time.sleep(0.005)
    raise AssertionError(f"{folder} is at {last_position(folder)} after two minutes")


def family(process: psutil.Process, name: str) -> list[psutil.Process]:
    """Those children of a driver that train. Ray's agents, which touch no run, stay for a while."""
    found = process.children(recursive=True)
    return [child for child in found if child.name().startswith(name)]


def many_batches(workers: int) -> Task:
    """At every time, nearly, within an epoch; two workers save after every 16th batch."""
    return task(DRAWS, epochs=3, batch_size=5 if workers == 1 else 2, save_s=0)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_changes_no_bit(tmp_path: Path, workers: int) -> None:
    work = many_batches(workers)
    killed: list[tuple[int, int]] = []

    def kill(position: tuple[int, int], which: int) -> None:
        folder = tmp_path / "killed" / f"draws-{work.named(workers)}"
        wait_for(folder, position)
        victims = family(psutil.Process(), "ray::RayTrain")
        killed.append(last_position(folder))
        victims[which % len(victims)].send_signal(signal.SIGKILL)

    def kill_twice() -> None:
        kill((0, 16), 0)
        kill((1, 16), 1)

    with session(threads=1, workers=workers):
        hand = threading.Thread(target=kill_twice)
        hand.start()
        found = train(work, tmp_path / "killed", "draws", workers=workers, threads=1)
        hand.join()
        whole = train(work, tmp_path / "whole", "draws", workers=workers, threads=1)
    assert len(killed) == 2
    assert any(batch for _, batch in killed)
    assert_same(found.model.state_dict(), whole.model.state_dict())
    assert [r["val"] for r in found.history] == [r["val"] for r in whole.history]
    if workers == 1:
        assert_same(found.model.state_dict(), learn(work).best)
    # Of all those states one is left, and nothing half written.
    assert len(list(found.folder.glob("checkpoint_2*"))) == 1
    assert not list(found.folder.glob(".state-*"))


# The driver is a script in another folder, as a user's is; it says how far it is on stdout.
DRIVER = """
from pathlib import Path
from tests.training.test_resume import many_batches
from training.fit import train
from training.session import session
with session(threads=1, workers={workers}):
    done = train(many_batches({workers}), Path("runs"), "draws", workers={workers}, threads=1)
print(done.folder.name, len(done.history))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_driver_is_started_again_to_the_same_bits(tmp_path: Path, workers: int) -> None:
    work = many_batches(workers)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(workers=workers))
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path / "runs" / f"draws-{work.named(workers)}"
    first = subprocess.Popen(command, cwd=tmp_path, env=environment)
    wait_for(folder, (0, 16))
    them = family(psutil.Process(first.pid), "ray::TrainCont")
    them += family(psutil.Process(first.pid), "ray::RayTrain")
    # Without its driver a worker goes on for a second or two: enough, here, to finish.
    for process in (*them, first):
        process.send_signal(signal.SIGKILL)
    first.wait()
    assert len(them) == 1 + workers
    assert psutil.wait_procs(them, timeout=30)[1] == []
    stopped = last_position(folder)
    assert (0, 16) <= stopped < (3, 0)
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert again.stdout.split() == [folder.name, "3"]
    with session(threads=1, workers=workers):
        whole = train(work, tmp_path / "whole", "draws", workers=workers, threads=1)
    (kept,) = folder.glob("checkpoint_2*")
    assert_same(states.load(kept).best, whole.model.state_dict())
    told = curves.read(folder / curves.LINES)
    assert [record["epoch"] for record in told] == [1, 2, 3]
    assert [r["val"] for r in told] == [r["val"] for r in whole.history]
