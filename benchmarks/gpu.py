"""Networks at the papers' sizes on a GPU: spectra a second of a training step, share of the peak.

    PYTHONPATH=. python -P benchmarks/gpu.py [fs spender dae unet] [--device cuda] [--batches 50]
        [--precision medium] [--peak-tflops 494] [--ray] [--out FILE]

A step is that of the training loop, on batches that are on the device already: loss, gradient,
fused optimiser and the running mean of the weights where the card has one, with its batch size and
its rounding, on mock spectra. Floating operations are those of the matrix products and convolutions
that PyTorch counts in one step; the peak is the one that is given, else that of a large matrix
product measured in the same run with the same rounding, as the table says. `--ray` trains the same
by `training.fit` in a Ray worker, loader and all, and gives the rate of its epochs after the first.
`--device cpu` takes the same way.
"""

import argparse
import platform
import resource
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from storage.grid import Grid
from storage.names import resolve
from training import fit, rounding
from training.batch import Batch, move
from training.frames import named
from training.learner import Gradient
from training.recipe import ModelCard
from training.source import Arrays, ArraySource
from training.state import State
from training.task import Task

CARDS = Path(__file__).parents[1] / "deploy" / "cards"
GRIDS = {
    "star-v1": Grid(kind="log", start=3.848, step=1e-4, size=1010),
    "mock-v1": Grid(kind="log", start=3.55, step=1e-4, size=4700),
}
MODELS = ("fs", "spender", "dae", "unet")
STARS = ("dae", "unet")
DISTINCT = 4
"Batches that are told apart; more steps take them again."
WARM = 5
SIDE = {"cuda": 8192, "cpu": 1024}
"Of the matrices that a peak is measured with."


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one network came to."""

    model: str
    parameters: int
    batch: int
    precision: str
    step_ms: float
    spectra_s: float
    tflops: float
    peak: float
    memory_gb: float
    ray_s: float | None


@cache
def survey(mock: str, n: int) -> Arrays:
    options = tomllib.loads((CARDS / f"mocks/{mock}.toml").read_text())
    made = resolve("storage.mocks", options.pop("mock")).build(**options)
    truth = made.truth(n, GRIDS[mock], 1, "gpu")
    seen = made.observe(truth, GRIDS[mock], 1, "gpu")
    found = {name: seen[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")}
    return found | {"truth": truth["flux"].to_numpy()}


def task(name: str, precision: str, batch_size: int) -> Task:
    card = ModelCard.load(CARDS / f"models/{name}.toml")
    changes = {"precision": precision or card.fit.precision}
    changes |= {"batch_size": batch_size or card.fit.batch_size}
    card = card.model_copy(update={"fit": card.fit.model_copy(update=changes)})
    mock, n = "star-v1" if name in STARS else "mock-v1", DISTINCT * card.fit.batch_size
    return Task(
        card=card,
        source=ArraySource(grid=GRIDS[mock], arrays=survey(mock, n), chunk=card.fit.batch_size),
        frame=named(card.frame or "fs"),
        train=np.arange(n),
        val=np.arange(0),
    )


def synchronised(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(taken: str, device: torch.device) -> float:
    """TFLOP/s of a product of two square matrices, the best of five."""
    side = SIDE[device.type]
    a = torch.randn(side, side, device=device)
    best = float("inf")
    with rounding.products(taken, device), rounding.forward(taken, device):
        for _ in range(6):
            began = synchronised(device)
            torch.mm(a, a)
            best = min(best, synchronised(device) - began)
    return 2 * side**3 / best / 1e12


def measured(work: Task, name: str, options: argparse.Namespace) -> Line:
    device, how = torch.device(options.device), work.card.fit
    model = work.card.build(work.frame.grid)
    batches = [move(batch, device) for batch in work.batches("train").epoch(0)]
    model.to(device).start(lambda: batches, seed=0)
    found = rounding.look(how.precision, model, lambda: batches[0], work.frame.grid, {})
    taken = str(found["taken"])
    state = State(epoch=0, model={}, best={})
    learner = Gradient(model.train(), how, options.batches, state, lambda module: module)
    with rounding.products(taken, device):
        flops = counted(lambda: learner.learn(batches[0], taken))
        seconds = timed(learner, batches, taken, options.batches, device)
    rate = float(np.mean([len(batch.x) for batch in batches])) / seconds
    return Line(
        model=name,
        parameters=model.parameters_count(),
        batch=how.batch_size,
        precision=taken,
        step_ms=1e3 * seconds,
        spectra_s=rate,
        tflops=flops / seconds / 1e12,
        peak=options.peak_tflops or peak(taken, device),
        memory_gb=memory(device),
        ray_s=through_ray(work, options) if options.ray else None,
    )


def counted(step: Callable[[], None]) -> int:
    """Floating operations of products and convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def timed(
    learner: Gradient, batches: list[Batch], taken: str, steps: int, device: torch.device
) -> float:
    """Seconds a step: all of them in a row, since a GPU works while Python goes ahead."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for batch in islice(cycle(batches), min(WARM, steps)):
        learner.learn(batch, taken)
    began = synchronised(device)
    for batch in islice(cycle(batches), steps):
        learner.learn(batch, taken)
    return (synchronised(device) - began) / steps


def memory(device: torch.device) -> float:
    """Largest so far, GB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def through_ray(work: Task, options: argparse.Namespace) -> float:
    """Spectra a second of the epochs after the first."""
    epochs = 1 + -(-options.batches // DISTINCT)
    card = work.card.model_copy(
        update={"fit": work.card.fit.model_copy(update={"epochs": epochs, "schedule": "constant"})}
    )
    again = Task(card=card, source=work.source, frame=work.frame, train=work.train, val=work.val)
    with tempfile.TemporaryDirectory() as folder:
        done = fit.train(again, Path(folder), "gpu", gpu=options.device == "cuda")
    return float(np.median([record["spectra_per_s"] for record in done.history[1:]]))


def table(lines: list[Line]) -> str:
    head = ("model", "parameters", "batch", "precision", "ms a step", "spectra/s", "TFLOP/s")
    head = (*head, "of peak", "GB", "by Ray")
    rows = [
        (
            *(line.model, f"{line.parameters:,}", str(line.batch), line.precision),
            *(f"{line.step_ms:.2f}", f"{line.spectra_s:,.0f}", f"{line.tflops:.3g}"),
            *(f"{line.tflops / line.peak:.0%} of {line.peak:.3g}", f"{line.memory_gb:.2f}"),
            "" if line.ray_s is None else f"{line.ray_s:,.0f}",
        )
        for line in lines
    ]
    marks = tuple("---" for _ in head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def machine(options: argparse.Namespace) -> str:
    name = platform.processor() or platform.machine()
    where = f"{name}, {torch.get_num_threads()} threads"
    if options.device == "cuda":
        where = torch.cuda.get_device_name()
    of_peak = "given" if options.peak_tflops else "of a matrix product in this run"
    today = datetime.now(UTC).date()
    return f"{today}, {where}, torch {torch.__version__}; plain PyTorch steps, peak {of_peak}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batches", type=int, default=50, help="steps that are timed")
    parser.add_argument("--batch-size", type=int, default=0, help="the card's when 0")
    parser.add_argument("--precision", default="", help="the card's when empty")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="measured when 0")
    parser.add_argument("--ray", action="store_true", help="also through Ray Train")
    parser.add_argument("--out", default="", help="a file to write the table to, too")
    options = parser.parse_args()
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU; --device cpu takes the same way on the processor")
    lines = []
    for name in options.models or MODELS:
        work = task(name, options.precision, options.batch_size)
        lines.append(measured(work, name, options))
        print(f"{name}: {lines[-1].spectra_s:,.0f} spectra/s", flush=True)
    text = f"{machine(options)}\n\n{table(lines)}\n"
    print(f"\n{text}")
    if options.out:
        Path(options.out).write_text(text)


if __name__ == "__main__":
    main()
