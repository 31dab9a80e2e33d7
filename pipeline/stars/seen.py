"""Seen: observed spectra as sums over points of the templates' axis, and what templates explain.

A template is multiplied by a polynomial in observed wavelength (dust, calibration, brightness).
All that chi^2 of any template at any velocity needs of a spectrum are the sums of w f x^k and
w x^m around each point, w the inverse variance. Nothing is rebinned: the weights with which a
template would be read off between points distribute w f and w onto them, so that masks and errors
are those of the observed pixels.

Axes: N spectra, P pixels, J points of the axis, T templates, K terms of the polynomial, M powers,
2 K - 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.stars.templates import Templates
from storage.grid import Float

LEAST = 0.2
"Share of the band's pixels that must have data."
TAPS = 6
_PIVOT = 1e-9


class Pixels(NamedTuple):
    """Observed pixels in the band."""

    place: Tensor
    "(P,) where they are on the axis of the templates, in its points, at velocity 0."
    x: Tensor
    "(P,) wavelength, -1 and 1 at the ends of the band, logarithmic."
    flux: Tensor
    "(N, P) float64; 0 where there is no data."
    ivar: Tensor
    "(N, P) float64; 0 where there is no data."
    enough: Tensor
    "(N,) bool: whether `LEAST` of them have data."


class Sums(NamedTuple):
    """N spectra on the axis of the templates."""

    pull: Tensor
    "(N, K, J) w f x^k."
    hold: Tensor
    "(N, M, J) w x^m."
    power: Tensor
    "(N,) the sum of w f^2: chi^2 of no template."


def pixels(wavelength: Float, flux: Tensor, ivar: Tensor, templates: Templates) -> Pixels:
    """Those in the band; what is not finite, or has no positive ivar, is no data."""
    low, high = templates.chosen.wavelength
    inside = np.flatnonzero((wavelength >= low) & (wavelength <= high))
    first, last = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    part = slice(first, last)
    f, w = flux[:, part].double(), ivar[:, part].double()
    good = torch.isfinite(f) & torch.isfinite(w) & (w > 0)
    where = wavelength[part]
    place, x = (
        torch.from_numpy(axis.pixel(where)).to(flux.device)
        for axis in (templates.axis, templates.polynomials)
    )
    # Of no pixel at all, there is not enough either.
    enough = good.sum(dim=1) >= max(LEAST * (last - first), 3 * (templates.chosen.degree + 1))
    return Pixels(place, x, torch.where(good, f, 0), torch.where(good, w, 0), enough)


def sums(seen: Pixels, templates: Templates) -> Sums:
    """What chi^2 needs of the pixels."""
    terms = templates.chosen.degree + 1
    powers = torch.stack([seen.x**m for m in range(2 * terms - 1)])
    pulled = (seen.ivar * seen.flux)[:, None] * powers[:terms]
    held = seen.ivar[:, None] * powers
    spread = _spread(seen.place, templates.axis.size)
    pull, hold = (_onto(spread, values) for values in (pulled, held))
    return Sums(pull, hold, (seen.ivar * seen.flux.square()).sum(dim=1))


def at(found: Sums, lag: Tensor) -> Sums:
    """The sums of spectra moved to rest, of a shift in points of the axis, (N,)."""
    first, share = taps(-lag)
    size = found.pull.shape[-1]
    points = torch.arange(size, device=lag.device)
    moved = [torch.zeros_like(part) for part in found[:2]]
    for k in range(TAPS):
        source = points - (first + k)[:, None]
        inside = (source >= 0) & (source < size)
        index = source.clamp(0, size - 1)
        for part, out in zip(found[:2], moved, strict=True):
            taken = part.gather(2, index[:, None].expand_as(part))
            out += (share[k][:, None] * inside)[:, None] * taken
    return Sums(moved[0], moved[1], found.power)


def taps(place: Tensor) -> tuple[Tensor, list[Tensor]]:
    """First of the `TAPS` points about a place, and their weights: polynomials through them."""
    first = place.floor() - (TAPS // 2 - 1)
    offset = place - first
    return first.long(), [_lagrange(offset, k) for k in range(TAPS)]


def explained(pull: Sequence[Tensor], hold: Sequence[Tensor]) -> Tensor:
    """By how much the best polynomial times a template lowers chi^2.

    pull : K tensors, sums of w f x^k T; hold : M tensors, of w x^m T^2; all of one shape.
    """
    terms = len(pull)
    b = list(pull)
    a = {(i, j): hold[i + j] for i in range(terms) for j in range(i, terms)}
    found = torch.zeros_like(b[0])
    # Elimination, an element at a time: thousands of systems, each tiny.
    for k in range(terms):
        pivot = a[k, k]
        sound = pivot > _PIVOT * hold[2 * k]
        over = torch.where(sound, 1 / torch.where(sound, pivot, 1), 0)
        found = found + b[k].square() * over
        for i in range(k + 1, terms):
            share = a[k, i] * over
            b[i] = b[i] - share * b[k]
            for j in range(i, terms):
                a[i, j] = a[i, j] - share * a[k, j]
    return found


def _spread(place: Tensor, size: int) -> Tensor:
    """Weights (J, P) of pixels in points, sparse."""
    first, share = taps(place)
    pixel = torch.arange(len(place), device=place.device)
    rows = torch.cat([first + k for k in range(TAPS)])
    index = torch.stack([rows, pixel.repeat(TAPS)])
    shape = (size, len(place))
    found = torch.sparse_coo_tensor(index, torch.cat(share), shape, check_invariants=False)
    whole: Tensor = found.coalesce()
    return whole


def _onto(spread: Tensor, values: Tensor) -> Tensor:
    """Values (N, K, P) on the axis, (N, K, J)."""
    flat = values.flatten(0, 1).T.contiguous()
    found: Tensor = torch.sparse.mm(spread, flat)
    return found.T.reshape(*values.shape[:-1], len(found)).contiguous()


def _lagrange(offset: Tensor, k: int) -> Tensor:
    weight = torch.ones_like(offset)
    for j in range(TAPS):
        if j != k:
            weight = weight * (offset - j) / (k - j)
    return weight
