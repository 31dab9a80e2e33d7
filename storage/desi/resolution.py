"""DESI's resolution matrix: diagonals of a file, kernels of pixels, and their Gaussian sigma.

A file holds diagonals as `scipy.sparse.dia_matrix` does: entry j of diagonal d, of offset
o = K // 2 - d, is the share of true pixel j in observed pixel j - o. The kernel of observed
pixel i is what it takes from its neighbours, entry i + o of each diagonal. Kernels sum to 1,
columns of the file do not: near bad pixels they are off by 30 per cent. So sigma is the kernel's.

Axes: N spectra, K diagonals, L pixels.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Float = NDArray[np.float32]


def offsets(count: int) -> NDArray[np.int64]:
    """Offsets of the diagonals of a file, in their order: 5, 4 ... -5."""
    return count // 2 - np.arange(count)


def kernels(stored: NDArray[Any]) -> NDArray[Any]:
    """Kernels (N, K, L) of the diagonals of a file, of the same shape; 0 beyond its ends."""
    return _slanted(stored, -1)


def diagonals(kernel: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `kernels`."""
    return _slanted(kernel, 1)


def _slanted(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """Entry i of diagonal d becomes entry i - turn * (K // 2 - d), by the strides of a view."""
    n, count, size = values.shape
    padded = np.zeros((n, count, size + count - 1), values.dtype)
    padded[:, :, count // 2 : count // 2 + size] = values
    # turn -1: diagonal d begins at K - 1 - d; turn 1: at d.
    start = padded[:, :, count - 1 if turn < 0 else 0 :]
    rows, lines, pixels = padded.strides
    return as_strided(
        start, (n, count, size), (rows, lines + turn * pixels, pixels), writeable=False
    )


def moments(kernel: NDArray[Any]) -> NDArray[Any]:
    """Sum, first and second moment of kernels, (N, 3, L).

    At the ends of an arm a kernel is cut: those pixels have the moments of the first whole one.
    """
    count = kernel.shape[1]
    offset, half = offsets(count), count // 2
    powers = np.stack([offset**0, offset, offset**2]).astype("f4")
    found: NDArray[Any] = np.matmul(powers, kernel)
    if found.shape[2] > 2 * half:
        found[:, :, :half] = found[:, :, half, None]
        found[:, :, found.shape[2] - half :] = found[:, :, -half - 1, None]
    return found


def sigma(moment: NDArray[Any]) -> NDArray[Any]:
    """Gaussian sigma (N, L) in pixels of moments; 0 where there is none."""
    with np.errstate(all="ignore"):
        mean = moment[:, 1] / moment[:, 0]
        variance = moment[:, 2] / moment[:, 0] - mean**2
        known = (moment[:, 0] > 0) & (variance > 0) & np.isfinite(variance)
        found: NDArray[Any] = np.sqrt(variance, where=known, out=np.zeros_like(variance))
    return found


def gaussian(lsf: NDArray[Any], count: int) -> Float:
    """Diagonals (N, K, L) of Gaussian kernels of a sigma (N, L) in pixels; 0 where it is 0."""
    offset = offsets(count).astype("f4")[:, None]
    width = np.where(lsf > 0, lsf, 1).astype("f4")[:, None, :]
    kernel = np.exp(-0.5 * (offset / width) ** 2)
    kernel *= (lsf > 0)[:, None, :] / kernel.sum(axis=1, keepdims=True)
    return np.ascontiguousarray(diagonals(kernel.astype("f4")))
