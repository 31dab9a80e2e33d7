"""The contract of a simulator: the same objects for the same seed, with their truth.

A mock is a module on the shelf `storage.mocks` with a `build(**options)` that gives a `Mock`.
"""

import hashlib
from typing import Protocol

import numpy as np
import xarray as xr

from storage.grid import Grid


class Mock(Protocol):
    """A population of objects and the survey that looks at it."""

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        """Noiseless objects: ``flux`` (N, L) as the telescope would see it, and their parameters.

        Row i depends on (seed, stream, i) alone, not on n.
        """
        ...

    def observe(
        self,
        truth: xr.Dataset,
        grid: Grid,
        seed: int,
        stream: str,
        snr_g: tuple[float, float] | None = None,
    ) -> xr.Dataset:
        """One exposure of each object, as `storage.schema.check` wants it.

        snr_g : the range that S/N per pixel in g is drawn from, uniformly; the survey's own
        distribution when None. Two streams give two independent exposures of the same objects.
        """
        ...


def generator(seed: int, stream: str, block: int = 0) -> np.random.Generator:
    """A random generator of its own for every (seed, stream, block)."""
    name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, name, block]))
