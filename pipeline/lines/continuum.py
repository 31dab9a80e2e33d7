"""Starlight: non-negative templates, broadened, times a polynomial, with emission lines masked.

Fitted in the rest frame, where templates and their products stand ready: the normal equations of
all spectra are one matrix product. Axes: N spectra, R pixels of `FIT`, F of `FINE`, T templates,
V dispersions, K terms of the polynomial.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.lines.masks import outside_lines
from pipeline.lines.nnls import nnls
from pipeline.lines.products import chosen, product
from pipeline.lines.templates import DEGREE, FINE, FIT, Bank, legendre
from storage.grid import Grid
from storage.resample import rebinner

_START = 10
"Place on the ladder of dispersions where fits begin: 151 km/s."
_ROUNDS = 2
"After a first one without a polynomial."
_REACH = 2
"Steps of the ladder that are tried on either side, once all have been."
_CLIP = 4.0
"Pixels this many times the scatter away from the fit are left out of the next."
_RIDGE = 1e-5
_EVEN = 5.0
"How many even shares a template may be off by, before data are asked."
_LOOSE = 0.5
"How far a coefficient of the polynomial goes where nothing holds it."


class Starlight(NamedTuple):
    """The stars of N spectra."""

    fine: Tensor
    "(N, F) float32 model on `FINE`, at its own resolution; 0 where no template is used."
    chi2: Tensor
    "(N,) chi square per fitted pixel; NaN where there is none."
    width: Tensor
    "(N,) float64 km/s: dispersion of stars and instrument together; NaN where chi2 is."
    place: Tensor
    "(N,) its place on the ladder."
    covariance: Tensor
    "(N, T, T) float32 of the templates' shares."


class _Data(NamedTuple):
    """Spectra in the rest frame."""

    flux: Tensor
    "(N, R)."
    weight: Tensor
    "(N, R) inverse variance, 0 where masked."


def starlight(
    flux: Tensor, ivar: Tensor, grid: Grid, stretch: Tensor, bank: Bank, width: Tensor | None
) -> Starlight:
    """Fit the stars of N spectra.

    Parameters
    ----------
    flux, ivar : (N, L) float32
        Of order 1.
    grid : Grid
        Observed, vacuum.
    stretch : (N,) float64
        1 + z.
    bank : Bank
        The templates.
    width : (N,) float64, optional
        Dispersion of stars and instrument together, km/s; None: it is fitted.
    """
    binned = rebinner(grid, FIT)(flux, ivar, stretch, min_good=0.75)
    data = _Data(binned.flux, binned.ivar * outside_lines(flux.device))
    # The place on the ladder of dispersions.
    place = torch.full((len(flux),), _START, device=flux.device)
    if width is not None:
        place = (bank.widths.log() - width.clamp(min=1.0).log()[:, None]).abs().argmin(dim=1)
    fit = _first(data, bank, place)
    clean = data
    for number in range(_ROUNDS):
        if width is None:
            reach = len(bank.widths) if number == 0 else _REACH
            place = _ladder(clean, fit, bank, place, reach)[0]
        clean = _clipped(data, fit.stars * fit.curve)
        fit = _better(clean, _round(clean, fit, bank, place), fit)
    if width is None:
        width = _lowest(*_ladder(clean, fit, bank, place, _REACH), bank.widths)
    fine = _between(fit.weights, bank, width) * _curve(fit.terms, FINE)
    return Starlight(fine, *_judged(data, fit, width), place, _covariance(fit))


class _Fit(NamedTuple):
    """One round of the fit."""

    weights: Tensor
    "(N, T) float64, 0 or above."
    free: Tensor
    "(N, T) bool: those above 0."
    gram: Tensor
    "(N, T, T) float64 normal equations that they solve."
    terms: Tensor
    "(N, K) float32 of the polynomial."
    stars: Tensor
    "(N, R) sum of templates."
    curve: Tensor
    "(N, R) the polynomial."


def _first(data: _Data, bank: Bank, place: Tensor) -> _Fit:
    """The fit without a polynomial."""
    curve = torch.ones_like(data.flux)
    gram, rhs = _equations(data, curve, bank, place)
    weights, free = nnls(gram, rhs)
    terms = curve.new_zeros((len(curve), DEGREE))
    return _Fit(weights, free, gram, terms, _sum(weights, bank.fit, place), curve)


def _round(data: _Data, fit: _Fit, bank: Bank, place: Tensor) -> _Fit:
    """A better fit: shares and polynomial at once, of which the product is made linear.

    The polynomial may have any sign, and so is eliminated from the equations of the shares.
    """
    stars = _sum(fit.weights, bank.fit, place)
    gram, rhs = _equations(data, fit.curve, bank, place)
    terms, terms_rhs = _polynomial(data, stars, fit.terms)
    seen = data.weight * stars * fit.curve
    cross = chosen(seen, bank.slopes, place).double().view(-1, bank.size, DEGREE)
    share = torch.linalg.solve_ex(terms, torch.cat([cross.mT, terms_rhs[:, :, None]], 2))[0]
    weights, free = nnls(
        gram - cross @ share[:, :, :-1], rhs - (cross @ share[:, :, -1:])[:, :, 0], fit.free
    )
    change = share[:, :, -1] - (share[:, :, :-1] @ weights[:, :, None])[:, :, 0]
    new = fit.terms + change.float()
    return _Fit(weights, free, gram, new, _sum(weights, bank.fit, place), _curve(new, FIT))


def _better(data: _Data, new: _Fit, old: _Fit) -> _Fit:
    """The new fit, but for spectra of which the old one is nearer to the data."""
    first, second = (
        (data.flux - fit.stars * fit.curve).square_().mul_(data.weight).sum(dim=1)
        for fit in (new, old)
    )
    keep = first <= second
    if bool(keep.all()):
        return new
    parts = zip(new, old, strict=True)
    return _Fit(*(torch.where(keep.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in parts))


def _covariance(fit: _Fit) -> Tensor:
    """Of the shares, those that are 0, too: each may be off by itself and some even shares."""
    even = fit.weights.mean(dim=1, keepdim=True)
    scale = (fit.weights + _EVEN * even).clamp(min=1e-30)
    inner = fit.gram * scale[:, :, None] * scale[:, None, :]
    inner.diagonal(dim1=1, dim2=2).add_(1.0)
    whole: Tensor = torch.linalg.inv_ex(inner)[0]
    return (whole * scale[:, :, None] * scale[:, None, :]).float()


def _equations(data: _Data, curve: Tensor, bank: Bank, place: Tensor) -> tuple[Tensor, Tensor]:
    """Normal equations of the templates' shares, for a polynomial that is known."""
    seen = data.weight * curve
    packed = chosen(seen * curve, bank.products, place).double()
    rhs = chosen(seen * data.flux, bank.fit.transpose(1, 2), place).double()
    row, column = _triangle(bank.size, seen.device)
    gram = packed.new_zeros((len(packed), bank.size, bank.size))
    gram[:, row, column] = packed
    gram[:, column, row] = packed
    # Sums in float32 leave templates that are nearly alike undecided; nothing fitted: all are 0.
    strength = gram.diagonal(dim1=1, dim2=2)
    strength += _RIDGE * strength.amax(dim=1, keepdim=True) + 1e-30
    return gram, rhs


def _sum(weights: Tensor, templates: Tensor, place: Tensor) -> Tensor:
    return chosen(weights.float(), templates, place)


def _between(weights: Tensor, bank: Bank, width: Tensor) -> Tensor:
    """The sum of templates on `FINE` at any width: a mixture, of the right variance, of two."""
    variance = bank.widths.square()
    wanted = width.square().clamp(float(variance[0]), float(variance[-1]))
    upper = torch.searchsorted(variance, wanted).clamp(1, len(variance) - 1)
    share = (wanted - variance[upper - 1]) / (variance[upper] - variance[upper - 1])
    narrow = _sum(weights * (1 - share)[:, None], bank.fine, upper - 1)
    return narrow + _sum(weights * share[:, None], bank.fine, upper)


def _polynomial(data: _Data, stars: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
    """Normal equations of what to add to the polynomial's terms, whose constant is the stars'."""
    seen = data.weight * stars
    packed = product(seen * stars, _legendre_products(stars.device)).double()
    rhs = product(seen * data.flux, _legendre(FIT, stars.device).T).double()
    row, column = _triangle(DEGREE, stars.device)
    gram = packed.new_zeros((len(packed), DEGREE, DEGREE))
    gram[:, row, column] = packed
    gram[:, column, row] = packed
    gram.diagonal(dim1=1, dim2=2).add_(1 / _LOOSE**2)
    return gram, rhs - terms / _LOOSE**2


def _curve(terms: Tensor, axis: Grid) -> Tensor:
    """The polynomial on an axis; never near 0, where no spectrum is fitted."""
    return (1 + product(terms, _legendre(axis, terms.device))).clamp_(min=0.05)


def _clipped(data: _Data, model: Tensor) -> _Data:
    """Without the pixels that the fit is far from: what lines, cosmic rays and the sky left."""
    off = (data.flux - model).square_().mul_(data.weight)
    count = data.weight.sign().sum(dim=1).clamp(min=1)
    usual = (off.sum(dim=1) / count).clamp(min=1.0)
    return _Data(data.flux, data.weight * (off < _CLIP**2 * usual[:, None]))


def _ladder(data: _Data, fit: _Fit, bank: Bank, place: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The best step within reach of a place, (N,), and chi square there and beside it, (N, 3).

    The populations are those of the fit. A best step is never at the end of what was tried.
    """
    weights, scaled = fit.weights.float(), data.weight.sqrt()
    seen, curve = data.flux * scaled, scaled * fit.curve
    last = len(bank.widths) - 1
    if reach > last:
        tried = torch.arange(last + 1, device=place.device).expand(len(place), -1)
        models = (product(weights, templates) for templates in bank.fit)
    else:
        middle = place.clamp(reach, last - reach)
        tried = middle[:, None] + torch.arange(-reach, reach + 1, device=place.device)
        models = (_sum(fit.weights, bank.fit, each) for each in tried.unbind(1))
    chi2 = torch.stack(
        [torch.addcmul(seen, m, curve, value=-1).square_().sum(dim=1) for m in models], dim=1
    )
    best = chi2.argmin(dim=1).clamp(1, tried.shape[1] - 2)[:, None]
    beside = best + torch.arange(-1, 2, device=place.device)
    return tried.gather(1, best)[:, 0], chi2.gather(1, beside).double()


def _lowest(place: Tensor, chi2: Tensor, widths: Tensor) -> Tensor:
    """The width of least chi square: a parabola through three steps of the ladder, (N,) float64."""
    below, here, above = chi2.unbind(1)
    bend = (below - 2 * here + above).clamp(min=1e-9)
    shift = (0.5 * (below - above) / bend).clamp(-1, 1)
    # The ladder's steps are even in the logarithm.
    return widths[place] * (widths[1] / widths[0]) ** shift


def _judged(data: _Data, fit: _Fit, width: Tensor) -> tuple[Tensor, Tensor]:
    """Chi square per pixel, and width; NaN where there was nothing to fit."""
    off = (data.flux - fit.stars * fit.curve).square_().mul_(data.weight)
    count = data.weight.sign().sum(dim=1)
    there = (count > 0) & (fit.weights.sum(dim=1) > 0)
    chi2 = (off.sum(dim=1) / count.clamp(min=1)).masked_fill(~there, torch.nan)
    return chi2, width.masked_fill(~there, torch.nan)


@lru_cache(maxsize=8)
def _legendre(axis: Grid, device: torch.device) -> Tensor:
    return torch.from_numpy(legendre(axis)).float().to(device)


@lru_cache(maxsize=4)
def _legendre_products(device: torch.device) -> Tensor:
    """(R, K (K + 1) / 2): of each two terms, the lower triangle row by row."""
    terms = legendre(FIT)
    row, column = np.tril_indices(DEGREE)
    return torch.from_numpy((terms[row] * terms[column]).T.copy()).float().to(device)


@lru_cache(maxsize=8)
def _triangle(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    row, column = torch.tril_indices(size, size, device=device)
    return row, column
