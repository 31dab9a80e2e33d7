"""Search: many trials of a model, each trained as any model is, spread by Ray Tune.

Ray Tune only runs them: which trials there are is settled before, and what was found of each is
told as soon as it ends. Its own files, which are pickles, go to a folder that does not outlive it.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import fit
from training.session import session
from training.state import Record
from training.task import Task

TUNE_SETTINGS = {
    # The driver has handlers of its own, and nobody reads Tune's tables.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


SCRATCH = ".tune-"
"The folder of Ray Tune's own files."


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a trial."""

    name: str
    "As the caller calls it."
    val: float | None
    "Its lowest validation loss, or the last by sums; None where the loss did not stay finite."
    train: float | None
    "The training loss of that epoch."
    best_epoch: int
    "That epoch, from 1; 0 for none."
    epochs: int
    "Epochs done."
    seconds: float
    "Of all epochs, without what it takes to start one."


def search(
    tasks: Mapping[str, Task],
    folder: Path,
    note: Callable[[Result], None],
    *,
    threads: int = 1,
    at_once: int = 1,
    gpu: bool = False,
) -> dict[str, str]:
    """Train every task; gives those that broke off, with the reason: they are no results.

    Parameters
    ----------
    tasks : mapping of name to Task
        The trials.
    folder : Path
        Where training runs are; of each trial its curves stay. Seen by all workers.
    note : callable
        Told of every trial that ended, in this process.
    threads, at_once : int
        Of each trial; trials that run side by side.
    gpu : bool
        Whether each trial has a GPU.
    """
    os.environ.update(TUNE_SETTINGS)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{SCRATCH}*"):
        # Of a driver that was killed.
        shutil.rmtree(left)
    with (
        session(threads=threads, workers=at_once, gpus=at_once if gpu else 0),
        tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch,
    ):
        given = {"tasks": dict(tasks), "folder": str(folder), "threads": threads, "gpu": gpu}
        return _run(given, scratch, note, at_once)


def _run(
    given: dict[str, Any],
    scratch: str,
    note: Callable[[Result], None],
    at_once: int,
) -> dict[str, str]:
    from ray import tune

    # It misses the files that it was told not to write.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)

    class Note(tune.Callback):
        """Hands on what a trial reports, when it ends."""

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            found = trial.last_result
            note(Result(**{name: found[name] for name in Result.__dataclass_fields__}))

    # What takes the cores are the workers of Ray Train, which a trial starts; Tune wants a trial
    # itself to take something: a byte.
    trial = tune.with_parameters(_trial, **given)
    trainable = tune.with_resources(trial, {"CPU": 0, "memory": 1})
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(given["tasks"]))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(name="tune", storage_path=scratch, callbacks=[Note()], verbose=0),
    )
    grid = tuner.fit()
    ended = [grid[number] for number in range(len(grid))]
    return {str((one.config or {}).get("trial")): str(one.error) for one in ended if one.error}


def _trial(
    config: dict[str, Any], tasks: Mapping[str, Task], folder: str, threads: int, gpu: bool
) -> None:
    """One trial; runs in a process of Ray's."""
    from ray import tune

    # Ray hides all GPUs from a process that takes none. The workers that this one starts do.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    name = config["trial"]
    tune.report(found(name, tasks[name], Path(folder), threads, gpu).__dict__)


def found(name: str, task: Task, folder: Path, threads: int, gpu: bool = False) -> Result:
    """Train one task; gives what there is to tell of it.

    Raises
    ------
    RuntimeError
        When training failed for another reason than a loss that is not finite.
    """
    try:
        done = fit.train(task, folder, name, threads=threads, gpu=gpu)
    except RuntimeError:
        # A step size that is too large is a result, and the same every time.
        if not (folder / f"{name}-{task.digest8}" / fit.DIVERGED).is_file():
            raise
        return Result(name=name, val=None, train=None, best_epoch=0, epochs=0, seconds=0.0)
    _forget(done.folder)
    return summary(name, done.history, done.kept)


def _forget(folder: Path) -> None:
    """Leave the curves of a trial: of a hundred nobody wants the weights."""
    # Ray's list of the states goes before the states: without it a run begins anew.
    for left in sorted(folder.glob("checkpoint_*"), key=Path.is_dir):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def summary(name: str, history: list[Record], kept: Record) -> Result:
    """The result of a trial that was trained to its end, and of whose epochs one is kept."""
    return Result(
        name=name,
        val=kept["val"],
        train=kept["train"],
        best_epoch=int(kept["epoch"]),
        epochs=len(history),
        seconds=sum(record["seconds"] for record in history),
    )
