"""Trials: mock spectra drawn once, seen at several S/N, on which every model of a card is judged.

Survey, verdict and reference draw from streams of their own: nothing is shared with training.
Wrong redshifts and odd galaxies stay in, as a survey has them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Grid
from storage.mock import Mock
from training.apply import apply
from training.batch import Batch
from training.frame import Frame
from training.model import Denoiser
from training.reference import Linear
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

Reference = Callable[[Tensor, Tensor], Tensor]
"Flux (N, P) from x (N, P) and weight (N, P)."


class Measure(Protocol):
    """Indices of spectra on the rest-frame axis of a frame."""

    def __call__(
        self, wavelength: NDArray[np.float64], flux: Tensor, ivar: Tensor | None
    ) -> Tensor | NDArray[Any]:
        """Values (N, I) of flux (N, P); NaN where ivar leaves too little; None: all is there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The trial spectra at one S/N."""

    batch: Batch
    "What the model sees."
    snr: float
    "Median S/N per pixel in g."
    noisy: Array
    "(N, I) indices of it."
    references: Mapping[str, Array]
    "(N, I) indices of what each reference makes of it."


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The same N objects at several S/N, and how they are measured."""

    wavelength: NDArray[np.float64]
    "(P,) rest-frame axis of the frame, vacuum A."
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
    truth = mock.truth(n, grid, seed, "reference")
    flux = truth["flux"].to_numpy()
    batch = frame.on(grid).to(
        flux, np.ones_like(flux), truth["z"].to_numpy(), truth["ebv"].to_numpy()
    )
    complete = batch.ok & (batch.missing <= 1 - COMPLETE)
    if int(complete.sum()) < components:
        raise ValueError(
            f"linear reference: {int(complete.sum())} of {n} mock spectra cover the frame "
            f"{frame.label}, expected {components} or more; draw more, or mock other redshifts"
        )
    return Linear.learn(batch.x[complete], components, seed)


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
    noiseless = drawn["flux"].to_numpy()
    mapper, wavelength = frame.on(grid), frame.grid.wavelength
    truth: dict[str, Array] = {}
    exposures: dict[str, Exposure] = {}
    for name, snr_g in (BINS if bins is None else bins).items():
        seen = mock.observe(drawn, grid, seed, f"verdict-{name}", snr_g)
        place = seen["z"].to_numpy(), seen["ebv"].to_numpy()
        clean = mapper.to(noiseless, np.ones_like(noiseless), *place)
        truth[name] = _values(measure(wavelength, clean.x, clean.weight))
        batch = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), *place)
        exposures[name] = Exposure(
            batch=batch,
            snr=float(np.nanmedian(seen["snr_g"].to_numpy())),
            noisy=_values(measure(wavelength, batch.x, batch.weight)),
            references={
                key: _values(measure(wavelength, reference(batch.x, batch.weight), None))
                for key, reference in references.items()
            },
        )
    return Trials(
        wavelength=wavelength,
        names=tuple(names),
        measure=measure,
        truth=truth,
        exposures=exposures,
    )


def examine(model: Denoiser, trials: Trials, device: str = "cpu") -> dict[str, Sample]:
    """What a model makes of the trials, for `verdict.judge`; the model is left in eval mode."""
    model.eval().to(device)
    return {
        name: Sample(
            names=trials.names,
            snr=seen.snr,
            truth=trials.truth[name],
            noisy=seen.noisy,
            output=_values(trials.measure(trials.wavelength, apply(model, seen.batch).flux, None)),
            references=seen.references,
        )
        for name, seen in trials.exposures.items()
    }


def _values(measured: Tensor | NDArray[Any]) -> Array:
    if isinstance(measured, Tensor):
        measured = measured.cpu().numpy()
    return np.asarray(measured, dtype=np.float64)
