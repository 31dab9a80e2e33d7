"""Velocity: chi^2 of templates at every shift, by correlation; its minimum, width and rivals.

Correlation in logarithmic wavelength (Tonry & Davis 1979) in the form of a likelihood (Zucker
2003): chi^2 of the best amplitude of a template at a shift, here of the best polynomial, with the
inverse variance of every pixel. The error is that of chi^2 + 1.

Axes: N spectra, S templates of the search, V shifts, J points of the axis.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.stars.flag import Flag
from pipeline.stars.seen import Sums, explained
from pipeline.stars.templates import Templates
from storage.simulation.instrument import C_KMS

RIVAL = 9.0
"Another velocity whose chi^2 is within this of the best makes the best ambiguous."
APART = 2.5
"How far from the best another velocity is, in sigma of the line spread."
_BYTES = 1 << 26


class Velocity(NamedTuple):
    """Velocities of N spectra, (N,) each."""

    kms: Tensor
    "c z, km/s."
    error: Tensor
    "One standard deviation, km/s, where ivar is of the flux; NaN where chi^2 has no minimum."
    lag: Tensor
    "The shift in points of the axis."
    chi2: Tensor
    "Of the best template of the search."
    flag: Tensor
    "uint8, bits of `Flag`."


def velocity(found: Sums, templates: Templates, middle: Tensor, range_kms: float) -> Velocity:
    """The velocity at which a template fits best.

    middle : (N,) km/s, the middle of the range that is searched; range_kms: half of its width.
    """
    lags = _lags(templates, found.power.device)
    parts, step = [], _rows(found, templates)
    for first in range(0, len(found.power), step):
        rows = slice(first, first + step)
        chi2 = _correlate(Sums(*(part[rows] for part in found)), templates, lags)
        parts.append(_best(chi2, lags, templates, middle[rows], range_kms))
    return Velocity(*(torch.cat(column) for column in zip(*parts, strict=True)))


def lag_of(kms: Tensor, templates: Templates) -> Tensor:
    """Shift in points of the axis of a velocity."""
    return torch.log1p(kms / C_KMS) / templates.step


def kms_of(lag: Tensor, templates: Templates) -> Tensor:
    """Velocity, c z, of a shift in points of the axis."""
    return torch.expm1(lag * templates.step) * C_KMS


def _lags(templates: Templates, device: torch.device) -> Tensor:
    reach = torch.tensor(templates.chosen.reach_kms, dtype=torch.float64)
    most = int(lag_of(reach, templates))
    return torch.arange(-most, most + 1, device=device)


def _rows(found: Sums, templates: Templates) -> int:
    """Spectra at a time: products of transforms are the largest arrays."""
    each = (found.pull.shape[1] + found.hold.shape[1]) * found.pull.shape[2] * 8
    return max(1, _BYTES // (each * len(templates.search)))


def _correlate(found: Sums, templates: Templates, lags: Tensor) -> Tensor:
    """chi^2 (N, S, V)."""
    flux = templates.flux[templates.search]
    pull = _shifted(found.pull, flux, lags)
    hold = _shifted(found.hold, flux.square(), lags)
    return found.power[:, None, None] - explained(pull.unbind(1), hold.unbind(1))


def _shifted(values: Tensor, flux: Tensor, lags: Tensor) -> Tensor:
    """Sums (N, K, S, V) of values (N, K, J) times templates (S, J) moved by each shift."""
    size = values.shape[-1]
    # No padding: values are 0 within the largest shift of both ends.
    both = torch.fft.rfft(values)[:, :, None] * torch.fft.rfft(flux).conj()
    found: Tensor = torch.fft.irfft(both, n=size)[..., lags % size]
    return found


def _best(
    chi2: Tensor, lags: Tensor, templates: Templates, middle: Tensor, range_kms: float
) -> Velocity:
    kms = kms_of(lags.double(), templates)
    allowed = (kms - middle[:, None]).abs() <= range_kms
    everywhere = chi2.amin(dim=1)
    profile = torch.where(allowed, everywhere, torch.inf)
    best = profile.argmin(dim=1)
    row = torch.arange(len(best), device=best.device)
    size = len(lags)
    edge = (best == 0) | (best == size - 1)
    near = best.clamp(1, size - 2)
    edge |= ~(allowed[row, near - 1] & allowed[row, near + 1])
    edge |= everywhere.amin(dim=1) < profile.amin(dim=1) - RIVAL
    which = chi2[row, :, near].argmin(dim=1)
    left, mid, right = (chi2[row, which, near + k] for k in (-1, 0, 1))
    bend = left - 2 * mid + right
    sound = torch.isfinite(bend) & (bend > 0) & ~edge
    away = torch.where(sound, 0.5 * (left - right) / torch.where(sound, bend, 1), 0)
    lag = lags[near] + away.clamp(-1, 1)
    kms = kms_of(lag, templates)
    point = templates.step * (C_KMS + kms)
    error = torch.where(sound, (2 / bend.clamp(min=1e-300)).sqrt() * point, torch.nan)
    rival = _rival(profile, best, lags, templates)
    flag = (~sound) * int(Flag.VELOCITY_EDGE) + rival * int(Flag.AMBIGUOUS)
    return Velocity(kms, error, lag, mid - 0.25 * (left - right) * away, flag.to(torch.uint8))


def _rival(profile: Tensor, best: Tensor, lags: Tensor, templates: Templates) -> Tensor:
    """Whether another minimum, (N,), is nearly as deep."""
    inner = profile[:, 1:-1]
    minimum = (inner < profile[:, :-2]) & (inner <= profile[:, 2:])
    sigma = float(templates.chosen.sigma(templates.axis.wavelength).max()) / C_KMS
    far = (lags[1:-1] - lags[best][:, None]).abs() > APART * sigma / templates.step
    lowest = torch.where(minimum & far, inner, torch.inf).amin(dim=1)
    return lowest < profile.amin(dim=1) + RIVAL
