"""Calibrate: what errors the indices of a model's output have, on mocks drawn for this alone.

A survey has no truth, and the calib side of a mock survey is no better than fresh draws of the same
mock: neither taught the model, and draws can be had at every S/N. They come from a stream of their
own, so that verdicts, whose trials have another, may test the table.

Axes: N spectra, I indices.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from training.apply import apply
from training.calibrated import LEAST, Array, Calibrated, Column, Curve
from training.draws import scatter
from training.model import Denoiser
from training.shown import BINS, Shown

Z_PARTS = 3
"Ranges of redshift, with as many objects each."
WITHIN = erf(1 / sqrt(2))
"Share of a Gaussian within one standard deviation."
CLIP = 5.0
"Robust standard deviations beyond which an output says nothing of the slope."
FLAT = 0.05
"Slope of output on truth below which nothing can be de-shrunk."


def calibrate(
    model: Denoiser, shown: Shown, *, draws: int, seed: int, recipe: str = ""
) -> Calibrated:
    """The table of a model, which is left in eval mode, on the CPU.

    Parameters
    ----------
    draws : int
        Draws of the posterior, as `measure` will take them.
    recipe : str
        Kept in the table.
    """
    nothing = Calibrated(recipe=recipe, n=shown.n, draws=draws, bins=BINS, curves=())
    if not len(shown.snr):
        return nothing
    found = answers(model, shown, draws=draws, seed=seed)
    kinds = [str(kind) for kind in np.unique(shown.kind)]
    curves = [curve for kind in kinds for curve in _curves(shown, found, kind)]
    if len(kinds) > 1:
        curves.append(_curve(shown, found, "", None, np.ones(len(shown.snr), bool)))
    return nothing.model_copy(update={"curves": tuple(curves)})


def answers(model: Denoiser, shown: Shown, *, draws: int, seed: int) -> tuple[Array, Array]:
    """Indices (N, I) of what a model says, and their scatter over draws; NaN where it has none."""
    said = apply(model.eval().to("cpu"), shown.batch)
    output = shown.indices(said.flux).double().numpy()
    if said.latent is None or said.latent_cov is None:
        return output, np.full_like(output, np.nan)
    drawn = scatter(model, said.latent, said.latent_cov, shown.indices, draws=draws, seed=seed)
    return output, drawn.double().numpy()


def _curves(shown: Shown, found: tuple[Array, Array], kind: str) -> Iterator[Curve]:
    """Those of one class: in ranges of redshift, lowest first, then all together."""
    z, mine = shown.batch.z.numpy(), shown.kind == kind
    edges = np.unique(np.quantile(z[mine], np.linspace(0, 1, Z_PARTS + 1))).tolist()
    ranges = list(pairwise(edges)) or [(edges[0], edges[0])]
    number = np.searchsorted([low for low, _ in ranges[1:]], z, side="right")
    for i, limits in enumerate(ranges):
        yield _curve(shown, found, kind, limits, mine & (number == i))
    yield _curve(shown, found, kind, None, mine)


def _curve(
    shown: Shown,
    found: tuple[Array, Array],
    kind: str,
    z: tuple[float, float] | None,
    rows: NDArray[np.bool_],
) -> Curve:
    part = np.digitize(shown.snr, [low for low, _ in BINS[1:]])
    bins = [rows & (part == number) for number in range(len(BINS))]
    output, drawn = found
    columns = {
        name: [_cell(output[b, i], shown.truth[b, i], drawn[b, i]) for b in bins]
        for i, name in enumerate(shown.names)
    }
    snr = [_middle(shown.snr[b], *edges) for b, edges in zip(bins, BINS, strict=True)]
    indices = {name: _column(cells) for name, cells in columns.items()}
    return Curve(kind=kind, z=z, snr=tuple(snr), indices=indices)


def _middle(snr: Array, low: float, high: float) -> float:
    return float(np.median(snr)) if len(snr) else sqrt(low * high)


def _column(cells: Sequence[Mapping[str, float]]) -> Column:
    """Cells along S/N, to six digits."""
    named = {name: [float(f"{cell[name]:.6g}") for cell in cells] for name in cells[0]}
    return Column.model_validate(named)


def _cell(output: Array, truth: Array, drawn: Array) -> dict[str, float]:
    """The numbers of one index in one cell."""
    good = np.isfinite(output) & np.isfinite(truth)
    output, truth, drawn = output[good], truth[good], drawn[good]
    cell = dict.fromkeys(Column.model_fields, np.nan) | {"n": len(output)}
    if len(output) < LEAST:
        return cell
    apart = output - truth
    slope, intercept = line(output, truth)
    cell |= {
        "scatter": _robust(apart),
        "bias": float(np.median(apart)),
        "error": _within(apart),
        "factor": _within(apart / drawn),
        "slope": slope,
        "intercept": intercept,
    }
    if slope > FLAT:
        apart = (output - intercept) / slope - truth
        cell |= {"deshrunk": _within(apart), "deshrunk_factor": _within(apart / drawn)}
    return cell


def line(output: Array, truth: Array) -> tuple[float, float]:
    """Slope and intercept of output on truth; outputs far from the truth are left out."""
    apart = output - truth
    near = np.abs(apart - np.median(apart)) <= CLIP * _robust(apart)
    x, y = truth[near], output[near]
    spread = np.var(x)
    if not spread > 0:
        return np.nan, np.nan
    slope = float(np.mean((x - x.mean()) * (y - y.mean())) / spread)
    return slope, float(y.mean() - slope * x.mean())


def _robust(values: Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _within(values: Array) -> float:
    """What 68.3 % of the values are below, in absolute value."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, WITHIN)) if len(known) >= LEAST else np.nan
