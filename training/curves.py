"""Curves: how the losses went, epoch by epoch, for programs and for people."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.whole import replace
from training.state import Record

LINES, PICTURE = "curves.jsonl", "curves.png"


def write(history: list[Record], path: Path) -> None:
    """The history as JSON lines, replaced whole: a run that goes on repeats no line."""
    replace(path, "".join(json.dumps(record) + "\n" for record in history))


def read(path: Path) -> list[Record]:
    """What `write` wrote; nothing where there is no file yet."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def draw(history: list[Record], path: Path, title: str = "") -> None:
    """Losses and step size against epoch, as a PNG; of a model by sums, objective and loss."""
    from matplotlib.figure import Figure

    epoch = [record["epoch"] for record in history]
    by_sums = not any(record["lr"] for record in history)
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1] if by_sums else [3, 1])
    _line(above, epoch, history, "train", "objective" if by_sums else "training")
    _line(below if by_sums else above, epoch, history, "val", "validation")
    if by_sums:
        below.set_ylabel("mean |output - target|")
    else:
        _mark_best(above, history)
        _line(below, epoch, history, "lr", "step size")
    above.set_ylabel("objective" if by_sums else "loss")
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    for axes in (above, below):
        _say_numbers(axes)
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    figure.suptitle(title)
    temporary = path.with_suffix(".partial")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)


def _line(axes: Any, epoch: Sequence[float], history: list[Record], key: str, label: str) -> None:
    values = [record[key] for record in history]
    if min(values) > 0 and axes.get_yscale() == "linear":
        axes.set_yscale("log")
    elif min(values) <= 0:
        # A likelihood may be negative, and then has no logarithm.
        axes.set_yscale("linear")
    # One epoch alone would be no line.
    axes.plot(epoch, values, label=label, marker="." if len(epoch) < 40 else None)


def _say_numbers(axes: Any) -> None:
    """Some in every decade: a loss hardly ever falls by more than one."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        wide = high > 10 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


def _mark_best(axes: Any, history: list[Record]) -> None:
    best = min(history, key=lambda record: record["val"])
    label = f"best: {best['val']:.4g} at epoch {best['epoch']:.0f}"
    axes.plot(best["epoch"], best["val"], "o", mfc="none", color="k", label=label)
