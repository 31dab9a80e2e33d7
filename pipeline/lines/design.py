"""Design: Gaussians averaged over pixels, their slopes, and the normal equations of a spectrum.

In each block there is a level and a slope besides the lines: what is wrong with the starlight under
them, held by a prior of a few per cent of it. They are eliminated block by block.
Axes: N spectra, B blocks and S slots of a family, K pixels, C columns, X free lines, U unknowns.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.lines.layout import FREE, UNKNOWNS, Family, Layout
from pipeline.lines.products import product
from pipeline.lines.windows import Windows
from storage.velocity import C_KMS

_LEAST_PIXELS = 0.35
"Narrowest Gaussian, in pixels: a narrower one cannot be told from it."
_FAINTEST = 1e-10
"Share of the best seen line's weight below which a line is not seen at all."
_BELL = 1 / math.sqrt(2 * math.pi)


class Normal(NamedTuple):
    """Normal equations of N spectra, about the fluxes that are best at given kinematics."""

    fluxes: Tensor
    "(N, X) float64 those fluxes."
    matrix: Tensor
    "(N, U, U) float64: levels eliminated, blocks summed."
    rhs: Tensor
    "(N, U) float64: slope of half chi square, downhill; 0 for fluxes."
    chi2: Tensor
    "(N,) float64."


class _Drawn(NamedTuple):
    """Lines drawn on their windows."""

    place: Tensor
    "(N, B, S, K + 1) pixel edges, in sigmas from the line."
    sigma: Tensor
    "(N, B, S) observed, km/s."


def normal(every: tuple[Windows, ...], values: Tensor, fluxes: Tensor, to: Layout) -> Normal:
    """Normal equations at kinematics (N, 4).

    fluxes : (N, X) about what they will be: sums in float32 are of what these leave.
    """
    lines = fluxes[:, to.free] * to.share
    blocks = [
        _block_equations(windows, _drawn(windows, values, family, to), lines[:, family.lines])
        for windows, family in zip(every, to.families, strict=True)
    ]
    change = _flux_change(blocks, to)
    best = fluxes + change
    change, lines = ((part[:, to.free] * to.share) for part in (change, best))
    whole = values.new_zeros((len(values), (UNKNOWNS + 1) ** 2))
    for (inner, slopes), family in zip(blocks, to.families, strict=True):
        _move_residual(inner, change[:, family.lines])
        flux = lines[:, family.lines]
        one = torch.ones_like(flux)
        factors = torch.cat([one, flux * slopes[0], flux * slopes[1], one[:, :, :1]], 2)
        inner = inner * factors[..., None] * factors[:, :, None]
        whole += product(inner.flatten(1), family.to_unknowns)
    whole = whole.view(-1, UNKNOWNS + 1, UNKNOWNS + 1)
    return Normal(best, whole[:, :-1, :-1], whole[:, :-1, -1], whole[:, -1, -1])


def _flux_change(blocks: list[tuple[Tensor, tuple[Tensor, Tensor]]], to: Layout) -> Tensor:
    """What to add to fluxes (N, X) so that chi square is least at these kinematics."""
    whole = blocks[0][0].new_zeros((len(blocks[0][0]), (FREE + 1) ** 2))
    for (inner, _), family in zip(blocks, to.families, strict=True):
        pick = [*range(family.slots), 3 * family.slots]
        whole += product(inner[:, :, pick][..., pick].flatten(1), family.to_fluxes)
    whole = whole.view(-1, FREE + 1, FREE + 1)
    return solution(whole[:, :-1, :-1], whole[:, :-1, -1])


def _move_residual(inner: Tensor, change: Tensor) -> None:
    """Equations whose residual is that after fluxes of slots (N, B, S) have changed; in place."""
    slots = change.shape[2]
    inner[..., -1] -= (inner[..., :slots] @ change[..., None])[..., 0]
    inner[..., -1, :] -= (change[:, :, None] @ inner[:, :, :slots])[:, :, 0]


def strength(every: tuple[Windows, ...], values: Tensor, to: Layout) -> Tensor:
    """Flux over error (N, X) of each free line as if it were alone, at kinematics (N, 4)."""
    total = torch.zeros((2, len(values), FREE), dtype=torch.float64, device=values.device)
    for windows, family in zip(every, to.families, strict=True):
        area = _area(windows, _drawn(windows, values, family, to))
        cross = area @ torch.cat([windows.data, windows.levels], 2).mT
        inverse = levels_inverse(windows)
        own, data = area.square().sum(-1).double(), cross[..., 0].double()
        level = cross[..., 1:].double()
        off = (windows.levels @ windows.data.mT).double()
        fitted = level @ inverse
        own = own - (fitted * level).sum(-1)
        data = data - (fitted @ off)[..., 0]
        total[0] += product(data.flatten(1), family.to_free)
        total[1] += product(own.flatten(1), family.to_free.square())
    return torch.where(total[1] > 0, total[0] / total[1].clamp(min=1e-30).sqrt(), 0.0)


def areas(windows: Windows, values: Tensor, family: Family, to: Layout) -> Tensor:
    """Share of each line (N, B, S, K) in each pixel, whether there is data or not."""
    drawn = _drawn(windows, values, family, to)
    return (drawn.place * math.sqrt(0.5)).erf_().diff().mul_(0.5)


def levels_inverse(windows: Windows) -> Tensor:
    """Inverse of the normal equations of level and slope alone, (N, B, 2, 2) float64."""
    inner = (windows.levels @ windows.levels.mT).double()
    a, b, d = inner[..., 0, 0] + windows.held, inner[..., 0, 1], inner[..., 1, 1] + windows.held
    scale = 1 / (a * d - b * b)
    rows = (torch.stack([d, -b], -1), torch.stack([-b, a], -1))
    return torch.stack(rows, -2) * scale[..., None, None]


def _drawn(windows: Windows, values: Tensor, family: Family, to: Layout) -> _Drawn:
    pairs = values.float().view(-1, 2, 2)[:, to.group[family.lines]]
    velocity, variance = pairs.unbind(-1)
    pixel = windows.edge[:, :, 1:2] - windows.edge[:, :, :1]
    floor = (_LEAST_PIXELS * pixel).square()
    sigma = (variance + windows.lsf.square()).maximum(floor).sqrt()
    stretch = family.ratio / sigma
    shift = (C_KMS * (family.ratio - 1) - velocity) / sigma
    place = torch.addcmul(shift[..., None], windows.edge[:, :, None], stretch[..., None])
    return _Drawn(place, sigma)


def _area(windows: Windows, drawn: _Drawn) -> Tensor:
    """Weighted lines of unit flux, (N, B, S, K)."""
    return (drawn.place * math.sqrt(0.5)).erf_().diff().mul_(0.5 * windows.per_width)


def _block_equations(
    windows: Windows, drawn: _Drawn, fluxes: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Normal equations (N, B, C, C) of slots' fluxes, velocities, variances and the residual.

    Those of velocities and variances still lack the factors (N, B, S) that come with them, and
    the flux: constants are multiplied into small matrices, not into pixels.
    """
    place, slots = drawn.place, fluxes.shape[2]
    columns = place.new_empty((*place.shape[:2], 3 * slots + 3, place.shape[3] - 1))
    per_width = windows.per_width
    torch.mul((place * math.sqrt(0.5)).erf_().diff(), per_width, out=columns[:, :, :slots])
    bell = place.square().mul_(-0.5).exp_()
    torch.mul(bell.diff(), per_width, out=columns[:, :, slots : 2 * slots])
    torch.mul(bell.mul_(place).diff(), per_width, out=columns[:, :, 2 * slots : 3 * slots])
    model = (0.5 * fluxes).float()[:, :, None] @ columns[:, :, :slots]
    torch.sub(windows.data, model, out=columns[:, :, 3 * slots : 3 * slots + 1])
    columns[:, :, 3 * slots + 1 :] = windows.levels
    flat = columns.flatten(0, 1)
    size = 3 * slots + 3
    gram = (flat @ flat.mT).view(*columns.shape[:2], size, size).double()
    inner = _without_levels(gram, windows.held)
    inner[:, :, :slots] *= 0.5
    inner[..., :slots] *= 0.5
    slope = -_BELL / drawn.sigma.double()
    return inner, (slope, slope / (2 * drawn.sigma))


def _without_levels(gram: Tensor, held: Tensor) -> Tensor:
    """Block matrices (N, B, C, C) after level and slope, the last two columns, have been fitted."""
    size = gram.shape[-1] - 2
    a, b = gram[..., size, size] + held, gram[..., size, size + 1]
    d = gram[..., size + 1, size + 1] + held
    scale = (1 / (a * d - b * b))[..., None]
    first, second = gram[..., :size, size], gram[..., :size, size + 1]
    left = torch.stack([first * d[..., None], second * a[..., None]], -1) * scale[..., None]
    left -= torch.stack([second, first], -1) * (b[..., None] * scale)[..., None]
    return gram[..., :size, :size] - left @ torch.stack([first, second], -2)


def scaled(matrix: Tensor, on: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The matrix of unknowns that are on and have data, unit diagonal; (N, U) its units, or 0."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    strongest = diagonal[:, :FREE].amax(dim=1, keepdim=True)
    seen = diagonal > 0
    seen[:, :FREE] &= diagonal[:, :FREE] > _FAINTEST * strongest
    seen = seen if on is None else seen & on
    scale = torch.where(seen, diagonal, 1.0).rsqrt() * seen
    inner = matrix * scale[:, :, None] * scale[:, None, :]
    inner.diagonal(dim1=1, dim2=2).copy_(1.0 + 1e-9 * seen)
    return inner, scale


def solution(matrix: Tensor, rhs: Tensor, on: Tensor | None = None) -> Tensor:
    """The unknowns (N, U) that solve normal equations; 0 where they are off or have no data."""
    inner, scale = scaled(matrix, on)
    found: Tensor = torch.linalg.solve_ex(inner, (rhs * scale)[:, :, None])[0]
    return found[:, :, 0] * scale
