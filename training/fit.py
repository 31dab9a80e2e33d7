"""Fit: teach the model of a card on the rows of a survey, with Ray Train; resumable.

A run is a folder named by what it depends on. A driver that was killed is simply started again; a
worker that was killed is started again by the driver. Both go on at the last state saved.
"""

import logging
import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training import curves, origin, progress
from training.keeper import Keeper
from training.kept import FOLDER, Kept, room
from training.loop import loop, over
from training.model import Denoiser
from training.origin import Origin
from training.session import require_gpus, session
from training.state import Record, State, load
from training.task import Task

logger = logging.getLogger(__name__)

DIVERGED = "diverged.txt"
"Why a run is not worth trying again."
FAILURES = 3
"Workers that may be lost in a run, beside those of machines that were taken away."


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that has learnt."""

    model: Denoiser
    "At its best epoch, in eval mode, on the CPU."
    history: list[Record]
    "One record an epoch: epoch, train, val, lr, seconds, spectra_per_s."
    folder: Path
    "Of the run: curves.jsonl, curves.png, and the last state."
    precision: dict[str, Any] = field(default_factory=dict)
    "How products were rounded at the end, and what that moves: `training.rounding.look`."
    origin: Origin | None = None
    "When, where and by what it was taught; None where the run does not say."

    @property
    def kept(self) -> Record:
        """Of the epoch that the model is of: the best one; by sums, the last."""
        if self.model.fit != "gradient":
            return self.history[-1]
        return min(self.history, key=lambda record: record["val"])

    @property
    def metrics(self) -> dict[str, float]:
        """How the training ended, but for times; a model that learns nothing has no losses."""
        if not self.history:
            return {}
        last = self.history[-1]
        return {
            "best_epoch": int(self.kept["epoch"]),
            "best_val": self.kept["val"],
            "train": last["train"],
            "val": last["val"],
        }


def train(
    task: Task,
    run_dir: Path,
    name: str,
    *,
    workers: int = 1,
    threads: int = 0,
    gpu: bool = False,
    kept_bytes: int = 32 << 30,
) -> Trained:
    """Teach a model; continues where an earlier call with the same task was stopped.

    A network that other than so many workers began is taught anew: it would learn otherwise.

    Parameters
    ----------
    task : Task
        What to learn, from which rows.
    run_dir : Path
        Where runs are; this one's folder is <name>-<`task.named(workers)`>. Seen by all workers.
    workers, threads : int
        Ray workers, and threads of each; 0 is the card's, or its share of the cores.
    gpu : bool
        Whether each worker has a GPU.
    kept_bytes : int
        What spectra on the frame may take in the folder meanwhile, for epochs after the first.

    Raises
    ------
    ValueError
        When the card, or the number of rows or GPUs, is no good: before anything is started.
    RuntimeError
        When training failed; the worker's own error is its cause.
    """
    model = task.card.build(task.frame.grid).eval()
    folder = Path(run_dir).resolve() / f"{name}-{task.named(workers)}"
    folder.mkdir(parents=True, exist_ok=True)
    if model.fit == "none":
        found = origin.here(task.digest8, 1, torch.get_num_threads(), torch.device("cpu"))
        return Trained(model=model, history=[], folder=folder, origin=found)
    require_gpus(workers if gpu else 0)
    task.batches("train", world=workers)
    if len(task.val):
        task.batches("val", world=workers)
    threads = threads or task.card.fit.threads or max(1, (os.cpu_count() or 1) // workers)
    (folder / DIVERGED).unlink(missing_ok=True)
    _say_of_others(task, folder, name, workers)
    own = session(threads=threads, workers=workers, gpus=workers if gpu else 0)
    with own, room(folder), progress.shown(folder, task.card.fit.epochs):
        state = _run(task, folder, workers, threads, gpu, kept_bytes)
    curves.write(state.history, folder / curves.LINES)
    curves.draw(state.history, folder / curves.PICTURE, folder.name)
    model.load_state_dict(state.best)
    return Trained(
        model=model,
        history=state.history,
        folder=folder,
        precision=state.precision,
        origin=_origin(folder, state),
    )


def _say_of_others(task: Task, folder: Path, name: str, workers: int) -> None:
    """Warn of a run by another number of workers that a new one does not go on with."""
    if origin.read(folder):
        return
    for other in sorted(folder.parent.glob(f"{name}-????????")):
        said = origin.read(other)
        if said and said.task == task.digest8 and other != folder:
            logger.warning(
                "%s was begun with workers = %d; with %d, and batch_size of each, a network learns "
                "otherwise: %s begins anew",
                other.name,
                said.workers,
                workers,
                folder.name,
            )


def _origin(folder: Path, state: State) -> Origin | None:
    said = origin.read(folder)
    seconds = sum(record["seconds"] for record in state.history)
    return said.model_copy(update={"seconds": seconds}) if said else None


def _run(task: Task, folder: Path, workers: int, threads: int, gpu: bool, kept_bytes: int) -> State:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "task": task,
            "folder": str(folder),
            "threads": threads,
            # Beside a network on the same cores, more readers are no faster.
            "readers": threads if gpu else 1,
            "kept_bytes": kept_bytes // workers,
        },
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": threads}
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            # A worker that died is replaced, and all go on at the last state.
            failure_config=FailureConfig(max_failures=FAILURES),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(f"{folder}: training failed: {error}") from error
    if (why := folder / DIVERGED).exists():
        raise RuntimeError(f"{folder}: training failed: {why.read_text()}")
    assert result.checkpoint is not None
    _sweep(folder, kept=result.checkpoint.path)
    with result.checkpoint.as_directory() as kept:
        return load(Path(kept))


def _sweep(folder: Path, kept: str) -> None:
    """Remove what killed processes left behind: one state stays, the one that is gone on from."""
    for left in (*folder.glob("checkpoint_*"), *folder.glob(".state-*")):
        if left.is_dir() and left.name != Path(kept).name:
            shutil.rmtree(left)


def _worker(config: dict[str, Any]) -> None:
    """One rank; runs in a process of Ray's."""
    import ray.train
    from ray.train.torch import get_device

    # Ray sets one thread, whatever the worker was given.
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    task, folder = config["task"], Path(config["folder"])
    reading = {
        "readers": config["readers"],
        "kept": Kept(folder=folder / FOLDER, limit=config["kept_bytes"]),
    }
    before = _before(task, folder, rank)
    if not rank and (before is None or not over(before, task.card.fit)):
        found = origin.here(task.digest8, world, config["threads"], get_device())
        origin.note(folder, found, goes_on=before is not None)
    try:
        loop(
            task.card.build(task.frame.grid),
            task.batches("train", rank, world, **reading),
            task.batches("val", rank, world, **reading) if len(task.val) else None,
            task.card.fit,
            state=before,
            report=Keeper(task.card.fit, rank, folder),
            tell=(lambda step: None) if rank else progress.Pulse(folder / progress.NOW),
            wrap=_averaged if world > 1 else lambda module: module,
            device=get_device(),
        )
    except FloatingPointError as error:
        # Raised, it would be tried again, and come to the same.
        if not rank:
            (folder / DIVERGED).write_text(str(error))


def _before(task: Task, folder: Path, rank: int) -> State | None:
    """Where an earlier run stopped."""
    import ray.train

    kept = ray.train.get_checkpoint()
    if not rank:
        _sweep(folder, kept=kept.path if kept else "")
    with kept.as_directory() if kept else nullcontext() as place:
        state = load(Path(place)) if place else None
    if state is not None and state.position > (task.card.fit.epochs, 0):
        # The card wants fewer than were done before: what it wants is another model.
        return None
    return state


def _averaged(module: nn.Module) -> nn.Module:
    """The module, its gradients averaged over ranks."""
    from ray.train.torch import prepare_model

    # Told so, PyTorch leaves gradients in the order that it has put them in at first. Otherwise
    # it sorts them anew after one batch, and three ranks that go on would add in another order.
    wrapped: nn.Module = prepare_model(
        module, parallel_strategy_kwargs={"find_unused_parameters": True}
    )
    return wrapped
