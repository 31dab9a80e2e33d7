"""Canvas: the look of a figure, and how it gets into a page: drawn without a display, as data."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito (2008): told apart by the colour-blind, and in print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
NOISY, TRUTH, FAINT = "#b0b6be", "#000000", "#c9ced6"
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "specmill",
}


@contextmanager
def canvas(
    width: float,
    height: float,
    form: Literal["svg", "png"],
    margins: Mapping[str, float] | None = None,
) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on; afterwards the list holds it as a data URI.

    margins : as Figure.subplots_adjust takes them; found for the figure when None.
    """
    out: list[str] = []
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(width, height), layout=None if margins else "constrained")
        if margins:
            fig.subplots_adjust(**margins)
        yield fig, out
        buffer = io.BytesIO()
        # Without the date the same numbers give the same bytes.
        metadata = {"Date": None} if form == "svg" else {}
        fig.savefig(buffer, format=form, dpi=120, metadata=metadata)
    kind = {"svg": "image/svg+xml", "png": "image/png"}[form]
    out.append(f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")


def legend(fig: Figure, panels: Sequence[Axes], most: int = 5) -> None:
    """One legend below all panels, each label once; most: of a line."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    once = {text: handle for pair in found for handle, text in zip(*pair, strict=True)}
    fig.legend(once.values(), once.keys(), loc="outside lower center", ncols=min(most, len(once)))
