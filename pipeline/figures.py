"""Figures of the report: Deltas, histograms, verdicts, the ledger; each as a data URI."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.canvas import FAINT, PALETTE, TRUTH, canvas, legend
from pipeline.score import Three
from storage.schema import Status
from training.verdict import QUOTED, Verdict

STATUS = {
    Status.DONE: ("done", "#0072B2"),
    Status.NOT_APPLICABLE: ("not applicable", "#c9ced6"),
    Status.QUARANTINED: ("quarantined", "#D55E00"),
    Status.PENDING: ("pending", "#F0E442"),
}
NAMES = {"Dn4000": r"D$_n$4000", "HdeltaA": r"H$\delta_A$", "HdeltaF": r"H$\delta_F$"}
NAMES |= {"HgammaA": r"H$\gamma_A$", "HgammaF": r"H$\gamma_F$", "Hbeta": r"H$\beta$"}
NAMES |= {"Mgb": "Mg b", "NaD": "Na D"}


def curves(products: Sequence[Mapping[str, Any]], verdicts: Mapping[str, Verdict]) -> str:
    """Delta over the noise against S/N, a panel an index; '' where there is nothing to draw."""
    names = _indices(products)
    if not names:
        return ""
    with canvas(3.6 * max(2, len(names)), 3.4, "svg") as (fig, out):
        panels = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, index in zip(panels, names, strict=True):
            for product, colour in zip(products, _colours(len(products)), strict=True):
                if index in product["indices"]:
                    _curve(axes, product, index, colour)
            for alias in dict.fromkeys(product["alias"] for product in products):
                if alias in verdicts:
                    _reference(axes, verdicts[alias], index)
            axes.axhline(1, color=TRUTH, lw=1, ls="--", label="noise")
            axes.set(xscale="log", xlabel="S/N per pixel, g", title=NAMES.get(index, index))
            axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
            axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            axes.set_ylim(0, 1.8)
        panels[0].set_ylabel(r"$\Delta$ / noise")
        legend(fig, panels)
    return out[0]


def histograms(samples: Mapping[str, Mapping[str, tuple[str, Three]]], reference: str) -> str:
    """Reference, noisy and denoised: a row a product, a column an index with its unit."""
    samples = {name: found for name, found in samples.items() if found}
    if not samples:
        return ""
    columns = max(len(found) for found in samples.values())
    with canvas(3.6 * max(2, columns), 2.9 * len(samples), "svg") as (fig, out):
        panels = fig.subplots(len(samples), columns, squeeze=False)
        for row, (name, found), colour in zip(
            panels, samples.items(), _colours(len(samples)), strict=True
        ):
            for axes, (index, (unit, three)) in zip(row, found.items(), strict=False):
                _histogram(axes, three, reference, name, colour)
                axes.set_xlabel(_with_unit(index, unit))
            row[0].set_ylabel("spectra")
    return out[0]


def verdict_bars(verdicts: Mapping[str, Verdict]) -> str:
    """Delta_O over the noise of every model in the S/N bin that is quoted, a panel an index."""
    if not verdicts:
        return ""
    # The bin that is quoted, or the first where that is not there.
    where = {
        name: verdict.statistics.get(QUOTED) or min(verdict.statistics.items())[1]
        for name, verdict in verdicts.items()
    }
    names = list(dict.fromkeys(index for found in where.values() for index in found))
    with canvas(3.6 * max(2, len(names)), 3.2, "svg") as (fig, out):
        panels = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, index in zip(panels, names, strict=True):
            for place, (model, found) in enumerate(where.items()):
                if index in found:
                    _bar(axes, place, found[index], verdicts[model].passed)
            axes.axhline(1, color=TRUTH, lw=1, ls="--", label="noise")
            axes.set_xticks(range(len(where)), list(where), rotation=30, ha="right")
            axes.set(title=NAMES.get(index, index), xlim=(-0.6, len(where) - 0.4))
            axes.set_ylim(0, min(4.6, axes.get_ylim()[1]))
        panels[0].set_ylabel(r"$\Delta_O$ / noise at S/N " + QUOTED)
        legend(fig, panels)
    return out[0]


def ledger(counts: Mapping[str, Mapping[Status, int]]) -> str:
    """What became of the rows: a bar a group."""
    with canvas(10, 0.7 + 0.34 * len(counts), "svg") as (fig, out):
        axes = fig.subplots()
        total = max(sum(found.values()) for found in counts.values())
        for place, found in enumerate(counts.values()):
            left = 0
            for status, (_, colour) in STATUS.items():
                n = found.get(status, 0)
                axes.barh(place, n, left=left, color=colour, height=0.7)
                if n > 0.04 * total:
                    dark = status == Status.DONE
                    axes.text(
                        left + n / 2,
                        place,
                        f"{n:,}",
                        ha="center",
                        va="center",
                        color="white" if dark else "black",
                    )
                left += n
        axes.set_yticks(range(len(counts)), list(counts))
        axes.invert_yaxis()
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.set_xlabel("spectra")
        present = [s for s in STATUS if any(found.get(s) for found in counts.values())]
        handles = [mpl.patches.Patch(color=STATUS[s][1], label=STATUS[s][0]) for s in present]
        fig.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return out[0]


def _indices(products: Sequence[Mapping[str, Any]]) -> list[str]:
    """Indices that some product has enough spectra of: others have nothing to draw."""
    found = (item for product in products for item in product["indices"].items())
    return list(dict.fromkeys(name for name, score in found if score["ratio"] is not None))


def _colours(n: int) -> list[str]:
    return [PALETTE[number % len(PALETTE)] for number in range(n)]


def _with_unit(index: str, unit: str) -> str:
    short = {"1": "", "Angstrom": " (Å)"}
    return NAMES.get(index, index) + short.get(unit, f" ({unit})")


def _curve(axes: Axes, product: Mapping[str, Any], index: str, colour: str) -> None:
    score, alias = product["indices"][index], product["alias"]
    curve = {key: np.array(values) for key, values in score["curve"].items()}
    if not curve:
        if score["ratio"] is not None:
            where, label = score["snr"], f"{alias}: all {score['n']} spectra"
            axes.errorbar(
                where, score["ratio"], score["ratio_error"], fmt="o", color=colour, label=label
            )
        return
    own: Any = {"color": colour}
    looks: tuple[tuple[str, str, str, Any], ...] = (
        ("delta_o", "noise", rf"{alias}: $\Delta_O$, to the reference", {**own, "lw": 2.2}),
        ("delta_o_mad", "noise_mad", rf"{alias}: $\Delta_O$, robust", {**own, "lw": 0.9}),
        ("delta_n", "noise", rf"{alias}: $\Delta_N$, to the noisy", {**own, "ls": ":"}),
        ("trivial", "noise", "average galaxy (trivial)", {"color": "#777777", "ls": "-."}),
    )
    for key, unit, label, look in looks:
        noise = np.where(curve[unit] > 0, curve[unit], np.nan)
        axes.plot(curve["snr"], curve[key] / noise, label=label, **{"lw": 1.1, **look})


def _reference(axes: Axes, verdict: Verdict, index: str) -> None:
    bins = [bin_ for name, bin_ in verdict.statistics.items() if name != "natural"]
    found = [bin_[index] for bin_ in bins if index in bin_]
    ratio = [s.reference.value / s.noise.value for s in found]
    label = "linear reference (mocks)"
    axes.plot([s.snr for s in found], ratio, "D", mfc="none", color=TRUTH, ms=5, label=label)


def _histogram(axes: Axes, three: Three, reference: str, output: str, colour: str) -> None:
    every = np.concatenate([three.reference, three.raw])
    low, high = np.percentile(every, [0.5, 99.5]) if len(every) else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    count = int(np.clip(2 * len(three.snr) ** 0.5, 8, 45))
    bins = np.linspace(low - margin, high + margin, count + 1).tolist()
    for values, name, look in (
        (three.reference, reference, {"color": FAINT}),
        (three.raw, "noisy", {"color": "#666666", "histtype": "step", "ls": "--"}),
        (three.output, output, {"color": colour, "histtype": "step", "lw": 1.8}),
    ):
        spread = f", σ {np.std(values):.2f}" if len(values) else ""
        axes.hist(values, bins, label=name + spread, **look)
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
    axes.legend(loc="upper left")


def _bar(axes: Axes, place: int, s: Any, passed: bool) -> None:
    noise = s.noise.value
    axes.bar(
        place,
        s.delta_o.value / noise,
        yerr=s.delta_o.error / noise,
        color=PALETTE[0] if passed else FAINT,
        hatch="" if passed else "///",
        edgecolor="white" if passed else "#777777",
        width=0.65,
        label="passes" if passed else "fails",
    )
    marks: Any = {"ls": "", "mew": 1.5}
    label = "average galaxy (trivial)"
    axes.plot(place, s.scatter.value / noise, "_", color=PALETTE[1], ms=26, label=label, **marks)
    best = s.reference.value / noise
    axes.plot(place, best, "D", mfc="w", color=TRUTH, ms=6, label="linear reference", **marks)
