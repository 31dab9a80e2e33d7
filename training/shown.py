"""Shown: mock spectra of known truth at every S/N, drawn to find out what errors a model makes.

They come from a stream of their own, so that verdicts, whose trials have another, may test what is
found.

Axes: N spectra, I indices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Grid
from storage.mock import Mock
from training.batch import Batch, join, take
from training.calibrated import Array
from training.frame import Frame, Mapper
from training.norm import NOISELESS

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
MISSING = 0.10
"Share of the frame that a spectrum may lack, as in the footprint of a model."
Spread = Callable[[xr.Dataset], Tensor]
"Line spread (N, P), pixels of a frame, of spectra of a survey."


class Measure(Protocol):
    """Indices of spectra on the axis of a frame, by the rules that a survey is measured by."""

    def __call__(
        self,
        wavelength: NDArray[np.float64],
        flux: Tensor,
        ivar: Tensor | None,
        z: Tensor | None = None,
        lsf: Tensor | None = None,
    ) -> Tensor | NDArray[Any]:
        """Values (N, I), as `training.trials.Measure` says.

        lsf (N, P) is the line spread in pixels; given where `draw` was told how to find it.
        """
        ...


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
    lsf: Tensor | None = None
    "(N, P) line spread, pixels; None where the measure does not ask for it."

    def indices(self, flux: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Indices (n, I) of spectra (n, P), which are those rows."""
        lsf = None if self.lsf is None else self.lsf[rows]
        return _measured(self.measure, self.frame, flux, None, self.batch.z[rows], lsf)

    @property
    def noisy(self) -> Tensor:
        """Indices (N, I) of the spectra as they are."""
        batch = self.batch
        return _measured(self.measure, self.frame, batch.x, batch.weight, batch.z, self.lsf)


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
    spread: Spread | None = None,
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
    spread : function, optional
        Finds the line spread, for a measure that asks for it.
    """
    mapper = frame.on(grid)
    parts = []
    for low, high in BINS:
        name = f"{stream}-{low:g}-{high:g}"
        # The error of a stiff model is of the objects, not of their noise: each bin has its own.
        drawn = mock.truth(n, grid, seed, name)
        seen = mock.observe(drawn, grid, seed, name, (low, high))
        parts.append(_shown(drawn, seen, mapper, measure, tuple(names), spread))
    return Shown(
        frame=frame,
        batch=join([part.batch for part in parts]),
        names=tuple(names),
        measure=measure,
        truth=np.concatenate([part.truth for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        snr=np.concatenate([part.snr for part in parts]),
        n=n,
        lsf=torch.cat([part.lsf for part in parts if part.lsf is not None]) if spread else None,
    )


def _shown(
    drawn: xr.Dataset,
    seen: xr.Dataset,
    mapper: Mapper,
    measure: Measure,
    names: tuple[str, ...],
    spread: Spread | None,
) -> Shown:
    """One exposure of objects; those that no model would be given are left out."""
    place = seen["z"].to_numpy(), seen["ebv"].to_numpy()
    noiseless = drawn["flux"].to_numpy()
    batch = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), *place)
    clean = mapper.to(noiseless, np.full_like(noiseless, NOISELESS), *place)
    frame, snr = mapper.frame, np.asarray(seen["snr_g"].to_numpy(), np.float64)
    lsf = None if spread is None else spread(seen)
    truth = _measured(measure, frame, clean.x, clean.weight, clean.z, lsf)
    rows = batch.ok & (batch.missing <= MISSING) & torch.from_numpy(np.isfinite(snr))
    return Shown(
        frame=frame,
        batch=take(batch, rows),
        names=names,
        measure=measure,
        truth=truth[rows].double().numpy(),
        kind=seen["class"].to_numpy()[rows.numpy()],
        snr=snr[rows.numpy()],
        n=len(snr),
        lsf=None if lsf is None else lsf[rows],
    )


def _measured(
    measure: Measure,
    frame: Frame,
    flux: Tensor,
    weight: Tensor | None,
    z: Tensor,
    lsf: Tensor | None,
) -> Tensor:
    more = {} if lsf is None else {"lsf": lsf}
    return torch.as_tensor(measure(frame.grid.wavelength, flux, weight, frame.z_seen(z), **more))
