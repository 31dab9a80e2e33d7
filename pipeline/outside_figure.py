"""The picture of a model beyond its footprint: Delta_O over the linear reference, axis by axis."""

import base64
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.canvas import FAINT, PALETTE, TRUTH, canvas, legend
from pipeline.figures import NAMES
from pipeline.places import AXES, Found, Place, Range
from training.verdict import REFERENCE

WORDS = {"z": "redshift", "sigma_v": "velocity dispersion (km/s)", "snr": "S/N per pixel, g"}
LEAST, MOST = 0.6, 8.0
"Of the axis: what is beyond it is drawn there, as a triangle."
TICKS = (0.7, 1, 1.5, 2, 3, 5)
HOLDS = "#4d4d4d"


def draw(found: Found, file: Path) -> None:
    """Write the picture (PNG): a panel an axis, the footprint shaded, a bar where it holds."""
    surveys = [place for place in found.places if place.axis == "survey"]
    ratios = [1.0] * len(AXES) + [0.35] * bool(surveys)
    with canvas(3.4 * sum(ratios) + 0.6, 3.6, "png") as (fig, out):
        (panels,) = fig.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)
        at = "" if not found.at[1] else f", at S/N {found.at[0]:g}-{found.at[1]:g}"
        for axes, axis in zip(panels, AXES, strict=False):
            places = [place for place in found.places if place.axis == axis]
            _panel(axes, places, found.present[axis], found.follows[axis])
            axes.set_xlabel(WORDS[axis] + ("" if axis == "snr" else at))
        if surveys:
            _surveys(panels[-1], surveys)
        panels[0].set_ylabel(r"$\Delta_O$ / linear reference")
        panels[0].set_title(found.path.name, loc="left")
        legend(fig, panels[: len(AXES)], most=6)
    file.write_bytes(base64.b64decode(out[0].partition(",")[2]))


def _panel(axes: Axes, places: list[Place], present: Range | None, follows: Range | None) -> None:
    if places[0].axis == "snr":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.FixedLocator((1, 2, 5, 10, 20, 40)))
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    _limits(axes)
    edges = np.array([places[0].low, *(place.high for place in places)])
    if present is not None:
        axes.axvspan(*present, color=FAINT, alpha=0.4, lw=0, label="footprint")
    else:
        _note(axes, "the footprint has no bounds here", 0.95)
    if follows is not None:
        axes.plot(follows, [LEAST, LEAST], color=HOLDS, lw=6, label="holds", solid_capstyle="butt")
    else:
        _note(axes, "holds nowhere", 0.04)
    for colour, index in zip(PALETTE, _indices(places), strict=False):
        _index(axes, places, edges, index, colour)
    for place in places:
        if not place.worth:
            axes.axvspan(place.low, place.high, fill=False, hatch="//", ec=FAINT, lw=0)
    axes.set_xlim(edges[0], edges[-1])


def _index(axes: Axes, places: list[Place], edges: np.ndarray, index: str, colour: str) -> None:
    """Steps, since a bin is a range and not a point; its error in the middle."""
    values = np.array([place.worth.get(index, np.nan) for place in places])
    errors = np.array([place.error.get(index, np.nan) for place in places])
    shown = np.clip(values, LEAST, MOST)
    axes.stairs(shown, edges, baseline=None, color=colour, lw=1.8, label=NAMES.get(index, index))
    middle = np.sqrt(edges[1:] * edges[:-1]) if axes.get_xscale() == "log" else _mean(edges)
    _points(axes, middle, values, errors, colour, "none")


def _surveys(axes: Axes, places: list[Place]) -> None:
    _limits(axes)
    indices = _indices(places)
    for number, (colour, index) in enumerate(zip(PALETTE, indices, strict=False)):
        values = np.array([place.worth.get(index, np.nan) for place in places])
        errors = np.array([place.error.get(index, np.nan) for place in places])
        # Side by side, or one hides another.
        at = np.arange(len(places)) + 0.15 * (number - (len(indices) - 1) / 2)
        _points(axes, at, values, errors, colour, "o")
    axes.set_xticks(range(len(places)), [place.name for place in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel("other surveys")


def _points(
    axes: Axes, at: np.ndarray, values: np.ndarray, errors: np.ndarray, colour: str, mark: str
) -> None:
    above = values > MOST
    inside = np.where(above, np.nan, values)
    # On a logarithmic axis nothing may reach 0.
    ends = np.stack([np.minimum(errors, inside - LEAST / 2), errors])
    axes.errorbar(at, inside, np.maximum(ends, 0), fmt=mark, color=colour, elinewidth=1, ms=5)
    if above.any():
        axes.plot(at[above], np.full(above.sum(), MOST), "^", color=colour, clip_on=False, ms=5)


def _limits(axes: Axes) -> None:
    axes.axhline(REFERENCE, color=TRUTH, lw=1, ls="--", label=f"limit, {REFERENCE:g}")
    axes.axhline(1, color=TRUTH, lw=0.6)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, MOST)
    axes.yaxis.set_major_locator(mpl.ticker.FixedLocator(TICKS))
    axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())


def _note(axes: Axes, text: str, height: float) -> None:
    at: Any = {"transform": axes.transAxes, "ha": "center", "va": "center", "fontsize": 8}
    axes.text(0.5, height, text, color=HOLDS, **at)


def _mean(edges: np.ndarray) -> np.ndarray:
    middle: np.ndarray = (edges[1:] + edges[:-1]) / 2
    return middle


def _indices(places: list[Place]) -> list[str]:
    return list(dict.fromkeys(index for place in places for index in place.worth))
