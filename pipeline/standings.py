"""Standings: a model on a leaderboard, and the figures and tables that show many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.canvas import PALETTE, TRUTH, canvas, legend
from pipeline.figures import NAMES
from training.statistics import Statistics
from training.verdict import QUOTED, Verdict

STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of a run."""

    alias: str
    "Its name in the run."
    checkpoint: str
    "Name and digest."
    model: str
    "Module on the shelf."
    frame: str
    "How it sees spectra."
    parameters: int
    "Learnt numbers."
    speed: float
    "Spectra a second on one thread."
    seconds: float | None
    "Of all epochs; None where the training run is gone."
    epochs: int
    "That it was trained."
    n_train: int
    "Spectra that taught it."
    mock: str
    "Digest of the mocks that it was judged on."
    split: str
    "The split of its survey, as JSON."
    verdict: Verdict
    "What it is worth."

    @property
    def score(self) -> float:
        """Mean Delta_O / noise over the indices, in the bin that is quoted."""
        return self.verdict.score

    def test(self, name: str, where: str) -> tuple[str, ...]:
        """The indices that fail a test in a bin of S/N."""
        return tuple(
            found.index
            for found in self.verdict.findings
            if (found.test, found.bin) == (name, where) and not found.passed
        )

    def decides(self, name: str, where: str) -> bool:
        """Whether a failure of a test in a bin of S/N fails the model."""
        return any(
            found.decides
            for found in self.verdict.findings
            if (found.test, found.bin) == (name, where) and not found.passed
        )


def quality(found: Sequence[Entry]) -> str:
    """Delta_O over the noise against S/N, a panel an index, a line a model."""
    names = indices(found)
    with canvas(3.8 * max(2, len(names)), 4.4, "svg") as (fig, out):
        panels = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, index in zip(panels, names, strict=True):
            for number, entry in enumerate(found):
                _line(axes, entry.verdict, index, _look(number), entry.alias)
            _reference(axes, found[0].verdict, index)
            axes.axhline(1, color=TRUTH, lw=0.8, ls="--")
            axes.set(xscale="log", yscale="log", xlabel="S/N per pixel, g")
            axes.set_title(NAMES.get(index, index))
            axes.set_ylim(0.15, 5)
            for axis, ticks in ((axes.xaxis, (2, 5, 10, 20)), (axes.yaxis, (0.2, 0.5, 1, 2, 5))):
                axis.set_major_locator(mpl.ticker.FixedLocator(ticks))
                axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
                axis.set_minor_locator(mpl.ticker.NullLocator())
        panels[0].set_ylabel(r"$\Delta_O$ / noise")
        legend(fig, panels)
    return out[0]


def speeds(found: Sequence[Entry]) -> str:
    """Mean Delta_O over the noise against spectra a second."""
    with canvas(7.6, 4.2, "svg") as (fig, out):
        axes = fig.subplots()
        for number, entry in enumerate(found):
            place, (colour, _) = (entry.speed, entry.score), _look(number)
            axes.plot(*place, "o", color=colour, ms=6)
            axes.annotate(entry.alias, place, xytext=(6, 3), textcoords="offset points")
        axes.set(xscale="log", xlabel="spectra a second, one thread")
        axes.set_ylabel(rf"mean $\Delta_O$ / noise at S/N {QUOTED}")
        axes.axhline(1, color=TRUTH, lw=0.8, ls="--")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.15)
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        every = [entry.speed for entry in found]
        few = max(every) > 100 * min(every)
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1,) if few else (1, 2, 5)))
    return out[0]


def table(found: Sequence[Entry]) -> Table:
    """The models on the terminal: means of Delta_O over the noise by bin of S/N, size, cost."""
    where = bins(found)
    shown = Table(
        title="Mean Δ_O / noise over the indices, by S/N on mocks that no model has seen",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    shown.add_column("model", no_wrap=True)
    for head in (*where, "parameters", "spectra/s", "training s", "epochs"):
        shown.add_column(head, justify="right")
    shown.add_column("verdict")
    for entry in found:
        means = [f"{mean(entry.verdict, name):.2f}" for name in where]
        cost = "–" if entry.seconds is None else f"{entry.seconds:,.0f}"
        size = (f"{entry.parameters:,}", f"{entry.speed:,.0f}", cost, str(entry.epochs))
        word = "passes" if entry.verdict.passed else "fails"
        shown.add_row(entry.alias, *means, *size, f"{word}: {entry.verdict.reason}")
    return shown


def bins(found: Sequence[Entry]) -> list[str]:
    """Bins of S/N that any of the models was judged in."""
    return list(dict.fromkeys(name for entry in found for name in entry.verdict.statistics))


def indices(found: Sequence[Entry]) -> list[str]:
    """Indices that any of the models was judged by."""
    return list(dict.fromkeys(index for entry in found for index in entry.verdict.ceilings))


def tests(found: Sequence[Entry]) -> list[str]:
    """Tests that any of the models was put to."""
    return list(dict.fromkeys(one.test for entry in found for one in entry.verdict.findings))


def mean(verdict: Verdict, where: str) -> float:
    """Mean Delta_O over the noise of the indices in a bin; NaN where it was not judged there."""
    numbers: Mapping[str, Statistics] = verdict.statistics.get(where, {})
    ratios = [s.delta_o.value / s.noise.value for s in numbers.values()]
    return float(np.mean(ratios)) if ratios else float("nan")


def _line(axes: Axes, verdict: Verdict, index: str, look: tuple[str, str], alias: str) -> None:
    points = [
        (s.snr, s.delta_o.value / s.noise.value, s.delta_o.error / s.noise.value)
        for s in _track(verdict, index)
    ]
    if not points:
        return
    snr, ratio, error = zip(*points, strict=True)
    colour, style = look
    axes.errorbar(snr, ratio, yerr=error, color=colour, ls=style, lw=1.4, ms=3, marker="o")
    axes.plot([], [], color=colour, ls=style, marker="o", ms=3, label=alias)


def _reference(axes: Axes, verdict: Verdict, index: str) -> None:
    track = _track(verdict, index)
    snr = [s.snr for s in track]
    best = [s.reference.value / s.noise.value for s in track]
    axes.plot(snr, best, color=TRUTH, lw=2.2, alpha=0.45, label="best reference")


def _track(verdict: Verdict, index: str) -> list[Statistics]:
    """The statistics of an index by S/N; the natural distribution has none of its own."""
    bins_ = [s for where, s in verdict.statistics.items() if where != "natural"]
    found = [s[index] for s in bins_ if index in s]
    return sorted(found, key=lambda s: s.snr)


def _look(number: int) -> tuple[str, str]:
    return PALETTE[number % len(PALETTE)], STYLES[number // len(PALETTE) % len(STYLES)]
