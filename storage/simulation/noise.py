"""Noise of a spectrograph: photons of object and sky, and the detector, on the survey's own pixels.

The number of electrons per unit of flux is solved for, per object, so that the S/N asked for comes
out in g (4000-5400 A). An instrument of several arms has one number for all of them.
"""

from functools import lru_cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float, Grid
from storage.names import resolve
from storage.reader import Reader
from storage.schema import ObjectType
from storage.simulation.instrument import G_BAND, Instrument, within

Single = NDArray[np.float32]
Kind = Literal["gaussian", "laplace"]

_SEGMENT = 128
"Pixels of one sky fibre in a row, before the next one takes over."


def electrons(
    flux: Single, grid: Grid, instrument: Instrument, good: NDArray[np.bool_], snr: Float
) -> Float:
    """Electrons per unit of flux, (N,), for an instrument of one arm, from spectra that show g.

    Parameters
    ----------
    flux : (N, L) float32
        Noiseless, house unit.
    good : (L,) bool
        Pixels with data.
    snr : (N,) float64
        Wanted mean of flux / sigma over `G_BAND`.
    """
    arm = instrument.arms[0]
    q = instrument.electrons_per_unit(arm, grid.wavelength, grid.widths)
    inside = pixels_in_g(grid, good)
    some = inside[:: max(1, inside.size // 400)]
    sky = instrument.sky_over(grid)[some]
    return _solve(flux[:, some], q[some], sky, snr, arm.read_variance)


def electrons_by_guide(guide: Float, instrument: Instrument, snr: Float) -> Float:
    """Electrons per unit of flux, (N,), the same on every grid: of a flux that is linear in g.

    Parameters
    ----------
    guide : (N, 2) float64
        Noiseless mean flux in the blue and in the red half of g, house unit.
    snr : (N,) float64
        Wanted mean of flux / sigma over `G_BAND`, per pixel of the instrument.

    Raises
    ------
    ValueError
        When no arm sees g.
    """
    where = np.arange(G_BAND[0], G_BAND[1], 5.0)
    where = where[instrument.covers(where)]
    if not where.size:
        raise ValueError(
            f"instrument {instrument.name}: no arm sees {G_BAND[0]:.0f}-{G_BAND[1]:.0f} A, where "
            "S/N_g is defined; describe all arms in its file, also those that are not simulated"
        )
    q = np.zeros((len(instrument.arms), where.size))
    for row, arm in zip(q, instrument.arms, strict=True):
        seen = instrument.electrons_per_unit(arm, where, arm.pixel)
        row[:] = np.where(within(where, arm.wavelength), seen, 0.0)
    low, high = (0.75 * a + 0.25 * b for a, b in (G_BAND, G_BAND[::-1]))
    slope = (guide[:, 1] - guide[:, 0]) / (high - low)
    flux = np.maximum(guide[:, :1] + slope[:, None] * (where - low), 1e-3)
    read = np.array([arm.read_variance for arm in instrument.arms])[q.argmax(axis=0)]
    return _solve(flux, q.max(axis=0), _sky_at(instrument, where), snr, read)


def _sky_at(instrument: Instrument, where: Float) -> Float:
    grid = Grid(kind="linear", start=G_BAND[0], step=5.0, size=300)
    return instrument.sky_over(grid)[np.rint(grid.pixel(where)).astype(np.intp)]


def variance(flux: Single, grid: Grid, instrument: Instrument, k: Float) -> Single:
    """Variance of flux (N, L) for k electrons per unit (N,); 1 where no arm sees.

    Notes
    -----
    With q = throughput x wavelength x pixel width, the variance of one arm is
    (k q (F + S) + R^2) / (k q)^2. Arms that overlap are joined by inverse variance.
    """
    light = np.maximum(flux, 0) + instrument.sky_over(grid).astype(np.float32)
    if len(instrument.arms) == 1:
        return _of_arm(light, grid, instrument, 0, k, slice(None))
    ivar = np.zeros_like(light)
    for number, arm in enumerate(instrument.arms):
        seen = np.flatnonzero(within(grid.wavelength, arm.wavelength))
        if seen.size:
            part = slice(int(seen[0]), int(seen[-1]) + 1)
            ivar[:, part] += 1 / _of_arm(light[:, part], grid, instrument, number, k, part)
    return np.asarray(1 / np.where(ivar > 0, ivar, np.float32(1)))


def _of_arm(
    light: Single, grid: Grid, instrument: Instrument, number: int, k: Float, part: slice
) -> Single:
    arm = instrument.arms[number]
    q = instrument.electrons_per_unit(arm, grid.wavelength[part], grid.widths[part])
    kq = k.astype(np.float32)[:, None] * q.astype(np.float32)
    return np.asarray((kq * light + np.float32(arm.read_variance)) / kq**2)


def _solve(
    flux: NDArray[np.floating], q: Float, sky: Float, snr: Float, read: Float | float
) -> Float:
    """Electrons per unit of flux, (N,), for which the mean of flux / sigma is snr.

    S/N rises with their number, so Newton's steps in its logarithm converge.
    """
    k = 10.0 * np.ones(snr.size)
    signal, light = flux * q, (np.maximum(flux, 0) + sky) * q
    for _ in range(12):
        noise2 = k[:, None] * light + read
        each = k[:, None] * signal / np.sqrt(noise2)
        slope = (each * (1 - 0.5 * k[:, None] * light / noise2)).mean(axis=1)
        mean = each.mean(axis=1)
        # Newton for log S/N as a function of log K; its slope is between 1/2 and 1.
        k = k * np.exp(np.clip(np.log(snr / mean) * mean / slope, -4.0, 4.0))
    return np.asarray(k)


def pixels_in_g(grid: Grid, good: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Good pixels in `G_BAND`.

    Raises
    ------
    ValueError
        When there is none.
    """
    inside = np.flatnonzero(good & within(grid.wavelength, G_BAND))
    if not inside.size:
        raise ValueError(
            f"grid {grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A has no good pixel in "
            f"{G_BAND[0]:.0f}-{G_BAND[1]:.0f} A, where S/N_g is defined; take a grid that has"
        )
    return inside


def draw(kind: Kind, rng: np.random.Generator, shape: tuple[int, ...]) -> Single:
    """Noise of unit variance, float32."""
    if kind == "laplace":
        # The difference of two exponentials is Laplace; this way in single precision.
        first = rng.standard_exponential(shape, dtype=np.float32)
        first -= rng.standard_exponential(shape, dtype=np.float32)
        first *= np.float32(0.5**0.5)
        return first
    return rng.standard_normal(shape, dtype=np.float32)


def of_sky(rng: np.random.Generator, shape: tuple[int, int], residuals: Single) -> Single:
    """Noise (N, L) put together from residuals (F, L) of real sky fibres.

    Every pixel keeps its place, so that the remains of sky lines stay at them; a row is made of
    segments of 128 pixels, each of a fibre and a sign of its own. NaN where the fibre has no data.
    """
    rows, size = shape
    pieces = size // _SEGMENT + 2
    fibre = rng.integers(0, residuals.shape[0], (rows, pieces))
    sign = rng.choice(np.array([-1.0, 1.0], np.float32), (rows, pieces))
    # Cuts fall elsewhere in every row: no pixel is always the first of a segment.
    start = rng.integers(0, _SEGMENT, (rows, 1))
    piece = (np.arange(size) + start) // _SEGMENT
    chosen = residuals[np.take_along_axis(fibre, piece, axis=1), np.arange(size)]
    return np.asarray(chosen * np.take_along_axis(sign, piece, axis=1))


@lru_cache(maxsize=2)
def sky_residuals(folder: str, reader: str, grid: Grid) -> Single:
    """Flux over its stated error of the sky fibres in a folder, (F, L); NaN where no data.

    Raises
    ------
    ValueError
        When the reader has no configuration on the grid, or the folder has no sky fibre.
    """
    form = cast(Reader, resolve("storage.readers", reader).build())
    config = next((name for name, axis in form.configs.items() if axis == grid), None)
    if config is None:
        raise ValueError(
            f"sky_residuals: reader {reader!r} has no configuration on the grid of the mock "
            f"({grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A, {grid.size} pixels); simulate on its own"
        )
    found = []
    for source in form.find(folder, config):
        rows = form.read(source, folder, config)
        sky = (rows["object_type"] == int(ObjectType.SKY)).to_numpy()
        flux, ivar = (rows[name].to_numpy()[sky] for name in ("flux", "ivar"))
        found.append(np.where(ivar > 0, flux * np.sqrt(ivar), np.float32(np.nan)))
    whole = np.concatenate(found) if found else np.empty((0, grid.size), np.float32)
    whole = whole[np.isfinite(whole).any(axis=1)]
    if not whole.size:
        raise ValueError(
            f"sky_residuals: {folder} has no sky fibre that reader {reader!r} can read"
        )
    return np.asarray(whole, dtype=np.float32)


def runs(
    rng: np.random.Generator, shape: tuple[int, int], share: float, lengths: tuple[int, int]
) -> NDArray[np.bool_]:
    """Pixels (N, L) hit by runs of low to high pixels, that cover about a share of all."""
    low, high = lengths
    count = rng.poisson(share * shape[0] * shape[1] / (0.5 * (low + high)))
    row, first = rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)
    length = rng.integers(low, high + 1, count)
    hit = np.zeros(shape, dtype=bool)
    for step in range(high):
        long = length > step
        hit[row[long], np.minimum(first[long] + step, shape[1] - 1)] = True
    return hit
