"""Fit: teach the model of a card on the rows of a survey, with Ray Train; resumable.

A run is a folder named by what it depends on. A driver that was killed is simply started again.
"""

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.loop import loop
from training.model import Denoiser
from training.state import Record, State, load, save, write_curves
from training.task import Task

logger = logging.getLogger(__name__)

CURVES = "curves.jsonl"
ROOT = Path(__file__).resolve().parents[1]
"The folder that the packages are in: workers import from it, wherever they run."

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A report() waits for the next look at the workers, two seconds away by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.02",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray listens on every interface of the machine, so it keeps its token; ours lives in this
    # process and its children only, and leaves no file in the user's home.
    "RAY_AUTH_MODE": "token",
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that has learnt."""

    model: Denoiser
    "At its best epoch, in eval mode, on the CPU."
    history: list[Record]
    "One record an epoch: epoch, train, val, lr, seconds."
    folder: Path
    "Of the run: curves.jsonl, and the last state."


@contextmanager
def session(threads: int = 1, workers: int = 1, gpus: int = 0) -> Iterator[None]:
    """One Ray for everything inside; nothing of it is left afterwards. Inside another: that one.

    RAY_ADDRESS, when set, names a cluster that is joined instead of started.
    """
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {"num_cpus": workers * threads, "num_gpus": gpus}
    own["include_dashboard"] = False
    ray.init(
        **({} if "RAY_ADDRESS" in os.environ else own),
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
    )
    try:
        yield
    finally:
        ray.shutdown()


def train(
    task: Task,
    run_dir: Path,
    name: str,
    *,
    workers: int = 1,
    threads: int = 0,
    gpu: bool = False,
) -> Trained:
    """Teach a model; continues where an earlier call with the same task was stopped.

    Parameters
    ----------
    task : Task
        What to learn, from which rows.
    run_dir : Path
        Where runs are; this one's folder is <name>-<digest8 of the task>. Seen by all workers.
    workers, threads : int
        Ray workers, and threads of each; 0 is the card's, or its share of the cores.
    gpu : bool
        Whether each worker has a GPU.

    Raises
    ------
    ValueError
        When the card, or the number of rows, is no good: before anything is started.
    RuntimeError
        When training failed; the worker's own error is its cause.
    """
    model = task.card.build(task.frame.grid).eval()
    folder = Path(run_dir).resolve() / f"{name}-{task.digest8}"
    folder.mkdir(parents=True, exist_ok=True)
    if model.fit == "none":
        return Trained(model=model, history=[], folder=folder)
    task.batches("train", world=workers)
    threads = threads or task.card.fit.threads or max(1, (os.cpu_count() or 1) // workers)
    with session(threads=threads, workers=workers, gpus=workers if gpu else 0):
        state = _run(task, folder, workers, threads, gpu)
    write_curves(state.history, folder / CURVES)
    model.load_state_dict(state.best)
    return Trained(model=model, history=state.history, folder=folder)


def _run(task: Task, folder: Path, workers: int, threads: int, gpu: bool) -> State:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    trainer = TorchTrainer(
        _worker,
        train_loop_config={"task": task, "folder": str(folder), "threads": threads},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": threads}
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            # A worker that died is replaced, and goes on at the last epoch.
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise RuntimeError(f"{folder}: training failed: {error}") from error
    assert result.checkpoint is not None
    _sweep(folder, kept=Path(result.checkpoint.path).name)
    with result.checkpoint.as_directory() as kept:
        return load(Path(kept))


def _sweep(folder: Path, kept: str) -> None:
    """Remove what killed drivers left behind."""
    for left in (*folder.glob("checkpoint_*"), *folder.glob(".epoch-*")):
        if left.is_dir() and left.name != kept:
            shutil.rmtree(left)


def _worker(config: dict[str, Any]) -> None:
    """One rank; runs in a process of Ray's."""
    import ray.train
    from ray.train.torch import get_device, prepare_model

    # Ray sets one thread, whatever the worker was given.
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    task: Task = config["task"]
    before = ray.train.get_checkpoint()
    with before.as_directory() if before else nullcontext() as kept:
        state = load(Path(kept)) if kept else None
    if state is not None and state.epoch > task.card.fit.epochs:
        # The card wants fewer than were done before: what it wants is another model.
        state = None
    loop(
        task.card.build(task.frame.grid),
        task.batches("train", rank, world),
        task.batches("val", rank, world) if len(task.val) else None,
        task.card.fit,
        state=state,
        report=lambda state: _report(state, rank, Path(config["folder"])),
        wrap=prepare_model if world > 1 else lambda module: module,
        device=get_device(),
    )


def _report(state: State, rank: int, folder: Path) -> None:
    """Hand the state to Ray, which keeps it; all ranks meet here."""
    import ray.train
    from ray.train import Checkpoint

    metrics = dict(state.history[-1])
    if rank:
        ray.train.report(metrics)
        return
    # Beside the run, so that keeping it is a rename away and /tmp need not hold it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".epoch-") as temporary:
        save(state, Path(temporary))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(temporary))
    write_curves(state.history, folder / CURVES)


def _python_path() -> str:
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(other for other in others if other)])
