"""Refine: velocity and parameters of the least chi^2, from any start, by Levenberg-Marquardt.

A template between nodes, shifted, times the best polynomial, against the observed pixels. The
polynomial is solved for exactly at every step, so it is no part of the search. All spectra take
their steps together; one that is done is left out of the rest.

Axes: N spectra, P pixels, J points of the templates' axis, K terms of the polynomial, U unknowns:
velocity and the four parameters.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.stars.seen import TAPS, Pixels, taps
from pipeline.stars.templates import Templates
from pipeline.stars.velocity import lag_of
from storage.simulation.instrument import C_KMS

MOST = 40
"Steps at most."
DONE = 0.01
"""A fit is done when a full step would lower chi^2 by less: it is within 0.1 sigma of the minimum
before its last step."""
_DAMPING, _TIMES, _LEAST, _STUCK = 1e-3, 10.0, 1e-9, 1e9


class Fitted(NamedTuple):
    """Fits of N spectra."""

    values: Tensor
    "(N, U) velocity, km/s; teff, K; logg, feh, alpha_m, dex."
    error: Tensor
    "(N, U) one standard deviation of each, the others free; NaN where it stands at an end."
    chi2: Tensor
    "(N,)"
    steps: Tensor
    "(N,) int64, how often chi^2 was computed after the start."
    converged: Tensor
    "(N,) bool"
    at_end: Tensor
    "(N, U) bool: held at an end of its range."


class _Local(NamedTuple):
    """chi^2 and its shape where spectra stand."""

    chi2: Tensor
    "(N,)"
    slope: Tensor
    "(N, U + K) half of the derivative, downwards."
    bend: Tensor
    "(N, U + K, U + K) half of the second derivative, as if the model were linear."


def refine(
    seen: Pixels, templates: Templates, start: Tensor, low: Tensor, high: Tensor, most: int = MOST
) -> Fitted:
    """The minimum that a start leads to.

    start : (N, U); low, high : (N, U), the ends of what may be.
    """
    values = torch.minimum(torch.maximum(start, low), high)
    here = _local(seen, templates, values)
    damping = torch.full_like(here.chi2, _DAMPING)
    steps = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    converged, given_up = torch.zeros_like(seen.enough), torch.zeros_like(seen.enough)
    for number in range(most + 1):
        rows = (~converged & ~given_up).nonzero()[:, 0]
        local, ends = _Local(*(part[rows] for part in here)), (low[rows], high[rows])
        whole, promise = _step(local, values[rows], *ends, torch.zeros_like(damping[rows]))
        done = promise < DONE
        converged[rows] = done
        # What it promises is taken along: it is computed already.
        values[rows[done]] = whole[done]
        if done.all() or number == most:
            break
        rows, local = rows[~done], _Local(*(part[~done] for part in local))
        ends = low[rows], high[rows]
        tried, promise = _step(local, values[rows], *ends, damping[rows])
        there = _local(_rows(seen, rows), templates, tried)
        steps[rows] += 1
        gain = local.chi2 - there.chi2
        better = gain >= 0
        taken = rows[better]
        values[taken] = tried[better]
        for part, new in zip(here, there, strict=True):
            part[taken] = new[better]
        # A model that bends promises more than it keeps: smaller steps then get there sooner.
        kept = gain / promise.clamp(min=1e-300)
        factor = torch.where(kept > 0.75, 1 / _TIMES, torch.where(kept < 0.25, _TIMES, 1.0))
        damping[rows] = (damping[rows] * factor).clamp(min=_LEAST)
        given_up[rows] = damping[rows] > _STUCK
    held = _held(here, values, low, high)
    return Fitted(values, _errors(here, held), here.chi2, steps, converged, held)


def _rows(seen: Pixels, rows: Tensor) -> Pixels:
    return seen._replace(flux=seen.flux[rows], ivar=seen.ivar[rows], enough=seen.enough[rows])


def _local(seen: Pixels, templates: Templates, values: Tensor) -> _Local:
    model, slopes = _models(seen, templates, values)
    terms = templates.chosen.degree + 1
    powers = _legendre(seen.x, terms)
    linear = model[:, None] * powers
    weighted = linear * seen.ivar[:, None]
    gram = weighted @ linear.mT
    # A spectrum without data has no polynomial: any will do.
    eye = torch.eye(terms).to(gram)
    scale = gram.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-300)[:, None, None]
    pull = (weighted * seen.flux[:, None]).sum(2)
    share = torch.linalg.solve(gram / scale + 1e-12 * eye, pull[:, :, None] / scale)[:, :, 0]
    polynomial = share @ powers
    rest = seen.flux - polynomial * model
    jacobian = torch.cat([slopes * polynomial[:, None], linear], dim=1)
    heavy = jacobian * seen.ivar[:, None]
    return _Local(
        (seen.ivar * rest.square()).sum(1), (heavy @ rest[:, :, None])[:, :, 0], heavy @ jacobian.mT
    )


def _models(seen: Pixels, templates: Templates, values: Tensor) -> tuple[Tensor, Tensor]:
    """Templates (N, P) without polynomial, and their derivatives (N, U, P)."""
    lag = lag_of(values[:, 0], templates)
    weights = templates.box.weights(values[:, 1:])
    flux = (weights @ templates.flux).transpose(0, 1)
    # d flux / d point, by five points; the ends of the axis are never looked at.
    whole = flux[:, :1]
    slope = (8 * (whole.roll(-1, 2) - whole.roll(1, 2)) - whole.roll(-2, 2) + whole.roll(2, 2)) / 12
    per_kms = -1 / (templates.step * (C_KMS + values[:, 0]))
    arrays = torch.cat([whole, slope * per_kms[:, None, None], flux[:, 1:]], dim=1)
    first, share = taps(seen.place - lag[:, None])
    found = torch.zeros(*arrays.shape[:2], len(seen.place)).to(arrays)
    last = arrays.shape[2] - 1
    for k in range(TAPS):
        index = (first + k).clamp(0, last)[:, None].expand_as(found)
        found += share[k][:, None] * arrays.gather(2, index)
    return found[:, 0], found[:, 1:]


def _legendre(x: Tensor, terms: int) -> Tensor:
    """Legendre polynomials (K, P)."""
    found = [torch.ones_like(x), x]
    for n in range(1, terms - 1):
        found.append(((2 * n + 1) * x * found[n] - n * found[n - 1]) / (n + 1))
    return torch.stack(found[:terms])


def _held(local: _Local, values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Unknowns (N, U) that stand at an end and would go beyond it, or that nothing depends on."""
    unknowns = values.shape[1]
    slope = local.slope[:, :unknowns]
    flat = local.bend.diagonal(dim1=1, dim2=2)[:, :unknowns] <= 0
    return ((values <= low) & (slope <= 0)) | ((values >= high) & (slope >= 0)) | flat


def _scaled(local: _Local, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bend with a diagonal of 1, slope, and what they are in units of, what is held left out."""
    diagonal = local.bend.diagonal(dim1=1, dim2=2)
    free = torch.ones_like(diagonal)
    free[:, : held.shape[1]] = (~held).to(free)
    unit = torch.where(diagonal > 0, diagonal.clamp(min=1e-300).rsqrt(), 0) * free
    bend = local.bend * unit[:, :, None] * unit[:, None, :]
    missing = torch.diag_embed((unit == 0).to(bend))
    return bend + missing, local.slope * unit, unit


def _solved(bend: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    # Rounding alone may leave two parameters that do the same a hair from singular.
    ridge = torch.diag_embed(damping + 1e-12)
    found: Tensor = torch.linalg.solve(bend + ridge, slope[:, :, None])[:, :, 0]
    return found


def _step(
    local: _Local, values: Tensor, low: Tensor, high: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """Where a damped step leads, (N, U), and by how much chi^2 should be lower there, (N,).

    What meets an end goes there and no further, and the others are solved for once more.
    """
    held = _held(local, values, low, high)
    bend, slope, unit = _scaled(local, held)
    unknowns = held.shape[1]
    free, known = torch.ones_like(slope), torch.zeros_like(slope)
    for _ in range(unknowns):
        own = torch.diag_embed(1 - free)
        rest = slope - (bend @ known[:, :, None])[:, :, 0]
        both = bend * free[:, :, None] * free[:, None, :] + own
        step = _solved(both, free * rest + (1 - free) * known, damping[:, None] * free)
        tried = values + step[:, :unknowns] * unit[:, :unknowns]
        inside = torch.minimum(torch.maximum(tried, low), high)
        meets = (tried != inside) & ~held
        if not meets.any():
            break
        free[:, :unknowns] *= (~meets).to(free)
        ends = (inside - values) / torch.where(held, 1, unit[:, :unknowns])
        known[:, :unknowns] = torch.where(meets, ends, known[:, :unknowns])
        step[:, :unknowns] = torch.where(meets, ends, step[:, :unknowns])
    return inside, (step * (2 * slope - (bend @ step[:, :, None])[:, :, 0])).sum(1)


def _errors(local: _Local, held: Tensor) -> Tensor:
    bend, _, unit = _scaled(local, held)
    eye = torch.eye(bend.shape[-1]).to(bend)
    inverse = torch.linalg.inv(bend + 1e-12 * eye).diagonal(dim1=1, dim2=2)
    error = (inverse.clamp(min=0).sqrt() * unit)[:, : held.shape[1]]
    return torch.where(held, torch.nan, error)
