"""Products of rows with a matrix, in which a row is rounded alike whoever is beside it.

A matrix product rounds a row differently in another number of rows. Here there are always as many:
what comes out for a spectrum is the same to the bit in any block, and whichever others leave a fit
before it does. Axes: N spectra, A and B columns, V matrices.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

_ROWS_CPU, _ROWS_GPU = 32, 128
"Rows of a product: fewer cost more calls, more are seldom full."


def product(left: Tensor, right: Tensor) -> Tensor:
    """Rows (N, A) times a matrix (A, B): (N, B)."""
    step, count = _step(left), len(left)
    rows = _filled(left, -(-count // step) * step)
    made = left.new_empty((len(rows), right.shape[1]))
    for first in range(0, len(rows), step):
        torch.mm(rows[first : first + step], right, out=made[first : first + step])
    return made[:count]


def chosen(left: Tensor, right: Tensor, place: Tensor) -> Tensor:
    """Rows (N, A), each times its own of V matrices (V, A, B), by its place (N,): (N, B)."""
    step, made = _step(left), left.new_empty((len(left), right.shape[2]))
    order, last = place.argsort(), 0
    for number, count in enumerate(torch.bincount(place, minlength=len(right)).tolist()):
        begin, last = last, last + count
        for first in range(begin, last, step):
            mine = order[first : min(first + step, last)]
            made[mine] = (_filled(left[mine], step) @ right[number])[: len(mine)]
    return made


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows (N, A), and rows of zeros up to a count."""
    return rows if len(rows) == count else pad(rows, (0, 0, 0, count - len(rows)))


def _step(rows: Tensor) -> int:
    return _ROWS_CPU if rows.device.type == "cpu" else _ROWS_GPU
