"""Calibrate: what errors the indices of a model's output have, on mocks drawn for this alone.

A survey has no truth, and the calib side of a mock survey is no better than fresh draws of the same
mock: neither taught the model, and draws can be had at every S/N. They come from a stream of their
own, so that verdicts, whose trials have another, may test the table.

Axes: N spectra, I indices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import erf, sqrt
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Grid
from storage.mock import Mock
from training.apply import apply
from training.batch import Batch, join, take
from training.calibrated import LEAST, Array, Calibrated, Column, Curve
from training.draws import scatter
from training.frame import Frame, Mapper
from training.model import Denoiser
from training.norm import NOISELESS
from training.trials import Measure

BINS: tuple[tuple[float, float], ...] = (
    (1, 2),
    (2, 3),
    (3, 5),
    (5, 8),
    (8, 12),
    (12, 20),
    (20, 35),
    (35, 60),
)
"Of S/N per pixel in g; whatever is above counts with the last one."
Z_PARTS = 3
"Ranges of redshift, with as many objects each."
MISSING = 0.10
"Share of the frame that a spectrum may lack, as in the footprint of a model."
WITHIN = erf(1 / sqrt(2))
"Share of a Gaussian within one standard deviation."
CLIP = 5.0
"Robust standard deviations beyond which an output says nothing of the slope."
FLAT = 0.05
"Slope of output on truth below which nothing can be de-shrunk."


@dataclass(frozen=True, kw_only=True)
class Shown:
    """N mock spectra of known truth, as a model sees them."""

    frame: Frame
    "How the model sees."
    batch: Batch
    names: tuple[str, ...]
    "I indices."
    measure: Measure
    "Measures them."
    truth: Array
    "(N, I) indices of the noiseless spectra, at the redshift that the survey gives."
    kind: NDArray[Any]
    "(N,) class."
    snr: Array
    "(N,) S/N per pixel in g, as the survey gives it."
    n: int
    "Objects in each bin of S/N."

    def indices(self, flux: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Indices (n, I) of spectra (n, P), which are those rows."""
        z = self.frame.z_seen(self.batch.z[rows])
        return torch.as_tensor(self.measure(self.frame.grid.wavelength, flux, None, z))


def draw(
    mock: Mock,
    frame: Frame,
    grid: Grid,
    *,
    n: int,
    seed: int,
    measure: Measure,
    names: Sequence[str],
    stream: str = "calibrate",
) -> Shown:
    """Draw n objects for every bin of S/N, and look at them.

    Parameters
    ----------
    grid : Grid
        Of the survey.
    measure, names
        The index function on the frame's axis, and the names of its columns.
    stream : str
        Another one gives other objects with other noise.
    """
    mapper = frame.on(grid)
    parts = []
    for low, high in BINS:
        name = f"{stream}-{low:g}-{high:g}"
        # The error of a stiff model is of the objects, not of their noise: each bin has its own.
        drawn = mock.truth(n, grid, seed, name)
        seen = mock.observe(drawn, grid, seed, name, (low, high))
        parts.append(_shown(drawn, seen, mapper, measure, tuple(names)))
    return Shown(
        frame=frame,
        batch=join([part.batch for part in parts]),
        names=tuple(names),
        measure=measure,
        truth=np.concatenate([part.truth for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        snr=np.concatenate([part.snr for part in parts]),
        n=n,
    )


def _shown(
    drawn: xr.Dataset, seen: xr.Dataset, mapper: Mapper, measure: Measure, names: tuple[str, ...]
) -> Shown:
    """One exposure of objects; those that no model would be given are left out."""
    place = seen["z"].to_numpy(), seen["ebv"].to_numpy()
    noiseless = drawn["flux"].to_numpy()
    batch = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), *place)
    clean = mapper.to(noiseless, np.full_like(noiseless, NOISELESS), *place)
    frame, snr = mapper.frame, np.asarray(seen["snr_g"].to_numpy(), np.float64)
    truth = measure(frame.grid.wavelength, clean.x, clean.weight, frame.z_seen(clean.z))
    rows = batch.ok & (batch.missing <= MISSING) & torch.from_numpy(np.isfinite(snr))
    return Shown(
        frame=frame,
        batch=take(batch, rows),
        names=names,
        measure=measure,
        truth=torch.as_tensor(truth)[rows].double().numpy(),
        kind=seen["class"].to_numpy()[rows.numpy()],
        snr=snr[rows.numpy()],
        n=len(snr),
    )


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
