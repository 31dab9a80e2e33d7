"""Covariance: of spectra about their mean, by sums over batches, and its leading components.

Pixels without data are either taken as the frame fills them (`plain`), or every pixel counts by a
weight (`weighted`; Delchambre 2015, eqs 12-13): an entry is then the mean over the spectra that
know both of its pixels. Axes: N spectra, P pixels.
"""

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

ALIKE = 1e-13
"Largest variance of a pixel, of normalised flux, that is but the rounding of float32."


def plain(distance: Tensor) -> dict[str, Tensor]:
    """Sums of spectra (N, P) from which something near their mean is taken."""
    count = torch.tensor(len(distance), device=distance.device)
    return {"count": count, "sum": distance.sum(0), "outer": distance.T @ distance}


def weighted(distance: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """The same, every pixel counting by weight (N, P), 0 for no data: three products, not one."""
    heavy = torch.where(weight > 0, distance * weight, 0)
    return {
        "weight": weight.sum(0),
        "sum": heavy.sum(0),
        "outer": heavy.T @ heavy,
        "cross": weight.T @ heavy,
        "pairs": weight.T @ weight,
    }


def solved(sums: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (P,) and covariance (P, P) of `plain` or `weighted` sums, exactly, in one pass.

    Pairs of pixels that no spectrum has have covariance 0.
    """
    if "count" in sums:
        count = sums["count"].clamp(min=1)
        mean = sums["sum"] / count
        return mean, sums["outer"] / count - torch.outer(mean, mean)
    mean = sums["sum"] / torch.where(sums["weight"] > 0, sums["weight"], 1)
    across = mean[:, None] * sums["cross"]
    about = sums["outer"] - across - across.T + torch.outer(mean, mean) * sums["pairs"]
    return mean, about / torch.where(sums["pairs"] > 0, sums["pairs"], 1)


def leading(covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues, descending, and eigenvectors as rows, each with its largest entry > 0.

    Lanczos takes a second where the full problem of 3800 pixels takes twenty; its start is fixed.

    Raises
    ------
    ValueError
        When the spectra do not differ.
    """
    size = len(covariance)
    widest = float(covariance.diagonal().abs().max())
    if widest < ALIKE:
        raise ValueError(
            f"the spectra that teach are all alike: the largest variance of a pixel is {widest:g}, "
            "and so there are no components; give more spectra"
        )
    start = np.ones(size) / np.sqrt(size)
    values, vectors = eigsh(covariance.cpu().numpy(), k=count, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    rows = vectors.T[order]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1, keepdims=True), axis=1)
    found = np.ascontiguousarray(rows * np.sign(largest))
    return torch.from_numpy(values[order].copy()), torch.from_numpy(found)
