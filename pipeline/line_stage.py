"""Emission lines of a block of a survey, of anything that it holds: rows of a group of lines.

Fluxes are free of the Milky Way's dust: observed spectra are dereddened before they are fitted, as
frames do it. Axes: N spectra, L pixels, `line` in the order of `pipeline.lines.line_list`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pipeline.errors import ErrorKind
from pipeline.held import Held
from pipeline.index_lick import on_axis
from pipeline.inputs import Input, ledger
from pipeline.line_group import DUST, lines
from pipeline.line_templates import LineTemplates
from pipeline.lines import fit
from pipeline.lines.block import DETECTED
from pipeline.lines.fit import LineFlag, Lines
from pipeline.product import loaded
from pipeline.stage import grid_of
from storage.dust import curve
from storage.grid import Grid
from storage.schema import Status
from training.device import download, upload, worker_device
from training.draws import scatter
from training.frame import Frame

VERSION = 2
"Raised when the same spectra and the same fit give other numbers: lines are stale then."
SNR = 200.0
"""Of a pixel, by which spectra without noise or with noise that is not independent are fitted: all
their pixels count alike, and a fit of more would never settle."""
_ERRORS = ("flux_err", "ew_err", "sigma_err", "velocity_err")


@dataclass(frozen=True, kw_only=True)
class MeasureLines:
    """Rows of a group of lines from the flux of one input."""

    config: str
    input: Input
    stars: LineTemplates
    "Templates of what lies under the lines."
    draws: int = 16
    "Of the posterior of a denoised spectrum, for the errors of its lines."
    seed: int = 0
    precision: str = "float32"
    "Of the product, as the card asks for it."

    @property
    def group(self) -> str:
        """The lines."""
        return f"lines/{self.config}/{self.input.name}"

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """What it always reads: (group, variable)."""
        spectra, own = f"spectra/{self.config}", (self.input.group, self.input.variable)
        if self.input.checkpoint:
            return (own, (spectra, "z"))
        return (own, *((spectra, name) for name in ("ivar", "z", "ebv")))

    def __call__(self, held: Held) -> xr.Dataset:
        """Measure a block."""
        status, code = ledger(held, self.input.group)
        made = lines(len(status)).copy(deep=True).drop_vars("line")
        done = status == Status.DONE
        if done.any():
            found, kind = self._measured(held, done)
            _fill(made, found, done)
            known = np.isfinite(made["flux_err"].to_numpy()).any(axis=1)
            made["error_kind"].values[known] = kind
        made["status"].values[:], made["reason_code"].values[:] = status, code
        return made

    def _measured(self, held: Held, done: np.ndarray) -> tuple[Lines, ErrorKind]:
        given = _given(self.input, held, done)
        found = _fitted(given, self)
        if self.input.group == held.spectra and self.input.variable == "flux":
            return found, ErrorKind.FORMAL
        if self.input.checkpoint and held.has(self.input.group, "latent_cov"):
            return _with_scatter(found, given, self, held), ErrorKind.DRAWS
        return _without_errors(found), ErrorKind.NONE


def emission(held: Held, step: MeasureLines) -> Tensor:
    """The lines alone (N, P), as they stand in what the indices of an input are measured on.

    On its axis and in its unit, with the Milky Way's dust where that is in it; 0 where nothing is
    measured.
    """
    done = ledger(held, step.input.group)[0] == Status.DONE
    given = _given(step.input, held, done)
    found = _fit(given, step, model=True).emission
    assert found is not None
    return (torch.nan_to_num(found) * _there(done)[:, None] / given.bright).to(given.flux)


class Given(NamedTuple):
    """Spectra to be fitted, and what makes their lines those of the sky."""

    wavelength: np.ndarray
    "(L,) vacuum A, observed, or at rest where z is 0."
    flux: Tensor
    "(N, L) dereddened."
    ivar: Tensor
    "(N, L) 0 where there is no data, and in rows that are not to be measured."
    z: Tensor
    "(N,) redshift that lines have on the axis."
    gain: Tensor
    "(N,) what flux is to be multiplied by for the survey's unit."
    stretch: Tensor
    "(N,) observed A in an A of the axis."
    bright: Tensor
    "(N, L) what the input was multiplied by to be dereddened; (1, 1) where frames have done it."
    lsf: Tensor | None = None
    "(N, L) sigma of the instrument, pixels."


def _given(given: Input, held: Held, done: np.ndarray) -> Given:
    flux, z = held.values(given.group, given.variable), held.values(held.spectra, "z")
    observed = given.group == held.spectra and given.variable == "flux"
    ivar = held.values(held.spectra, "ivar") if observed else _steady(flux)
    if given.checkpoint:
        frame = loaded(given.checkpoint).frame
        pixels = _there(flux), _there(ivar)
        made = _on_frame(frame, *pixels, _there(z), torch.ones(len(z)), done)
        return made._replace(lsf=_spread(held, frame))
    if given.frame is not None:
        frame = given.frame
        batch = held.batch(frame) if observed else held.framed(frame, flux, ivar)
        made = _on_frame(frame, batch.x, batch.weight, batch.z, batch.scale, done)
        return made._replace(lsf=_spread(held, frame)) if observed else made
    grid, ebv = grid_of(held.survey, held.spectra), held.values(held.spectra, "ebv")
    bright = torch.exp(_there(ebv)[:, None] * _extinction(grid).to(worker_device()))
    mine = _there(done)[:, None]
    return Given(
        wavelength=grid.wavelength,
        flux=_there(flux) * bright,
        ivar=_there(ivar) * mine / bright.square(),
        z=_there(z),
        gain=torch.ones(len(z), device=bright.device),
        stretch=torch.ones(len(z), device=bright.device),
        bright=bright,
        lsf=_there(held.values(held.spectra, "lsf").astype("f4")) if observed else None,
    )


def _on_frame(
    frame: Frame, flux: Tensor, ivar: Tensor, z: Tensor, gain: Tensor, done: np.ndarray
) -> Given:
    """Spectra on a frame: its pixels are dereddened, and at rest where the frame is."""
    return Given(
        wavelength=frame.grid.wavelength,
        flux=flux,
        ivar=ivar * _there(done)[:, None],
        z=torch.zeros_like(z) if frame.rest else z,
        gain=gain.to(flux.device),
        stretch=1 + z if frame.rest else torch.ones_like(z),
        bright=torch.ones(1, 1, device=flux.device),
    )


def _spread(held: Held, frame: Frame) -> Tensor:
    """Sigma of the instrument (N, P) in pixels of a frame."""
    lsf, z = (held.values(held.spectra, name) for name in ("lsf", "z"))
    rest = z if frame.rest else None
    return _there(on_axis(lsf, grid_of(held.survey, held.spectra), frame.grid, rest))


def _fitted(given: Given, job: MeasureLines) -> Lines:
    """Lines in the survey's unit, of the observed frame."""
    found = _fit(given, job)
    gain = given.gain.to(found.flux)[:, None]
    whole = gain * given.stretch.to(found.flux)[:, None]
    return found._replace(
        flux=found.flux * whole,
        flux_err=found.flux_err * whole,
        limit=found.limit * whole,
        continuum=found.continuum * gain,
    )


def _fit(given: Given, job: MeasureLines, *, model: bool = False) -> Lines:
    return fit.measure_lines(
        given.wavelength,
        given.flux,
        given.ivar,
        given.z,
        lsf=given.lsf,
        templates=job.stars.basis,
        return_model=model,
    )


def _without_errors(found: Lines) -> Lines:
    """Lines of spectra whose pixels have no independent errors."""
    nan = {name: torch.full_like(getattr(found, name), torch.nan) for name in (*_ERRORS, "limit")}
    # What is not detected, and how well starlight fits, is told by the errors that there are not.
    flag = found.flag.int() & ~int(LineFlag.NOT_DETECTED)
    return found._replace(**nan, flag=flag, chi2=torch.full_like(found.chi2, torch.nan))


def _with_scatter(found: Lines, given: Given, job: MeasureLines, held: Held) -> Lines:
    """The lines with the bare scatter over draws of the posterior of the spectra as errors."""
    group, scale = job.input.group, _there(held.values(job.input.group, "scale"))[:, None]
    mean, cov = (_there(held.values(group, name)) for name in ("latent", "latent_cov"))
    names = [name.removesuffix("_err") for name in _ERRORS]

    def numbers(flux: Tensor, rows: Tensor) -> Tensor:
        part = _part(given, rows)._replace(flux=flux * scale[rows])
        again = _fitted(part, job)
        return torch.cat([getattr(again, name) for name in names], dim=1)

    spread = scatter(
        loaded(job.input.checkpoint).model,
        mean,
        cov,
        numbers,
        draws=job.draws,
        seed=job.seed,
        first=held.block.first,
    )
    # Draws that are all alike say nothing, nor do those of what was given instead of fitted.
    errors = {
        name: torch.where(getattr(found, name).isnan() | (part <= 0), torch.nan, part)
        for name, part in zip(_ERRORS, spread.chunk(len(names), dim=1), strict=True)
    }
    least = DETECTED * errors["flux_err"]
    faint = (found.flux < least) & found.flux.isfinite()
    bare = _without_errors(found)
    return bare._replace(
        **errors,
        flag=bare.flag | faint * int(LineFlag.NOT_DETECTED),
        limit=torch.where(faint, least, torch.nan),
    )


def _part(given: Given, rows: Tensor) -> Given:
    return given._replace(
        ivar=given.ivar[rows],
        z=given.z[rows],
        gain=given.gain[rows],
        stretch=given.stretch[rows],
        lsf=None if given.lsf is None else given.lsf[rows],
    )


def _fill(made: xr.Dataset, found: Lines, done: np.ndarray) -> None:
    for name in made.data_vars:
        value = getattr(found, str(name), None)
        if value is not None:
            made[name].values[done] = download(value)[done]


def _steady(flux: np.ndarray) -> np.ndarray:
    """Inverse variance for flux whose pixels have no independent errors; 0 where there is none."""
    there = flux != 0
    level = np.square(flux, dtype=np.float64).sum(1) / np.maximum(there.sum(1), 1)
    return np.asarray(there * (SNR**2 / np.maximum(level, 1e-30))[:, None], np.float32)


def _there(values: np.ndarray | Tensor) -> Tensor:
    """Values where this worker computes."""
    if isinstance(values, Tensor):
        return values
    return upload(torch.from_numpy(np.require(values, requirements="W")), worker_device())


@lru_cache(maxsize=8)
def _extinction(grid: Grid) -> Tensor:
    """Logarithm (L,) of what a spectrum is brightened by for a unit of E(B-V)."""
    return torch.from_numpy(0.4 * np.log(10) * curve(DUST, grid.wavelength)).float()
