"""Calibrated: the table of what errors indices on denoised spectra have, as mocks have shown.

    errors.json         beside verdict.json in a checkpoint, and like it outside the digest

A cell is one index at one S/N, of one class, in one range of redshift. Where fewer than `LEAST`
objects stand behind it, the cell of all redshifts stands in, then that of all classes; where those
have too few as well, its numbers are interpolated between the neighbours in S/N.

Axes: N spectra, I indices, S bins of S/N, Q numbers.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.whole import replace

ERRORS = "errors.json"
LEAST = 100
"Objects that a cell needs: the share that an error covers is then known within 4.7 points."
MARGIN = 0.02
"Of the span of redshifts, beyond which the table says nothing; lines move smoothly with z."
POSITIVE = ("error", "factor", "deshrunk", "deshrunk_factor")
"Numbers that are interpolated as logarithms."
NUMBERS = (*POSITIVE, "slope", "intercept")
"What is looked up."

Array = NDArray[np.float64]


class _Record(BaseModel):
    # NaN survives JSON as a string.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Column(_Record):
    """One index in the S bins, in its unit; NaN where objects are too few."""

    n: tuple[int, ...]
    "Objects."
    scatter: tuple[float, ...]
    "1.4826 median absolute deviation of output - truth."
    bias: tuple[float, ...]
    "Median of output - truth."
    error: tuple[float, ...]
    "68.3 % of the outputs are nearer to the truth than this, the bias being part of it."
    factor: tuple[float, ...]
    "What the scatter of the draws is multiplied by for the same; NaN for a model without draws."
    slope: tuple[float, ...]
    "Of output on truth: 1 is not shrunk, 0 is the average galaxy."
    intercept: tuple[float, ...]
    "Of that line: the output at a truth of 0."
    deshrunk: tuple[float, ...]
    "As error, of (output - intercept) / slope; NaN where the slope is hardly above 0."
    deshrunk_factor: tuple[float, ...]
    "As factor, for the same."


class Curve(_Record):
    """All indices of a class in a range of redshift, along S/N."""

    kind: str
    "Class; empty: all."
    z: tuple[float, float] | None
    "Lowest and highest redshift; None: all."
    snr: tuple[float, ...]
    "(S,) median S/N per pixel in g of each bin, rising."
    indices: dict[str, Column]
    "By name."


class Calibrated(_Record):
    """The table of a checkpoint."""

    recipe: str
    "Digest of what made it: mock, number of objects, seed, indices, draws."
    n: int
    "Objects drawn in each bin of S/N."
    draws: int
    "Draws of the posterior that the factors belong to."
    bins: tuple[tuple[float, float], ...]
    "(S,) of S/N per pixel in g; above the last one its cell holds."
    curves: tuple[Curve, ...]
    "By class and redshift; those of a class are neighbours in redshift, lowest first."

    def look_up(
        self, names: Sequence[str], kind: ArrayLike, z: ArrayLike, snr: ArrayLike
    ) -> dict[str, Array]:
        """Each of `NUMBERS` (N, I), for rows of a class, a redshift and an S/N per pixel in g.

        NaN where the table knows nothing: of an index or a class that it lacks, at a redshift
        beyond its range by more than `MARGIN`, at an S/N below its first bin or not a number.

        Notes
        -----
        Between the middles of two bins numbers are interpolated in log S/N. Below the middle of the
        first one errors grow as 1 / (S/N), as those of no denoiser do; above the middle of the last
        one they stay, and are too large.
        """
        kind_N, z_N, snr_N = np.asarray(kind), np.asarray(z, np.float64), np.asarray(snr)
        found = np.full((len(snr_N), len(names), len(NUMBERS)), np.nan)
        there = [name for name in self._names if name in names]
        into = np.array([list(names).index(name) for name in there], np.intp)
        of = [self._names.index(name) for name in there]
        known = np.isfinite(z_N) & (snr_N >= self.bins[0][0])
        for curve, rows in self._parted(kind_N, z_N):
            some = np.flatnonzero(rows & known)
            if some.size and into.size:
                value = _between(curve.snr, self._tables[curve.kind, curve.z], snr_N[some])
                found[np.ix_(some, into)] = value[:, of]
        return dict(zip(NUMBERS, np.moveaxis(found, -1, 0), strict=True))

    def _parted(self, kind: NDArray[Any], z: Array) -> list[tuple[Curve, NDArray[np.bool_]]]:
        """The rows that each curve of a class and a redshift is for."""
        parts = []
        for name in dict.fromkeys(curve.kind for curve in self.curves if curve.z is not None):
            mine = [curve for curve in self.curves if curve.kind == name and curve.z is not None]
            edges = np.array([mine[0].z[0], *(c.z[1] for c in mine)])  # type: ignore[index]
            margin = MARGIN * (edges[-1] - edges[0])
            inside = (kind == name) & (z >= edges[0] - margin) & (z <= edges[-1] + margin)
            number = np.searchsorted(edges[1:-1], z, side="right")
            parts += [(curve, inside & (number == i)) for i, curve in enumerate(mine)]
        return parts

    @cached_property
    def _names(self) -> list[str]:
        return list(self.curves[0].indices) if self.curves else []

    @cached_property
    def _tables(self) -> dict[tuple[str, tuple[float, float] | None], Array]:
        """Numbers (S, I, Q) of each curve, with no gap where there is anything to fill it with."""
        own = {(curve.kind, curve.z): _numbers(curve) for curve in self.curves}
        found = {}
        for (kind, z), (values, n) in own.items():
            for coarser in ((kind, None), ("", None)):
                if coarser in own:
                    few = (n < LEAST)[..., None]
                    values = np.where(few, own[coarser][0], values)
                    n = np.where(n < LEAST, own[coarser][1], n)
            found[kind, z] = _filled(values)
        return found


def _numbers(curve: Curve) -> tuple[Array, NDArray[np.int64]]:
    """Numbers (S, I, Q) of a curve, and the objects (S, I) behind them."""
    columns = list(curve.indices.values())
    values = np.array([[getattr(c, name) for name in NUMBERS] for c in columns], np.float64)
    values[:, : len(POSITIVE)] = np.log(np.maximum(values[:, : len(POSITIVE)], 1e-300))
    return values.transpose(2, 0, 1), np.array([c.n for c in columns]).T


def _filled(values: Array) -> Array:
    """Values (S, I, Q) interpolated over S where they are NaN; above the last one it stays.

    Below the first one there is none: errors would be too small.
    """
    found = values.copy()
    place = np.arange(len(values))
    for column in found.reshape(len(values), -1).T:
        good = np.isfinite(column)
        if good.any():
            column[:] = np.interp(place, place[good], column[good], left=np.nan)
    return found


def _between(nodes: Sequence[float], values: Array, snr: Array) -> Array:
    """Values (n, I, Q) at some S/N."""
    track, at = np.log(nodes), np.log(snr)
    upper = np.searchsorted(track, at).clip(0, len(track) - 1)
    lower = (upper - 1).clip(0)
    step = np.where(upper > lower, track[upper] - track[lower], 1.0)
    share = ((at - track[lower]) / step).clip(0, 1)[:, None, None]
    found = (1 - share) * values[lower] + share * values[upper]
    found[..., : len(POSITIVE)] = np.exp(found[..., : len(POSITIVE)])
    grown = [NUMBERS.index("error"), NUMBERS.index("deshrunk")]
    found[..., grown] *= np.maximum(nodes[0] / snr, 1.0)[:, None, None]
    return np.asarray(found)


def read(path: Path | str) -> Calibrated | None:
    """The table of a checkpoint as it is now; None where there is none.

    Raises
    ------
    ValueError
        When it cannot be read; says what to do.
    """
    return _parsed(str(path), digest(path)) if (Path(path) / ERRORS).exists() else None


def digest(path: Path | str) -> str:
    """Eight hex digits of the table of a checkpoint; empty where there is none."""
    file = Path(path) / ERRORS
    return hashlib.blake2b(file.read_bytes(), digest_size=4).hexdigest() if file.exists() else ""


@lru_cache(maxsize=8)
def _parsed(path: str, digest8: str) -> Calibrated:
    file = Path(path) / ERRORS
    try:
        return Calibrated.model_validate_json(file.read_text())
    except ValidationError as error:
        raise ValueError(
            f"{file}: no table of errors of this version; remove it, and `specmill train` makes "
            f"it anew ({error.errors()[0]['msg']})"
        ) from error


def write(path: Path | str, table: Calibrated) -> None:
    """Put a table beside a checkpoint, in place of an older one."""
    replace(Path(path) / ERRORS, table.model_dump_json() + "\n")
