"""Non-negative least squares of many small problems at once, by block principal pivoting.

The method of Kim & Park (2011), with the problems' active sets side by side: each round solves
the unconstrained problem of the variables that are free, then exchanges those of the wrong sign.
Axes: N problems, T variables.
"""

import torch
from torch import Tensor

_PATIENCE = 3
"Rounds without progress in which all wrong variables are exchanged, before only one is."
_ROUNDS = 12
"Rounds, in units of the number of variables, after which a problem is left as it is."
_WRONG = 1e-9


def nnls(gram: Tensor, rhs: Tensor, free: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x >= 0 that minimises x' gram x / 2 - rhs' x.

    Parameters
    ----------
    gram : (N, T, T) float64
        Positive definite.
    rhs : (N, T) float64
    free : (N, T) bool, optional
        Which variables are above 0, as far as is known; it only saves time.

    Returns
    -------
    x : (N, T) float64
    free : (N, T) bool
    """
    # Units in which each variable alone has unit weight: one tolerance for all.
    scale = gram.diagonal(dim1=1, dim2=2).rsqrt()
    gram, rhs = gram * scale[:, :, None] * scale[:, None, :], rhs * scale
    size = rhs.norm(dim=1).clamp(min=1e-300)
    rhs = rhs / size[:, None]
    free = torch.zeros_like(rhs, dtype=torch.bool) if free is None else free.clone()
    x = torch.zeros_like(rhs)
    fewest = rhs.new_full((len(rhs),), rhs.shape[1] + 1)
    patience = torch.full_like(fewest, _PATIENCE)
    rows = torch.arange(len(rhs), device=rhs.device)
    for _ in range(_ROUNDS * rhs.shape[1]):
        x[rows], slope = _solved(gram[rows], rhs[rows], free[rows])
        wrong = torch.where(free[rows], x[rows] < -_WRONG, slope < -_WRONG)
        count = wrong.sum(dim=1)
        left = count > 0
        if not bool(left.any()):
            break
        rows, wrong, count = rows[left], wrong[left], count[left]
        better = count < fewest[rows]
        fewest[rows] = torch.where(better, count.to(fewest.dtype), fewest[rows])
        patience[rows] = torch.where(better, _PATIENCE, patience[rows] - 1)
        free[rows] ^= torch.where((patience[rows] >= 0)[:, None], wrong, _last(wrong))
    return x.clamp(min=0) * scale * size[:, None], free


def _solved(gram: Tensor, rhs: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The solution in the free variables, 0 elsewhere, and the slope at it."""
    on = free.to(gram.dtype)
    inner = gram * on[:, :, None] * on[:, None, :] + torch.diag_embed(1 - on)
    root = torch.linalg.cholesky_ex(inner)[0]
    x = torch.cholesky_solve((rhs * on)[:, :, None], root)[:, :, 0]
    slope = (gram @ x[:, :, None])[:, :, 0] - rhs
    return x, slope


def _last(wrong: Tensor) -> Tensor:
    """Only the last wrong variable of each problem: the exchange that cannot go round for ever."""
    place = torch.arange(1, wrong.shape[1] + 1, device=wrong.device)
    last = (wrong * place).argmax(dim=1)
    return torch.zeros_like(wrong).scatter_(1, last[:, None], True) & wrong
