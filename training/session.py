"""Session: one Ray for all that is trained together."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"The folder that the packages are in: workers import from it, wherever they run."

RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would let everything else on the machine go first.
    "RAY_worker_niceness": "0",
    # A report() waits for the next look at the workers, two seconds away by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.02",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray listens on every interface of the machine, so it keeps its token; ours lives in this
    # process and its children only, and leaves no file in the user's home.
    "RAY_AUTH_MODE": "token",
}


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


def require_gpus(workers: int) -> None:
    """Refuse workers that have no GPU of their own on this machine, where Ray is ours.

    Raises
    ------
    ValueError
        Says what to do instead. What Ray is told it believes, and workers would fail at their work.
    """
    import torch

    there = torch.cuda.device_count()
    if "RAY_ADDRESS" in os.environ or workers <= there:
        return
    fewer = f"workers = {there} of [train], " if there else ""
    raise ValueError(
        f"train.workers: {workers} asked for, each on a GPU of its own, but this machine shows "
        f"{there}; set {fewer}gpus = 0 of [cluster] to train on cores, or RAY_ADDRESS to train on "
        "a cluster that has them"
    )


def _python_path() -> str:
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(other for other in others if other)])
