"""Trials: mock spectra drawn once, seen at several S/N, on which every model of a card is judged.

Survey, verdict and reference draw from streams of their own: nothing is shared with training.
Wrong redshifts and odd galaxies stay in, as a survey has them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Grid
from storage.mock import Mock
from training.apply import apply
from training.batch import Batch
from training.frame import Frame, Mapper
from training.library import WIDTH, Library
from training.model import Denoiser
from training.norm import NOISELESS
from training.reference import Linear, Reference
from training.statistics import Array, Sample

BINS: dict[str, tuple[float, float] | None] = {
    "2-3": (2.0, 3.0),
    "5-6": (5.0, 6.0),
    "10-12": (10.0, 12.0),
    "20-25": (20.0, 25.0),
    "natural": None,
}
"Ranges of S/N per pixel in g; None is the survey's own distribution."
COMPLETE = 0.99
"Share of the frame that a noiseless spectrum must cover to teach the reference."
PART = 2048
"Noiseless spectra that a library draws at a time."


class Measure(Protocol):
    """Indices of spectra on the axis of a frame."""

    def __call__(
        self,
        wavelength: NDArray[np.float64],
        flux: Tensor,
        ivar: Tensor | None,
        z: Tensor | None = None,
    ) -> Tensor | NDArray[Any]:
        """Values (N, I) of flux (N, P); NaN where ivar leaves too little; None: all is there.

        z (N,) is the redshift that lines have on the axis; None: they are at rest.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Noiseless spectra, put on the frame when asked for: all bins share one copy of them."""

    mapper: Mapper
    flux: Tensor
    "(N, L) float32 observed."
    z: NDArray[np.float64]
    "(N,) as the survey gives it in this bin, right or wrong."
    ebv: NDArray[np.float64]

    def on(self, scale: Tensor | None = None) -> Batch:
        """On the frame; x in units of scale (N,), of their own mean flux unless given."""
        batch = self.mapper.to(self.flux, torch.full_like(self.flux, NOISELESS), self.z, self.ebv)
        if scale is None:
            return batch
        return replace(batch, x=batch.x * (batch.scale / scale)[:, None], scale=scale)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The trial spectra at one S/N."""

    batch: Batch
    "What the model sees."
    clean: Clean
    "What it should say."
    snr: float
    "Median S/N per pixel in g."
    noisy: Array
    "(N, I) indices of it."
    references: Mapping[str, Array]
    "(N, I) indices of what each reference makes of it."
    squares: Mapping[str, Array]
    "(N,) squared distance of 'noisy' and of each reference from the truth, over good pixels."
    draws: Mapping[str, float]
    "By reference that has them: the median effective number of draws behind a row."


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The same N objects at several S/N, and how they are measured."""

    wavelength: NDArray[np.float64]
    "(P,) axis of the frame, vacuum A."
    names: tuple[str, ...]
    "I indices."
    measure: Measure
    "Measures them."
    truth: Mapping[str, Array]
    "By bin: (N, I) indices of the noiseless spectra, at the redshift that the survey gives."
    exposures: Mapping[str, Exposure]
    "By bin."


def linear(mock: Mock, frame: Frame, grid: Grid, n: int, seed: int, components: int = 60) -> Linear:
    """The linear reference of a mock, from n noiseless spectra.

    Raises
    ------
    ValueError
        When too few of them cover the frame.
    """
    complete = _complete(mock, frame, grid, n, seed, "reference")
    if len(complete) < components:
        raise ValueError(
            f"linear reference: {len(complete)} of {n} mock spectra cover the frame "
            f"{frame.label}, expected {components} or more; draw more, or mock other redshifts"
        )
    return Linear.learn(complete, components, seed)


def library(
    mock: Mock, frame: Frame, grid: Grid, n: int, seed: int, of: Linear, width: float = WIDTH
) -> Library:
    """The library of n noiseless spectra of a mock, in the components of its linear reference."""

    def parts() -> Iterator[Tensor]:
        for part, first in enumerate(range(0, n, PART)):
            yield _complete(mock, frame, grid, min(PART, n - first), seed, f"library-{part}")

    return Library.learn(of, parts(), width)


def _complete(mock: Mock, frame: Frame, grid: Grid, n: int, seed: int, stream: str) -> Tensor:
    """Those of n noiseless spectra that cover the frame, on it."""
    truth = mock.truth(n, grid, seed, stream)
    flux = torch.from_numpy(truth["flux"].to_numpy())
    place = truth["z"].to_numpy(), truth["ebv"].to_numpy()
    batch = frame.on(grid).to(flux, torch.full_like(flux, NOISELESS), *place)
    return batch.x[batch.ok & (batch.missing <= 1 - COMPLETE)]


def trial(
    mock: Mock,
    frame: Frame,
    grid: Grid,
    *,
    n: int,
    seed: int,
    measure: Measure,
    names: Sequence[str],
    references: Mapping[str, Reference],
    bins: Mapping[str, tuple[float, float] | None] | None = None,
) -> Trials:
    """Draw n objects, look at them at every S/N, and measure all that does not need a model.

    Parameters
    ----------
    grid : Grid
        Of the survey.
    measure, names
        The index function on the frame's axis, and the names of its columns.
    references : mapping of name to Reference
        At least ``linear``.
    bins : mapping of name to range of S/N, optional
        `BINS` unless given.
    """
    drawn = mock.truth(n, grid, seed, "verdict")
    flux = torch.from_numpy(drawn["flux"].to_numpy())
    mapper = frame.on(grid)
    truth: dict[str, Array] = {}
    exposures: dict[str, Exposure] = {}
    for name, snr_g in (BINS if bins is None else bins).items():
        seen = mock.observe(drawn, grid, seed, f"verdict-{name}", snr_g)
        clean = Clean(mapper=mapper, flux=flux, z=seen["z"].to_numpy(), ebv=seen["ebv"].to_numpy())
        noiseless = clean.on()
        truth[name] = _indices(measure, clean, noiseless.x, noiseless.weight)
        exposures[name] = _exposure(seen, clean, measure, references)
    return Trials(
        wavelength=frame.grid.wavelength,
        names=tuple(names),
        measure=measure,
        truth=truth,
        exposures=exposures,
    )


def _exposure(
    seen: xr.Dataset,
    clean: Clean,
    measure: Measure,
    references: Mapping[str, Reference],
) -> Exposure:
    flux, ivar = seen["flux"].to_numpy(), seen["ivar"].to_numpy()
    batch = clean.mapper.to(flux, ivar, clean.z, clean.ebv)
    due = clean.on(batch.scale).x
    answers = {name: ask(batch.x, batch.weight) for name, ask in references.items()}
    made = {name: answer.flux for name, answer in answers.items()}
    return Exposure(
        batch=batch,
        clean=clean,
        snr=float(np.nanmedian(seen["snr_g"].to_numpy())),
        noisy=_indices(measure, clean, batch.x, batch.weight),
        references={name: _indices(measure, clean, x) for name, x in made.items()},
        squares={name: _squares(x, due, batch) for name, x in {"noisy": batch.x, **made}.items()},
        draws={n: float(a.draws.median()) for n, a in answers.items() if a.draws is not None},
    )


def examine(model: Denoiser, trials: Trials, device: str = "cpu") -> dict[str, Sample]:
    """What a model makes of the trials, for `verdict.judge`; the model is left in eval mode."""
    model.eval().to(device)
    return {name: _sample(model, trials, name) for name in trials.exposures}


def _sample(model: Denoiser, trials: Trials, name: str) -> Sample:
    seen = trials.exposures[name]
    flux = apply(model, seen.batch).flux
    due = seen.clean.on(seen.batch.scale).x
    return Sample(
        names=trials.names,
        snr=seen.snr,
        truth=trials.truth[name],
        noisy=seen.noisy,
        output=_indices(trials.measure, seen.clean, flux),
        references=seen.references,
        squares={**seen.squares, "output": _squares(flux, due, seen.batch)},
        draws=seen.draws,
    )


def _indices(measure: Measure, clean: Clean, flux: Tensor, ivar: Tensor | None = None) -> Array:
    frame = clean.mapper.frame
    return _values(measure(frame.grid.wavelength, flux, ivar, frame.z_seen(torch.tensor(clean.z))))


def _squares(flux: Tensor, due: Tensor, batch: Batch) -> Array:
    """Squared distance (N,) of spectra from what they should be, where there is data."""
    return _values(((flux - due).square() * (batch.weight > 0)).sum(1))


def _values(measured: Tensor | NDArray[Any]) -> Array:
    if isinstance(measured, Tensor):
        measured = measured.cpu().numpy()
    return np.asarray(measured, dtype=np.float64)
