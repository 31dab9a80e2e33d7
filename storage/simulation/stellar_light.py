"""Stars as a telescope sees them: line spread and pixels, Doppler shift, dust, brightness.

The spread and the mean over a pixel are put onto the models once, and the shift acts on what they
leave: it moves a line spread that hardly changes over 0.01 of its wavelength.

Axes: N spectra, L pixels of the grid, M pixels of the fine axis, P points that are kept of a model.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.special import ndtr

from storage import dust
from storage.grid import Float, Grid
from storage.simulation.instrument import C_KMS, Instrument
from storage.simulation.stellar_grid import Single

Z_MOST = 0.01
"Largest redshift, either way: 3000 km/s."
I_BAND = (7100.0, 8400.0)
"The band of magnitudes, a box: observed, vacuum A."
_STEP = 8e-6
_TAPS = 6
_ROWS = 64
_AB = 3631e-23 * 2.99792458e18 * 1e17


@dataclass(frozen=True, kw_only=True)
class Optics:
    """What is the same for every spectrum through one instrument on one grid."""

    grid: Grid
    "Pixels of the survey."
    fine: Grid
    "Axis of the models, rest frame."
    points: Grid
    "Where a blurred model is kept: two points a pixel."
    group: int
    "Fine pixels that are averaged before the spread is put on."
    spread: sparse.csr_array
    "(P + 1, M / group): spread and pixel; the last row is the light in `I_BAND`."
    dust: Single
    "(L,) extinction less that of `I_BAND`, mag per E(B-V)."

    def keep(self, flux: Single) -> Single:
        """What is kept of models on the fine axis: (K, M) to (K, P + 1)."""
        grouped = flux.reshape(flux.shape[0], -1, self.group).mean(axis=2)
        return np.ascontiguousarray((self.spread @ np.ascontiguousarray(grouped.T)).T)

    def seen(self, kept: Single, z: Float, ebv: Float, magnitude: Float) -> Single:
        """Flux (N, L), house unit, from what was kept (N, P + 1).

        z, ebv, magnitude : (N,); E(B-V) of CCM89 with R_V 3.1; AB in `I_BAND`, behind the dust.
        """
        out = np.empty((z.size, self.grid.size), np.float32)
        for first in range(0, z.size, _ROWS):
            rows = slice(first, first + _ROWS)
            out[rows] = self._shifted(kept[rows], z[rows])
        level = _AB * 10 ** (-0.4 * magnitude) / kept[:, -1]
        out *= level.astype(np.float32)[:, None]
        out *= np.exp(np.float32(-0.4 * np.log(10)) * ebv.astype(np.float32)[:, None] * self.dust)
        return out

    def _shifted(self, kept: Single, z: Float) -> Single:
        """Polynomials through six points about the place of each pixel at rest, (N, L)."""
        shift = np.log10(1 + z)[:, None] / self.points.step
        place = self.points.pixel(self.grid.wavelength) - shift
        # The place is between the third and the fourth of the points.
        first = np.floor(place + 1e-6) - (_TAPS // 2 - 1)
        offset = (place - first).astype(np.float32)
        if self.grid.kind == "log":
            offset = offset[:, :1]
        index = (
            first.astype(np.int32) + (np.arange(z.size, dtype=np.int32) * kept.shape[1])[:, None]
        )
        flat = kept.ravel()
        out = np.zeros((z.size, self.grid.size), np.float32)
        for k in range(_TAPS):
            out += _lagrange(offset, k) * flat.take(index + k)
        return out


def _lagrange(offset: Single, k: int) -> Single:
    weight = np.ones_like(offset)
    for j in range(_TAPS):
        if j != k:
            weight *= (offset - np.float32(j)) * np.float32(1 / (k - j))
    return weight


@lru_cache(maxsize=8)
def optics(instrument: Instrument, grid: Grid) -> Optics:
    """The optics of one arm on a grid.

    Raises
    ------
    ValueError
        When the grid is outside what the law of dust is defined for, or its pixels are wider than
        300 km/s.
    """
    share = grid.widths / grid.wavelength
    if share.max() * C_KMS > 300.0:
        raise ValueError(
            f"grid {grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A has pixels of "
            f"{share.max() * C_KMS:.0f} km/s; take one of 300 km/s or less"
        )
    points = _log_axis(grid.edges[0], grid.edges[-1], float(share.min() / np.log(10) / 2), 4)
    kms = instrument.lsf_kms(points.wavelength)
    # Averages over a group have a spread of their own, which is taken off that of the instrument.
    group = max(1, int(kms.min() / 2.5 / (_STEP * np.log(10) * C_KMS)))
    ends = (min(points.wavelength[0], I_BAND[0]), max(points.wavelength[-1], I_BAND[1]))
    margin = int(np.ceil((6 * kms.max() + 300.0) / (_STEP * np.log(10) * C_KMS)))
    fine = _log_axis(ends[0], ends[1], _STEP, margin)
    fine = fine.model_copy(update={"size": fine.size - fine.size % group})
    return Optics(
        grid=grid,
        fine=fine,
        points=points,
        group=group,
        spread=_spread(points, fine, group, kms, grid),
        dust=(dust.curve("CCM89", grid.wavelength) - _dimming()).astype(np.float32),
    )


def _log_axis(low: float, high: float, step: float, margin: int) -> Grid:
    start = np.log10(low / (1 + Z_MOST)) - margin * step
    size = int(np.ceil((np.log10(high / (1 - Z_MOST)) - start) / step)) + margin
    return Grid(kind="log", start=float(start), step=step, size=size)


def _spread(points: Grid, fine: Grid, group: int, kms: Float, grid: Grid) -> sparse.csr_array:
    """Weights of groups of fine pixels in each point, (P + 1, M / group)."""
    wide = group * fine.step * np.log(10) * C_KMS
    sigma = np.sqrt(np.maximum(kms**2 - wide**2 / 12, (0.5 * wide) ** 2))
    half = 0.5 * np.interp(points.wavelength, grid.wavelength, grid.widths)
    half *= C_KMS / points.wavelength
    reach = int(np.ceil((5 * sigma.max() + half.max()) / wide))
    place = (fine.pixel(points.wavelength) - 0.5 * (group - 1)) / group
    column = np.rint(place).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    away = (column - place[:, None]) * wide
    upper, lower = ((away + side * half[:, None]) / sigma[:, None] for side in (1, -1))
    value = ndtr(upper) - ndtr(lower)
    value[(column < 0) | (column >= fine.size // group)] = 0
    value /= value.sum(axis=1, keepdims=True)
    seen = value > 1e-7
    row = np.broadcast_to(np.arange(points.size)[:, None], value.shape)
    band, light = _band(fine, group)
    entries = (
        np.concatenate([value[seen], light]).astype(np.float32),
        (
            np.concatenate([row[seen], np.full(band.size, points.size)]),
            np.concatenate([column[seen], band]),
        ),
    )
    return sparse.coo_array(entries, shape=(points.size + 1, fine.size // group)).tocsr()


def _band(fine: Grid, group: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Float]:
    """Groups in `I_BAND` and their weights, which give the integral of F x over that of 1 / x."""
    edges = fine.edges[::group]
    overlap = np.minimum(edges[1:], I_BAND[1]) - np.maximum(edges[:-1], I_BAND[0])
    band = np.flatnonzero(overlap > 0)
    middle = 0.5 * (edges[1:] + edges[:-1])[band]
    return band, middle * overlap[band] / np.log(I_BAND[1] / I_BAND[0])


@lru_cache(maxsize=1)
def _dimming() -> float:
    """Extinction of `I_BAND` per E(B-V), mag: of a spectrum that is flat in photons."""
    axis = np.linspace(*I_BAND, 200)
    dimmed = (10 ** (-0.4 * 0.05 * dust.curve("CCM89", axis))).mean()
    return float(-2.5 * np.log10(dimmed) / 0.05)
