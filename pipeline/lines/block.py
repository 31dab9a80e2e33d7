"""A block of spectra, from pixels to the numbers of each line.

Axes: N spectra, L pixels, `line`; B blocks, S slots, K pixels of a window.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.lines.axis import Axis
from pipeline.lines.continuum import Starlight, starlight
from pipeline.lines.design import areas, levels_inverse
from pipeline.lines.instrument import blur
from pipeline.lines.layout import FREE, Layout, layout
from pipeline.lines.population import depth_variance, span
from pipeline.lines.result import LineFlag, Lines
from pipeline.lines.solve import BROADEST_KMS, FASTEST_KMS, Found, solve
from pipeline.lines.templates import FINE, Bank
from pipeline.lines.windows import MARGIN_KMS, Windows, starlight_at, windows
from storage.grid import vacuum_to_air

DETECTED = 3.0
"Flux over error from which a line counts as detected; the limit is as many errors."
_HALF, _ALL = 0.5, 0.999
"Share of a line's own profile that must have data; that counts as all of it."


class Rows(NamedTuple):
    """Spectra as they are given."""

    flux: Tensor
    "(N, L) float32."
    ivar: Tensor
    "(N, L) float32."
    z: Tensor
    "(N,) float64."
    lsf: Tensor | None
    "(N, L) or (L,) float32, pixels."
    vdisp: Tensor | None
    "(N,) float64, km/s."


class _Under(NamedTuple):
    """What lies under each line, (N, line) each."""

    share: Tensor
    "Of the line's profile that has data."
    continuum: Tensor
    "Flux density under it, weighted by its profile."
    error: Tensor
    "Of that."
    hidden: Tensor
    "Variance of it from the stars that the line hides."
    span: Tensor
    "A, what makes of an error of the continuum one of the flux."


def measured(rows: Rows, axis: Axis, stock: Bank, return_model: bool) -> Lines:
    """The lines of a block of spectra."""
    known = torch.isfinite(rows.z) & (rows.z > -1)
    z = torch.where(known, rows.z, 0.0)
    flux, ivar, unit = _unit_level(rows, known)
    stars, vdisp = _stars(flux, ivar, z, rows, axis, stock)
    to = layout(flux.device)
    seen = tuple(windows(flux, ivar, axis, z, stars.fine, rows.lsf, f) for f in to.families)
    found = solve(seen, to)
    under, model = _under(seen, found, axis, to)
    lsf = _at_lines(seen, to)
    sigma = (found.values[:, 1::2][:, to.group] + lsf.square()).sqrt()
    under = under._replace(
        hidden=depth_variance(stars, stock, sigma),
        span=span(sigma, to.wavelength * (1 + z[:, None])),
    )
    flag = _flags(found, under, axis, z, known, lsf > 0, to)
    lines = _numbers(found, under, flag, z, to)
    scaled = {
        name: getattr(lines, name) * unit[:, None].double()
        for name in ("flux", "flux_err", "continuum", "limit")
    }
    lines = lines._replace(**scaled, chi2=stars.chi2.double(), vdisp=vdisp)
    if not return_model:
        return lines
    rest = torch.from_numpy(axis.vacuum).to(z.device) / (1 + z[:, None])
    inside = (rest > FINE.wavelength[0]) & (rest < FINE.wavelength[-1])
    light = starlight_at(stars.fine, rest) * inside
    return lines._replace(emission=unit[:, None] * model, stars=unit[:, None] * light)


def _unit_level(rows: Rows, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Flux and ivar with data only where both are finite, of order 1; (N,) what was divided by."""
    flux, ivar = rows.flux, rows.ivar * known[:, None]
    # One pass finds anything that is not finite: 0 x inf is none either.
    if not bool(torch.isfinite(torch.dot(flux.flatten(), ivar.flatten()))):
        good = torch.isfinite(flux) & torch.isfinite(ivar)
        flux, ivar = torch.where(good, flux, 0.0), torch.where(good, ivar, 0.0)
    ivar = ivar.clamp(min=0.0)
    good = ivar.sign()
    flux = flux * good
    size = flux.abs().sum(1) / good.sum(1).clamp(min=1)
    unit = torch.where(size > 0, size, 1.0)
    # In two steps: the square of a level of 1e-17 erg is no float32.
    return flux / unit[:, None], ivar.mul_(unit[:, None]).mul_(unit[:, None]), unit


def _stars(
    flux: Tensor, ivar: Tensor, z: Tensor, rows: Rows, axis: Axis, stock: Bank
) -> tuple[Starlight, Tensor]:
    """Starlight, and the stars' own dispersion (N,), km/s; NaN where it is not found."""
    # What spectra have beyond the templates.
    more = blur(rows.lsf, ivar, axis, z) - stock.sigma_kms**2
    given = None if rows.vdisp is None else (rows.vdisp.square() + more).clamp(min=0).sqrt()
    stretch = 1 + z
    if axis.air:
        # One factor for all: across the spectrum it is right to 2 km/s.
        middle = axis.grid.wavelength[axis.grid.size // 2]
        stretch = stretch * float(vacuum_to_air(middle)) / float(middle)
    stars = starlight(flux, ivar, axis.grid, stretch, stock, given)
    if rows.vdisp is not None:
        return stars, rows.vdisp.masked_fill(stars.width.isnan(), math.nan)
    own = (stars.width.square() - more).clamp(min=0).sqrt()
    # A fit that stopped at an end of the ladder has found none.
    low, high = stock.widths[0] * 1.001, stock.widths[-1] * 0.999
    return stars, torch.where((stars.width > low) & (stars.width < high), own, math.nan)


def _under(
    every: tuple[Windows, ...], found: Found, axis: Axis, to: Layout
) -> tuple[_Under, Tensor]:
    """What lies under lines, and the lines on the axis, (N, L)."""
    fluxes = found.fluxes[:, to.free] * to.share
    blank = fluxes.new_zeros(fluxes.shape)
    under = _Under(blank, blank.clone(), blank.clone(), blank, blank)
    model = every[0].edge.new_zeros((len(fluxes), axis.grid.size))
    for seen, family in zip(every, to.families, strict=True):
        area = areas(seen, found.values, family, to)
        drawn = (fluxes[:, family.lines].float()[:, :, None] @ area)[:, :, 0] / seen.width
        residual = seen.data - (drawn * seen.root)[:, :, None]
        inverse = levels_inverse(seen)
        terms = (inverse @ (seen.levels @ residual.mT).double())[..., 0]
        shape = torch.stack([torch.ones_like(drawn), _offset(seen)], 2)
        whole = seen.stars + (terms.float()[:, :, None] @ shape)[:, :, 0]
        total = area.sum(-1).clamp(min=1e-6)
        numbers = (
            (area * seen.root.sign()[:, :, None]).sum(-1),
            (area * whole[:, :, None]).sum(-1) / total,
            inverse[:, :, 0, 0].sqrt()[:, :, None].expand_as(total),
        )
        for table, number in zip(under, numbers, strict=False):
            table[:, family.lines] = number.double()
        _add(model, drawn, seen.start)
    return under, model


def _offset(seen: Windows) -> Tensor:
    """What the slope of a window goes with, (N, B, K)."""
    return (seen.edge[:, :, 1:] + seen.edge[:, :, :-1]) / (2 * MARGIN_KMS) - 1


def _add(model: Tensor, drawn: Tensor, start: Tensor) -> None:
    """Add windows (N, B, K) to spectra (N, L), in place."""
    columns = start[:, :, None] + torch.arange(drawn.shape[-1], device=drawn.device)
    inside = (columns >= 0) & (columns < model.shape[1])
    columns = columns.clamp(0, model.shape[1] - 1)
    model.scatter_add_(1, columns.flatten(1), (drawn * inside).flatten(1))


def _flags(
    found: Found, under: _Under, axis: Axis, z: Tensor, known: Tensor, sharp: Tensor, to: Layout
) -> Tensor:
    place = axis.pixel(axis.seen(to.wavelength * (1 + z[:, None])))
    outside = (place < -0.5) | (place > axis.grid.size - 0.5) | ~known[:, None]
    # A line that is tied is known from its partner.
    best = torch.zeros_like(under.share[:, :FREE])
    best = best.scatter_reduce(1, to.free.expand_as(under.share), under.share, "amax")
    lost = best[:, to.free] < _HALF
    flux, error = _fluxes(found, under, to)
    values = found.values.view(-1, 2, 2)[:, to.group]
    fitted = found.fitted[:, to.group]
    moves = found.fitted.any(dim=1, keepdim=True)
    bound = (values[..., 0].abs() >= FASTEST_KMS) | (values[..., 1] <= 0)
    bound |= values[..., 1] >= BROADEST_KMS**2
    bits = torch.zeros(place.shape, dtype=torch.int32, device=z.device)
    for bit, holds in (
        (LineFlag.OUTSIDE, outside),
        (LineFlag.MASKED, under.share < _ALL),
        (LineFlag.FEW_PIXELS, lost),
        (LineFlag.NOT_DETECTED, flux < DETECTED * error),
        (LineFlag.NO_CONTINUUM, under.continuum <= 0),
        (LineFlag.AT_BOUND, bound & moves),
        (LineFlag.TIED, to.tied.expand_as(lost)),
        (LineFlag.FIXED, ~fitted),
        (LineFlag.NOT_CONVERGED, ~found.settled[:, None].expand_as(lost)),
        (LineFlag.AS_OBSERVED, ~sharp),
    ):
        told = outside | lost
        only = (LineFlag.OUTSIDE, LineFlag.FEW_PIXELS, LineFlag.MASKED, LineFlag.TIED)
        bits |= (holds if bit in only else holds & ~told) * int(bit)
    return bits


def _at_lines(every: tuple[Windows, ...], to: Layout) -> Tensor:
    """Sigma of the instrument at each line, (N, line), km/s; 0 where it is not known."""
    first = every[0].lsf
    lsf = first.new_zeros((len(first), len(to.group)), dtype=torch.float64)
    for seen, family in zip(every, to.families, strict=True):
        lsf[:, family.lines] = seen.lsf.double()
    return lsf


def _fluxes(found: Found, under: _Under, to: Layout) -> tuple[Tensor, Tensor]:
    """Flux and error of every line, tied ones too; (N, line)."""
    variance = found.covariance.diagonal(dim1=1, dim2=2)[:, :FREE]
    hidden = torch.zeros_like(variance)
    hidden[:, to.free[~to.tied]] = (under.hidden * under.span.square())[:, ~to.tied]
    error = (variance + hidden).sqrt()
    return found.fluxes[:, to.free] * to.share, error[:, to.free] * to.share


def _numbers(found: Found, under: _Under, bits: Tensor, z: Tensor, to: Layout) -> Lines:
    def has(which: LineFlag) -> Tensor:
        return (bits & int(which)) > 0

    flux, error = _fluxes(found, under, to)
    lost = has(LineFlag.OUTSIDE | LineFlag.FEW_PIXELS)
    no_ew = lost | has(LineFlag.NO_CONTINUUM)
    rest = under.continuum * (1 + z[:, None])
    ew = flux / rest
    # A continuum that is too low raises the flux and is what it is divided by.
    raised = (flux / under.continuum) ** 2 + 2 * (flux / under.continuum).clamp(min=0) * under.span
    behind = under.error.square() + under.hidden
    ew_err = (error.square() + raised * behind).sqrt() / rest.abs()
    velocity, variance = found.values.view(-1, 2, 2)[:, to.group].unbind(-1)
    spread = found.covariance.diagonal(dim1=1, dim2=2)[:, FREE:].view(-1, 2, 2)
    spread = torch.where(found.fitted[:, :, None], spread, spread.flip(1))[:, to.group]
    sigma = variance.sqrt()
    # For a width near 0, where the variance is what is measured, this is its upper side.
    sigma_err = (variance + spread[..., 1].sqrt()).sqrt() - sigma
    fixed = lost | ~found.fitted.any(dim=1, keepdim=True)
    limit = (DETECTED * error).masked_fill(~has(LineFlag.NOT_DETECTED), math.nan)
    blank = torch.empty(0)
    return Lines(
        flux=flux.masked_fill(lost, math.nan),
        flux_err=error.masked_fill(lost, math.nan),
        ew=ew.masked_fill(no_ew, math.nan),
        ew_err=ew_err.masked_fill(no_ew, math.nan),
        sigma=sigma.masked_fill(lost, math.nan),
        sigma_err=sigma_err.masked_fill(fixed, math.nan),
        velocity=velocity.masked_fill(lost, math.nan),
        velocity_err=spread[..., 0].sqrt().masked_fill(fixed, math.nan),
        continuum=under.continuum.masked_fill(lost, math.nan),
        limit=limit,
        flag=bits.to(torch.uint16),
        chi2=blank,
        vdisp=blank,
    )
