"""Stars: radial velocity, Teff, log g and [Fe/H] of many spectra at once, and where to start.

Two steps, each of its own use. `start_values` searches: velocities by correlation, parameters by
chi^2 at the nodes. `measure_stars` goes from there to the least chi^2, and gives errors. A start
may come from anything, a denoised spectrum above all. The errors of a denoised spectrum are not
those of its pixels, which share theirs: it is given the ivar of the noisy one as weights, for a
start alone, and what is fitted and quoted is the noisy spectrum.

Axes: N spectra, L pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pipeline.stars.flag import LOST, Flag
from pipeline.stars.parameters import first_values
from pipeline.stars.refine import Fitted, refine
from pipeline.stars.seen import Pixels, pixels, sums
from pipeline.stars.templates import Templates
from pipeline.stars.velocity import velocity
from storage.simulation.instrument import C_KMS

RANGE_KMS = 1000.0
"How far from z0 a velocity is searched, either way; km/s."
_ROWS = 128


class Start(NamedTuple):
    """Where to start from, for N stars."""

    velocity: Tensor
    "(N,) c z, km/s; NaN where the flag says so."
    velocity_err: Tensor
    "(N,) km/s; of no meaning where the flux was denoised."
    parameters: Tensor
    "(N, 4) teff, K; logg, feh, alpha_m, dex."
    chi2: Tensor
    "(N,) of the best template."
    flag: Tensor
    "(N,) uint8, bits of `Flag`."


class Stars(NamedTuple):
    """What was measured of N stars, (N,) each; float64 but for the last two."""

    velocity: Tensor
    "c z of the wavelengths given, km/s."
    velocity_err: Tensor
    "One standard deviation, as all errors here, parameters and polynomial free."
    teff: Tensor
    "K."
    teff_err: Tensor
    "K; NaN where teff stands at an end of the templates, and so for those below."
    logg: Tensor
    "log10 of cm s-2."
    logg_err: Tensor
    "dex."
    feh: Tensor
    "[Fe/H]."
    feh_err: Tensor
    "dex."
    alpha_m: Tensor
    "[alpha/M]."
    alpha_m_err: Tensor
    "dex."
    chi2: Tensor
    "Least chi^2."
    pixels: Tensor
    "Pixels that counted."
    iterations: Tensor
    "int64; how often chi^2 was computed after the start."
    flag: Tensor
    "uint8, bits of `pipeline.stars.flag.Flag`."


def start_values(
    wavelength: ArrayLike,
    flux: ArrayLike | Tensor,
    ivar: ArrayLike | Tensor,
    *,
    templates: Templates,
    z0: ArrayLike | Tensor | None = None,
    range_kms: float = RANGE_KMS,
) -> Start:
    """Velocity and parameters to start from.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, vacuum A, ascending.
    flux, ivar : (N, L) float
        Flux density per A, in any unit, and its inverse variance, 0 where there is no data. Of a
        denoised spectrum: the ivar of the noisy one, as weights.
    templates : Templates
        What is compared with; see `pipeline.stars.templates.templates`.
    z0 : (N,) float, optional
        Redshift about which velocities are searched; 0 unless given.
    range_kms : float
        How far from it, either way; km/s. The templates' reach is the most.

    Raises
    ------
    ValueError
        When the shapes do not fit, or wavelengths do not ascend.
    """
    given = _given(wavelength, flux, ivar, z0)
    templates, parts = templates.on(given.flux.device), []
    for rows, seen in _blocks(given, templates):
        found = sums(seen, templates)
        kms = velocity(found, templates, given.middle[rows], range_kms)
        first = first_values(found, templates, kms.lag)
        flag = kms.flag | _few(seen)
        lost = (flag & int(LOST)) > 0
        values = torch.where(lost[:, None], torch.nan, first.values)
        kms_, error, chi2 = (
            torch.where(lost, torch.nan, v) for v in (kms.kms, kms.error, first.chi2)
        )
        parts.append(Start(kms_, error, values, chi2, flag))
    return Start(*(torch.cat(column)[: given.size] for column in zip(*parts, strict=True)))


def measure_stars(
    wavelength: ArrayLike,
    flux: ArrayLike | Tensor,
    ivar: ArrayLike | Tensor,
    *,
    templates: Templates,
    z0: ArrayLike | Tensor | None = None,
    start: Start | None = None,
    range_kms: float = RANGE_KMS,
) -> Stars:
    """Velocity and parameters of N stars, with errors.

    Parameters
    ----------
    wavelength : (L,) float
        Pixel centres, vacuum A, ascending.
    flux, ivar : (N, L) float
        Observed flux density per A, in any unit, and its inverse variance, 0 where there is no
        data. Errors are those of ivar: not for denoised spectra.
    templates : Templates
        What is fitted; see `pipeline.stars.templates.templates`.
    z0 : (N,) float, optional
        Redshift about which velocities may lie; 0 unless given.
    start : Start, optional
        Where to start; `start_values` of the same spectra unless given. Rows without a velocity
        start in the middle of all ranges, and keep what the start's flag says of it.
    range_kms : float
        How far from z0 velocities may lie, either way; km/s.

    Raises
    ------
    ValueError
        When the shapes do not fit, or wavelengths do not ascend.
    """
    given = _given(wavelength, flux, ivar, z0)
    if start is None:
        start = start_values(
            wavelength, flux, ivar, templates=templates, z0=z0, range_kms=range_kms
        )
    if start.parameters.shape != (given.size, 4):
        raise ValueError(f"start: {len(start.velocity)} stars, expected {given.size} as flux has")
    templates, parts = templates.on(given.flux.device), []
    for rows, seen in _blocks(given, templates):
        low, high = _ends(given.middle[rows], templates, range_kms)
        middle, before = 0.5 * (low + high), seen.enough.new_zeros(len(low), dtype=torch.uint8)
        begin = torch.cat([start.velocity[rows, None], start.parameters[rows]], dim=1).to(low)
        if given.size:
            known = torch.isfinite(begin).all(dim=1, keepdim=True)
            middle, before = torch.where(known, begin, middle), start.flag[rows].to(low.device)
        parts.append(_stars(refine(seen, templates, middle, low, high), seen, templates, before))
    return Stars(*(torch.cat(column)[: given.size] for column in zip(*parts, strict=True)))


class _Given(NamedTuple):
    """What came in, as tensors on one device."""

    wavelength: np.ndarray[tuple[int], np.dtype[np.float64]]
    flux: Tensor
    ivar: Tensor
    middle: Tensor
    "(N,) km/s, of the velocities."
    size: int
    "Of spectra; of none there is a row of no data."


def _given(
    wavelength: ArrayLike,
    flux: ArrayLike | Tensor,
    ivar: ArrayLike | Tensor,
    z0: ArrayLike | Tensor | None,
) -> _Given:
    axis = np.asarray(wavelength, np.float64)
    f = _tensor(flux)
    w = _tensor(ivar).to(f.device)
    z = f.new_zeros(len(f), dtype=torch.float64) if z0 is None else _tensor(z0).to(f.device)
    if axis.ndim != 1 or not (np.diff(axis) > 0).all():
        raise ValueError(f"wavelength: expected an ascending axis (L,), got shape {axis.shape}")
    if f.ndim != 2 or f.shape[1] != axis.size or w.shape != f.shape:
        raise ValueError(
            f"flux {tuple(f.shape)}, ivar {tuple(w.shape)} and wavelength ({axis.size},) do not "
            "fit; expected (N, L), (N, L) and (L,)"
        )
    if z.shape != (len(f),):
        raise ValueError(f"z0: shape {tuple(z.shape)}, expected ({len(f)},) as flux has")
    size = len(f)
    if not size:
        f, w, z = f.new_zeros(1, axis.size), w.new_zeros(1, axis.size), z.new_zeros(1)
    return _Given(axis, f, w, torch.nan_to_num(z.double()) * C_KMS, size)


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    # torch shares memory only with native, writeable arrays.
    native = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(native)


def _blocks(given: _Given, templates: Templates) -> Iterator[tuple[slice, Pixels]]:
    for first in range(0, len(given.flux), _ROWS):
        rows = slice(first, first + _ROWS)
        yield rows, pixels(given.wavelength, given.flux[rows], given.ivar[rows], templates)


def _few(seen: Pixels) -> Tensor:
    return (~seen.enough * int(Flag.TOO_FEW)).to(torch.uint8)


def _ends(middle: Tensor, templates: Templates, range_kms: float) -> tuple[Tensor, Tensor]:
    """The lowest and the highest of velocity and parameters, (N, 5) each."""
    reach = templates.chosen.reach_kms
    ends = templates.box.ends.to(middle.device)
    sides = [(middle + sign * range_kms).clamp(-reach, reach) for sign in (-1, 1)]
    low, high = (
        torch.cat([side[:, None], end.expand(len(middle), -1)], dim=1)
        for side, end in zip(sides, ends, strict=True)
    )
    return low, high


def _stars(fitted: Fitted, seen: Pixels, templates: Templates, before: Tensor) -> Stars:
    flag = _few(seen) | (before & int(Flag.AMBIGUOUS | Flag.VELOCITY_EDGE))
    # A parameter with one node is where it was put, and at no end.
    moves = torch.tensor([n > 1 for n in templates.box.shape], device=flag.device)
    width = fitted.error[:, 0]
    for bit, holds in (
        (Flag.VELOCITY_EDGE, fitted.at_end[:, 0] & seen.enough),
        (Flag.EDGE, (fitted.at_end[:, 1:] & moves).any(dim=1)),
        (Flag.NOT_CONVERGED, ~(fitted.converged & torch.isfinite(width))),
        (Flag.BESIDE_HOLE, _beside(fitted.values[:, 1:], templates)),
    ):
        flag = flag | (holds * int(bit)).to(torch.uint8)
    lost = (flag & int(LOST)) > 0
    both = torch.stack([fitted.values, fitted.error], dim=2).flatten(1)
    columns = torch.where(lost[:, None], torch.nan, both).unbind(1)
    chi2 = torch.where(lost, torch.nan, fitted.chi2)
    counted = (seen.ivar > 0).sum(dim=1)
    # Velocity and parameters, each with its error, stand first.
    return Stars._make((*columns, chi2, counted, fitted.steps, flag))


def _beside(values: Tensor, templates: Templates) -> Tensor:
    """Whether a node about a place (N, 4) has no model."""
    there = templates.there.reshape(templates.box.shape)
    index = templates.box.index(values)
    found = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    for corner in range(16):
        nodes = [
            (index[:, k].floor() + (corner >> k & 1) * (index[:, k] % 1 > 0)).long()
            for k in range(4)
        ]
        found |= ~there[tuple(nodes)]
    return found
