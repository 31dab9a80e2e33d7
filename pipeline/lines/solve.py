"""Solve: fluxes and shared kinematics of all lines of a spectrum, by damped Gauss-Newton steps.

Fluxes are linear and may be negative, so that they are unbiased where there is no line. Velocity
and width are fitted for lines of a kind that together stand out; else they are those of the other
kind, or, where nothing stands out, what is given here. Axes: N spectra, X free lines, U unknowns.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.lines.design import Normal, normal, scaled, solution, strength
from pipeline.lines.layout import FREE, KINEMATICS, UNKNOWNS, Layout
from pipeline.lines.windows import Windows

STANDS_OUT = 6.0
"""Flux over error, of all lines of a kind that are above 0 together, from which their kinematics
are fitted."""
USUAL_KMS = 100.0
"Width of lines where none stands out; velocity is then 0."
FASTEST_KMS = 800.0
BROADEST_KMS = 500.0
_STARTS = (-300.0, -150.0, 0.0, 150.0, 300.0)
_ROUNDS = 16
_SETTLED = 5e-3
"Gain of chi square that is not worth another step."
_LEAP = 150.0
"Most that a velocity changes in one step, km/s."


class Found(NamedTuple):
    """The lines of N spectra."""

    values: Tensor
    """(N, 4) float64: velocity (km/s) and variance (km2/s2, the instrument's taken out) of Balmer
    and helium lines, then of forbidden ones."""
    fluxes: Tensor
    "(N, X) float64 of free lines; 0 where there is no data."
    covariance: Tensor
    "(N, U, U) float64 of fluxes and kinematics; diagonal infinite where there is no data."
    fitted: Tensor
    "(N, 2) bool: whether the kinematics of Balmer, and of forbidden lines, were fitted."
    settled: Tensor
    "(N,) bool."


class _State(NamedTuple):
    """Where the fit of some spectra stands."""

    values: Tensor
    "(N, 4) kinematics."
    now: Normal
    damping: Tensor
    "(N,)."

    def of(self, rows: Tensor) -> "_State":
        """Some of them."""
        now = Normal(*(part[rows] for part in self.now))
        return _State(self.values[rows], now, self.damping[rows])


Every = tuple[Windows, ...]


def solve(windows: Every, to: Layout) -> Found:
    """Fit the lines of N spectra, whose windows there is a family's of each."""
    values, fitted = _start(windows, to)
    fluxes = values.new_zeros((len(values), FREE))
    settled = ~fitted.any(dim=1)
    rows = (~settled).nonzero()[:, 0]
    if len(rows):
        mine, kinds = _of(windows, rows), fitted[rows]
        now = normal(mine, values[rows], fluxes[rows], to)
        state = _State(values[rows], now, values.new_full((len(rows),), 1e-3))
    for _ in range(_ROUNDS):
        if not len(rows):
            break
        state, still = _stepped(mine, state, kinds, to)
        values[rows], fluxes[rows] = state.values, state.now.fluxes
        settled[rows[~still]] = True
        left = still.nonzero()[:, 0]
        if len(left) < len(rows):
            rows, state, mine, kinds = rows[left], state.of(left), _of(mine, left), kinds[left]
    last = normal(windows, values, fluxes, to)
    matrix, _ = _together(last, fitted)
    return Found(values, last.fluxes, _inverse(matrix, _on(fitted)), fitted, settled)


def _of(windows: Every, rows: Tensor) -> Every:
    return tuple(each.of(rows) for each in windows)


def _start(windows: Every, to: Layout) -> tuple[Tensor, Tensor]:
    """Kinematics to begin with, and of which kinds of lines they can be fitted.

    The velocity is one for all lines: a kind alone would be taken in by a blend with the other.
    """
    count, device = len(windows[0].edge), windows[0].edge.device
    starts = torch.tensor([[v, USUAL_KMS**2] * 2 for v in _STARTS], dtype=torch.float64)
    starts = starts.to(device)
    gains = [
        strength(windows, start.expand(count, KINEMATICS), to).clamp(min=0).square().sum(1)
        for start in starts
    ]
    values = starts[torch.stack(gains).argmax(0)]
    here = normal(windows, values, values.new_zeros((count, FREE)), to)
    inverse = _inverse(here.matrix[:, :FREE, :FREE], None)
    snr = (here.fluxes * inverse.diagonal(dim1=1, dim2=2).rsqrt()).clamp(min=0)
    most = [(snr.square() * (to.free_group == kind)).sum(1) for kind in (0, 1)]
    fitted = torch.stack(most, 1) >= STANDS_OUT**2
    return _shared(values, fitted), fitted


def _shared(values: Tensor, fitted: Tensor) -> Tensor:
    """Kinds whose kinematics are not fitted move with the other, or not at all."""
    pairs = values.view(-1, 2, 2)
    usual = values.new_tensor([0.0, USUAL_KMS**2])
    other = torch.where(fitted.flip(1)[:, :, None], pairs.flip(1), usual)
    return torch.where(fitted[:, :, None], pairs, other).flatten(1)


def _stepped(windows: Every, state: _State, fitted: Tensor, to: Layout) -> tuple[_State, Tensor]:
    """One step, and (N,) whether another is wanted."""
    matrix, rhs = _together(state.now, fitted)
    on = _on(fitted) & ~_pinned(state.values, rhs)
    diagonal = matrix.diagonal(dim1=1, dim2=2)[:, FREE:]
    diagonal *= 1 + state.damping[:, None]
    change = solution(matrix, rhs, on)
    gain = (change * rhs).sum(1)
    values = _shared(_moved(state.values, change[:, FREE:]), fitted)
    there = normal(windows, values, state.now.fluxes + change[:, :FREE], to)
    # A rounding's worth of loss is none.
    better = there.chi2 <= state.now.chi2 + 0.1 * _SETTLED
    now = Normal(
        *(
            torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(there, state.now, strict=True)
        )
    )
    damping = torch.where(better, (state.damping * 0.1).clamp(min=1e-7), state.damping * 10)
    new = _State(torch.where(better[:, None], values, state.values), now, damping)
    return new, (gain > _SETTLED) & (damping < 1e8)


def _moved(values: Tensor, change: Tensor) -> Tensor:
    """Kinematics after a step, which is kept short and inside what is allowed."""
    velocity, variance = values[:, 0::2], values[:, 1::2]
    velocity = (velocity + change[:, 0::2].clamp(-_LEAP, _LEAP)).clamp(-FASTEST_KMS, FASTEST_KMS)
    low, high = variance / 4 - 50.0**2, variance * 4 + 50.0**2
    variance = (variance + change[:, 1::2]).clamp(low, high).clamp(0.0, BROADEST_KMS**2)
    return torch.stack([velocity, variance], 2).flatten(1)


def _together(now: Normal, fitted: Tensor) -> tuple[Tensor, Tensor]:
    """Equations in which a kind of lines that is not fitted moves with the other; a copy."""
    alone = (fitted.flip(1) & ~fitted).double().repeat_interleave(2, dim=1)
    turn = torch.eye(UNKNOWNS, dtype=torch.float64, device=alone.device).repeat(len(alone), 1, 1)
    kinds = turn[:, FREE:, FREE:]
    other = torch.eye(4, dtype=torch.float64, device=alone.device).roll(2, dims=1)
    kinds += (other - torch.eye(4, dtype=torch.float64, device=alone.device)) * alone[:, :, None]
    return turn.mT @ now.matrix @ turn, (turn.mT @ now.rhs[:, :, None])[:, :, 0]


def _pinned(values: Tensor, rhs: Tensor) -> Tensor:
    """(N, U): kinematics that stand at a bound and would go on."""
    downhill = rhs[:, FREE:]
    low = values.new_tensor([-FASTEST_KMS, 0.0] * 2)
    high = values.new_tensor([FASTEST_KMS, BROADEST_KMS**2] * 2)
    out = ((values <= low) & (downhill < 0)) | ((values >= high) & (downhill > 0))
    return torch.cat([torch.zeros_like(rhs[:, :FREE], dtype=torch.bool), out], 1)


def _on(fitted: Tensor) -> Tensor:
    """(N, U): fluxes, and kinematics of kinds that are fitted."""
    fluxes = torch.ones((len(fitted), FREE), dtype=torch.bool, device=fitted.device)
    return torch.cat([fluxes, fitted.repeat_interleave(2, dim=1)], 1)


def _inverse(matrix: Tensor, on: Tensor | None) -> Tensor:
    """The inverse of what is on; the diagonal is infinite where there is no data or it is off."""
    inner, scale = scaled(matrix, on)
    inverse: Tensor = torch.linalg.inv_ex(inner)[0]
    whole = inverse * scale[:, :, None] * scale[:, None, :]
    diagonal = whole.diagonal(dim1=1, dim2=2)
    diagonal.copy_(torch.where(scale > 0, diagonal, torch.inf))
    return whole
