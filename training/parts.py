"""Parts: rows of spectra worked on together, each part while it is in a core's cache.

All parts have the same number of rows, so that a row's rounding cannot depend on how many
there are.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from training.device import upload

# More is slower: their arrays leave the cache.
ROWS_CPU, ROWS_GPU = 32, 1024


def tensor(values: ArrayLike | Tensor, name: str, pixels: int | None = None) -> Tensor:
    """Values as a tensor: (N, pixels) float32, or (N,) float64.

    Raises
    ------
    ValueError
        When they are of another shape.
    """
    dtype = torch.float64 if pixels is None else torch.float32
    if not isinstance(values, Tensor):
        array = np.asarray(values, dtype=np.float64 if pixels is None else np.float32)
        # torch warns of arrays that it could write to by accident.
        values = torch.from_numpy(array if array.flags.writeable else array.copy())
    expected = 1 if pixels is None else 2
    if values.ndim != expected or (pixels is not None and values.shape[1] != pixels):
        shape = "(N,)" if pixels is None else f"(N, {pixels})"
        raise ValueError(f"{name}: shape is {tuple(values.shape)}; expected {shape}")
    return values.to(dtype)


def parts(
    columns: tuple[Tensor, ...], device: torch.device | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Equal parts of the rows, on a device (that of the first column, unless given).

    The last is filled up with zeros.

    Raises
    ------
    ValueError
        When the columns are not of one length.
    """
    counts = [len(column) for column in columns]
    if len(set(counts)) > 1:
        raise ValueError(f"numbers of spectra differ: {counts}; expected one row per spectrum")
    device = device or columns[0].device
    rows = ROWS_CPU if device.type == "cpu" else ROWS_GPU
    for first in range(0, max(counts[0], 1), rows):
        part = [upload(column[first : first + rows], device) for column in columns]
        lacking = rows - len(part[0])
        if lacking:
            part = [torch.cat([c, c.new_zeros((lacking, *c.shape[1:]))]) for c in part]
        yield tuple(part)


def joined(found: Iterator[dict[str, Tensor]], n: int) -> dict[str, Tensor]:
    """The first n rows of all parts; each is written while still in cache."""
    whole: dict[str, Tensor] = {}
    first = 0
    for part in found:
        some = {name: value[: n - first] for name, value in part.items() if value is not None}
        for name, value in some.items():
            if name not in whole:
                whole[name] = value.new_empty((n, *value.shape[1:]))
            whole[name][first : first + len(value)] = value
        first += len(value)
    return whole
