"""Whether a wavelength axis is too coarse for the bands of an index."""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from pipeline.window import Band
from storage.grid import Grid

LEAST = 2.0
"Pixels of the narrowest band: with fewer, no pixel need lie wholly inside it."


def coarse(
    grid: Grid, bands: tuple[tuple[Band, ...], ...], stretch: NDArray[np.float64] | None
) -> NDArray[np.bool_] | None:
    """Whether a band of each index is narrower than `LEAST` pixels.

    Parameters
    ----------
    grid : Grid
        The axis of the spectra.
    bands : tuple of tuples of (float, float)
        Rest-frame bands of each index, A.
    stretch : (N,) float64, optional
        1 + z, by which the bands are seen wider.

    Returns
    -------
    (1, index) or (N, index) bool, or None
        None where no band is.
    """
    pixels = _narrowest(grid.kind, bands)[None] / grid.step
    # On a logarithmic axis a ratio of wavelengths is as many pixels at any redshift.
    if stretch is not None and grid.kind == "linear":
        pixels = pixels * np.nan_to_num(stretch, nan=1.0)[:, None]
    found = np.asarray(pixels < LEAST)
    return found if found.any() else None


@functools.lru_cache(maxsize=64)
def _narrowest(kind: str, bands: tuple[tuple[Band, ...], ...]) -> NDArray[np.float64]:
    """Width of the narrowest band of each index, in A or in log10(A)."""
    return np.array(
        [
            min(math.log10(high / low) if kind == "log" else high - low for low, high in each)
            for each in bands
        ]
    )
