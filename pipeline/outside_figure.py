"""The picture of a model beyond its footprint: Delta_O over the linear reference, axis by axis."""

import base64
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.canvas import FAINT, PALETTE, TRUTH, canvas, legend
from pipeline.figures import NAMES
from pipeline.places import AXES, Found, Place, Range
from training.verdict import REFERENCE

WORDS = {"z": "redshift", "sigma_v": "velocity dispersion (km/s)", "snr": "S/N per pixel, g"}
MOST = 4.0
"Of the axis: what is beyond it is drawn there."


def draw(found: Found, file: Path) -> None:
    """Write the picture (PNG): a panel an axis, the footprint of the model shaded."""
    surveys = [place for place in found.places if place.axis == "survey"]
    with canvas(4.2 * (len(AXES) + bool(surveys)), 3.8, "png") as (fig, out):
        panels = fig.subplots(1, len(AXES) + bool(surveys), sharey=True, squeeze=False)[0]
        for axes, axis in zip(panels, AXES, strict=False):
            places = [place for place in found.places if place.axis == axis]
            _panel(axes, places, found.present[axis])
            axes.set_xlabel(WORDS[axis])
        if surveys:
            _surveys(panels[-1], surveys)
        panels[0].set_ylabel(r"$\Delta_O$ / linear reference")
        panels[0].set_title(found.path.name, loc="left")
        legend(fig, panels[:1])
    file.write_bytes(base64.b64decode(out[0].partition(",")[2]))


def _panel(axes: Axes, places: list[Place], present: Range | None) -> None:
    if present is not None:
        axes.axvspan(*present, color=FAINT, alpha=0.4, lw=0, label="footprint")
    for colour, index in zip(PALETTE, _indices(places), strict=False):
        # Steps: a bin is a range, not a point.
        edges = [places[0].low, *(place.high for place in places)]
        values = [min(place.worth.get(index, np.nan), MOST) for place in places]
        axes.stairs(
            values, edges, baseline=None, color=colour, lw=1.8, label=NAMES.get(index, index)
        )
    for place in places:
        if not place.worth:
            axes.axvspan(place.low, place.high, fill=False, hatch="//", ec=FAINT, lw=0)
    _limits(axes)
    if places[0].axis == "snr":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.FixedLocator((1, 2, 5, 10, 20, 40)))
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _surveys(axes: Axes, places: list[Place]) -> None:
    for colour, index in zip(PALETTE, _indices(places), strict=False):
        values = [min(place.worth.get(index, np.nan), MOST) for place in places]
        axes.plot(range(len(places)), values, "o", color=colour)
    axes.set_xticks(range(len(places)), [place.name for place in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel("other surveys")
    _limits(axes)


def _limits(axes: Axes) -> None:
    axes.axhline(REFERENCE, color=TRUTH, lw=1, ls="--", label="limit")
    axes.axhline(1, color=TRUTH, lw=0.6)
    axes.set_ylim(0, MOST)


def _indices(places: list[Place]) -> list[str]:
    return list(dict.fromkeys(index for place in places for index in place.worth))
