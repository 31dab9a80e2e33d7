"""Stars of a block of a survey: rows of a group of velocities and parameters.

What is fitted is always the observed spectrum on its own pixels. What the group is named by is
where the fit starts: the observed spectrum itself, or a denoised one, with the ivar of the
observed one as weights. A row that has no denoised spectrum starts from the observed one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from pipeline.flags import bits
from pipeline.held import Held
from pipeline.inputs import Input, ledger
from pipeline.product import loaded
from pipeline.stage import grid_of
from pipeline.stars.denoised import observed_axis
from pipeline.stars.fit import Stars, Start, measure_stars, start_values
from pipeline.stars.flag import Flag
from pipeline.stars.templates import Templates, TemplateSet, line_spread, templates
from storage.schema import LEDGER, Field, Reason, Status, template
from storage.store import Survey
from training.device import download, upload, worker_device

VERSION = 1
"Raised when the same spectra give other numbers: stars are stale then."
CLASS = "STAR"
_LOOKED = 512


def _number(units: str, description: str, dtype: str = "f4") -> Field:
    return Field(dtype=dtype, units=units, description=description)


_FIELDS = {
    "velocity": _number("km/s", "c z, in the frame of the wavelengths", "f8"),
    "velocity_err": _number("km/s", "one standard deviation"),
    "teff": _number("K", "effective temperature"),
    "teff_err": _number("K", "one standard deviation; NaN at an end of the templates"),
    "logg": _number("dex", "log10 of the surface gravity in cm s-2"),
    "logg_err": _number("dex", "one standard deviation; NaN at an end of the templates"),
    "feh": _number("dex", "[Fe/H]"),
    "feh_err": _number("dex", "one standard deviation; NaN at an end of the templates"),
    "alpha_m": _number("dex", "[alpha/M]"),
    "alpha_m_err": _number("dex", "one standard deviation; NaN at an end of the templates"),
    "chi2": _number("1", "least chi square"),
    "pixels": _number("1", "pixels that counted", "u2"),
    "iterations": _number("1", "steps of the fit", "u2"),
    "flag": _number("1", "what to know of the star, bits", "u1"),
    **LEDGER,
}


@dataclass(frozen=True, kw_only=True)
class MeasureStars:
    """Rows of a group of stars."""

    config: str
    chosen: TemplateSet
    "What is fitted; its line spread is that of the observed spectra."
    start: Input | None = None
    "The product that fits start from; None: the observed spectra."

    @property
    def group(self) -> str:
        """The stars."""
        return f"stars/{self.config}/{self.start.name if self.start else 'raw'}"

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What it always reads: (group, variable)."""
        own = tuple((f"spectra/{self.config}", name) for name in ("flux", "ivar"))
        return (*own, (self.start.group, self.start.variable)) if self.start else own

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        status, code = ledger(held, held.spectra)
        other = (status == Status.DONE) & (held.values(held.spectra, "class") != CLASS)
        status[other], code[other] = Status.NOT_APPLICABLE, Reason.NOT_SCIENCE
        made = stars(len(status)).copy(deep=True)
        done = np.flatnonzero(status == Status.DONE)
        if done.size:
            found = self._measured(held, done)
            for name, values in found._asdict().items():
                made[name].values[done] = download(values)
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(self, held: Held, done: np.ndarray) -> Stars:
        fitted = templates(self.chosen)
        axis = grid_of(held.survey, held.spectra).wavelength
        flux, ivar = (_there(held.values(held.spectra, n)[done]) for n in ("flux", "ivar"))
        start = start_values(axis, flux, ivar, templates=fitted)
        if self.start is not None:
            start = _better(start, self._denoised(held, done, fitted))
        return measure_stars(axis, flux, ivar, templates=fitted, start=start)

    def _denoised(self, held: Held, done: np.ndarray, fitted: Templates) -> Start:
        """Starts from the product; none where it has no spectrum."""
        assert self.start is not None
        frame = loaded(self.start.checkpoint).frame
        rows = torch.from_numpy(done)
        batch = held.batch(frame)
        # Of the product, which is in the survey's unit.
        weight = batch.weight[rows] / batch.scale[rows, None].square()
        made = held.values(self.start.group, "status")[done] == Status.DONE
        flux = _there(held.values(self.start.group, self.start.variable)[done])
        there = _there(made)[:, None]
        return start_values(observed_axis(frame), flux, weight * there, templates=fitted)


def steps(
    config: str, survey: Survey, products: Sequence[Input], options: Mapping[str, Any]
) -> list[MeasureStars]:
    """The groups of stars of a survey: from the observed spectra, and from each product.

    options : fields of a `TemplateSet`; without a line spread, it is what the survey says.

    Raises
    ------
    ValueError
        When an option makes no templates, or the survey says nothing of its line spread.
    """
    own = {} if "line_spread" in options else {"line_spread": _line_spread(config, survey)}
    chosen = TemplateSet(**own, **options)
    return [MeasureStars(config=config, chosen=chosen, start=start) for start in (None, *products)]


def stars(n: int) -> xr.Dataset:
    """The shape of a group of stars of n rows; of values that are not there, which are NaN."""
    made = template(n, None, _FIELDS)
    for name, field in _FIELDS.items():
        if field.dtype.startswith("f"):
            # Unlike a pixel, a star that was not measured is not zero.
            made[name].data = np.full(n, np.nan, field.dtype)
    made["flag"].attrs |= bits(Flag)
    return made


def about(step: MeasureStars) -> dict[str, Any]:
    """Attributes that say what the numbers of a group are, and what they depend on."""
    return {
        "start": step.start.name if step.start else "raw",
        "templates": step.chosen.model_dump(mode="json"),
        "error_kind": "formal: from the ivar of the observed spectrum",
    }


def _line_spread(config: str, survey: Survey) -> tuple[tuple[float, float], ...]:
    """The median of the first spectra: appending changes nothing."""
    group = f"spectra/{config}"
    lsf = survey.dataset(group)["lsf"][:_LOOKED].to_numpy().astype(np.float64)
    seen = np.where(np.isfinite(lsf) & (lsf > 0), lsf, np.nan)
    known = np.isfinite(seen).any(axis=0)
    middle = np.zeros(lsf.shape[1])
    middle[known] = np.nanmedian(seen[:, known], axis=0)
    try:
        return line_spread(middle, grid_of(survey, group))
    except ValueError as error:
        raise ValueError(f"{survey.path}: {group}/{error}") from error


def _better(own: Start, other: Start) -> Start:
    """The other start, or one's own where the other has none."""
    known = torch.isfinite(other.velocity)
    return Start(
        *(
            torch.where(known.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(other, own, strict=True)
        )
    )


def _there(values: np.ndarray) -> torch.Tensor:
    """Values where this worker computes."""
    return upload(torch.from_numpy(np.require(values, requirements="W")), worker_device())
