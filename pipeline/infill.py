"""Infill: indices of spectra whose emission lines are fitted and taken out first.

What is left of a line is its noise: the error of an index is that of the spectrum, without that of
the fit.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import xarray as xr
from torch import Tensor

from pipeline.held import Held
from pipeline.line_stage import MeasureLines, emission
from pipeline.measure import Measure
from training.batch import Batch
from training.device import download
from training.frame import Frame


@dataclass(frozen=True, kw_only=True)
class MeasureFilled(Measure):
    """Rows of an index group from the flux of one input, without its emission lines."""

    lines: MeasureLines
    "How they are fitted."

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        return super().__call__(WithoutLines(held, self.lines))


def filled(step: Measure, lines: MeasureLines) -> MeasureFilled:
    """The same step without those lines."""
    return MeasureFilled(**{f.name: getattr(step, f.name) for f in fields(step)}, lines=lines)


class WithoutLines(Held):
    """Rows of a survey; the emission lines of one input are not in them."""

    def __init__(self, held: Held, step: MeasureLines) -> None:
        """What the other has read and made counts here too."""
        self.__dict__.update(held.__dict__)
        self._held, self._step = held, step
        self._found: Tensor | None = None

    @property
    def _lines(self) -> Tensor:
        if self._found is None:
            self._found = emission(self._held, self._step)
        return self._found

    def values(self, group: str, name: str) -> np.ndarray:
        """A variable of a group; of the input's flux what the lines leave of it."""
        found, given = self._held.values(group, name), self._step.input
        if (group, name) != (given.group, given.variable) or given.frame is not None:
            return found
        # No data stays none: the lines are drawn over gaps, too.
        return np.asarray((found - download(self._lines)) * (found != 0), found.dtype)

    def batch(self, frame: Frame) -> Batch:
        """The observed spectra on a frame."""
        found = self._held.batch(frame)
        return self._cleaned(found) if self._of_spectra and self._on(frame) else found

    def framed(self, frame: Frame, flux: np.ndarray, ivar: np.ndarray) -> Batch:
        """Spectra of the observed ones' wavelengths and redshifts on a frame."""
        found = self._held.framed(frame, flux, ivar)
        return self._cleaned(found) if self._on(frame) else found

    @property
    def _of_spectra(self) -> bool:
        given = self._step.input
        return (given.group, given.variable) == (self.spectra, "flux")

    def _on(self, frame: Frame) -> bool:
        return self._step.input.frame == frame

    def _cleaned(self, batch: Batch) -> Batch:
        return replace(batch, x=batch.x - self._lines)
