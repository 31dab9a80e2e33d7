"""Stars of a block of a survey: rows of a group of velocities and parameters.

What is fitted is always the observed spectrum on its own pixels. The input that a group is named by
is where the fit starts: the observed spectrum itself, or a denoised one, with the ivar of the
observed one as weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from pipeline.held import Held
from pipeline.inputs import Input, ledger
from pipeline.product import loaded
from pipeline.stage import grid_of
from pipeline.star_group import stars
from pipeline.star_templates import StarTemplates
from pipeline.stars.denoised import observed_axis
from pipeline.stars.fit import Stars, Start, measure_stars, start_values
from pipeline.stars.templates import Templates
from storage.schema import Reason, Status
from storage.writer import CHUNK_ROWS
from training.device import download, upload, worker_device

VERSION = 1
"Raised when the same spectra give other numbers: stars are stale then."
CLASS = "STAR"
"What the survey calls them."


@dataclass(frozen=True, kw_only=True)
class MeasureStars:
    """Rows of a group of stars."""

    config: str
    input: Input
    "What fits start from: the observed spectra, or a product on observed wavelengths."
    templates: StarTemplates
    "What is fitted."
    precision: str = "float32"
    "Of the product, as the card asks for it."

    @property
    def group(self) -> str:
        """The stars."""
        return f"stars/{self.config}/{self.input.name}"

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What it always reads: (group, variable)."""
        own = tuple((f"spectra/{self.config}", name) for name in ("flux", "ivar"))
        if not self.input.checkpoint:
            return own
        # A frame looks at these two, too.
        more = tuple((f"spectra/{self.config}", name) for name in ("z", "ebv"))
        return (*own, *more, (self.input.group, self.input.variable))

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        status, code = ledger(held, self.input.group)
        of_sky = ~np.isin(code, (Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE))
        other = of_sky & (held.values(held.spectra, "class") != CLASS)
        status[other], code[other] = Status.NOT_APPLICABLE, Reason.NOT_A_STAR
        made = stars(len(status)).copy(deep=True)
        for rows in _pieces(status == Status.DONE):
            for name, values in self._measured(held, rows)._asdict().items():
                made[name].values[rows] = download(values)
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(self, held: Held, rows: np.ndarray) -> Stars:
        fitted, axis = self.templates.made(), grid_of(held.survey, held.spectra).wavelength
        flux, ivar = (_there(held.values(held.spectra, n)[rows]) for n in ("flux", "ivar"))
        start = self._start(held, rows, fitted) if self.input.checkpoint else None
        return measure_stars(axis, flux, ivar, templates=fitted, start=start)

    def _start(self, held: Held, rows: np.ndarray, fitted: Templates) -> Start:
        """Where the product says to start."""
        frame = loaded(self.input.checkpoint).frame
        batch, mine = held.batch(frame), torch.from_numpy(rows)
        # Of the product, which is in the survey's unit.
        weight = batch.weight[mine] / batch.scale[mine, None].square()
        flux = _there(held.values(self.input.group, self.input.variable)[rows])
        return start_values(observed_axis(frame), flux, weight, templates=fitted)


def _pieces(done: np.ndarray) -> Iterator[np.ndarray]:
    """Rows to be measured, a chunk's at a time: company is the same in a block of any size."""
    for first in range(0, len(done), CHUNK_ROWS):
        rows = first + np.flatnonzero(done[first : first + CHUNK_ROWS])
        if rows.size:
            yield rows


def _there(values: np.ndarray) -> torch.Tensor:
    """Values where this worker computes."""
    return upload(torch.from_numpy(np.require(values, requirements="W")), worker_device())
