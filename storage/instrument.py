"""The spectrograph of a mock survey: line spread, throughput, sky and noise, shaped after SDSS.

Noise is drawn on the survey's own pixels: photons of object and sky, and the detector. The number
of electrons per unit of flux is solved for, per object, so that the S/N asked for comes out.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from storage.grid import Float, Grid

Single = NDArray[np.float32]

C_KMS = 299792.458
SDSS_PIXEL_KMS = 1e-4 * np.log(10) * C_KMS
G_BAND, R_BAND = (4000.0, 5400.0), (5600.0, 6900.0)
"Observed A, of S/N per pixel."
BRIGHT = 75.0
"A pixel whose sky is brighter than this (house unit) has no data: BRIGHTSKY, 1 % of them."
_READ_VARIANCE = 7.5
"Electrons squared per pixel."

# Line spread as SDSS files tell it (wdisp): A, sigma in pixels of 1e-4 dex; two cameras.
_LSF = (
    (3300, 1.30), (3800, 1.22), (4200, 1.08), (4600, 0.99), (5000, 0.92), (5400, 0.88),
    (5850, 0.86), (6050, 0.92), (6250, 0.96), (7000, 0.90), (8000, 0.84), (9200, 0.82),
    (10900, 0.82),
)  # fmt: skip

# Night sky in a 3 arcsec fibre: continuum (A, house unit) and lines (vacuum A, peak over the
# continuum in the same unit). City lamps, airglow [O I] and sodium, and the bands of OH.
_SKY_CONTINUUM = (
    (3300, 9.0), (3800, 8.0), (4300, 7.2), (5000, 7.8), (5450, 7.0), (5800, 10.0), (6000, 10.8),
    (6250, 8.4), (7000, 6.4), (7500, 6.0), (8000, 7.2), (8500, 6.4), (9200, 8.0), (10900, 10.0),
)  # fmt: skip
_SKY_LINES = (
    (4047.7, 16), (4359.6, 36), (5462.3, 35), (5578.9, 545), (5688.5, 12), (5770.6, 10),
    (5791.6, 11), (5891.6, 93), (5897.6, 65), (5934.7, 8), (6237.3, 12), (6260.4, 10),
    (6302.0, 120), (6365.5, 40), (6501.3, 11), (6555.4, 10), (6831.2, 21), (6865.9, 32),
    (6924.7, 16), (6950.2, 19), (7242.7, 53), (7277.8, 62), (7286.2, 20), (7318.1, 47),
    (7343.4, 54), (7372.2, 44), (7404.6, 28), (7440.5, 14), (7526.6, 34), (7573.6, 22),
    (7601.5, 24), (7716.1, 70), (7753.5, 85), (7796.5, 55), (7823.5, 64), (7843.3, 14),
    (7856.0, 71), (7872.3, 27), (7892.2, 35), (7915.9, 90), (7923.2, 34), (7967.1, 67),
    (7994.7, 68), (8027.9, 55), (8064.9, 29), (8283.2, 52), (8290.9, 70), (8300.4, 81),
    (8346.4, 167), (8356.0, 47), (8384.9, 36), (8402.3, 120), (8433.3, 144), (8454.7, 43),
    (8468.4, 103), (8507.5, 62), (8631.8, 45), (8661.6, 42), (8764.0, 98), (8770.0, 125),
    (8780.1, 123), (8828.8, 253), (8838.9, 93), (8869.5, 69), (8887.9, 184), (8906.4, 75),
    (8922.8, 233), (8945.4, 65), (8959.8, 172), (8990.8, 53), (9003.3, 103), (9051.1, 45),
    (9105.4, 21), (9315.0, 150), (9379.0, 190), (9442.0, 160), (9505.0, 120), (9720.0, 90),
    (9793.0, 130), (9875.0, 140), (9920.0, 100), (10013.0, 90), (10085.0, 110), (10125.0, 90),
)  # fmt: skip


def lsf_kms(wavelength: Float) -> Float:
    """Sigma of the line spread at observed wavelengths, km/s; any shape."""
    where, pixels = np.array(_LSF).T
    return np.asarray(np.interp(wavelength, where, pixels) * SDSS_PIXEL_KMS)


def lsf_pixels(grid: Grid) -> Float:
    """Sigma of the line spread in pixels of a grid, (L,)."""
    return np.asarray(lsf_kms(grid.wavelength) * grid.wavelength / C_KMS / grid.widths)


@lru_cache(maxsize=4)
def sky(grid: Grid) -> Float:
    """Brightness of the sky, (L,), house unit: lines are averaged over each pixel."""
    continuum = np.interp(grid.wavelength, *np.array(_SKY_CONTINUUM).T)
    centre, peak = np.array(_SKY_LINES).T
    sigma = centre * lsf_kms(centre) / C_KMS
    area = peak * sigma * np.sqrt(2 * np.pi)
    below = ndtr((grid.edges - centre[:, None]) / sigma[:, None])
    return np.asarray(continuum + area @ np.diff(below, axis=1) / grid.widths)


def throughput(wavelength: Float) -> Float:
    """Share of photons detected, (L,): falls to the blue, dips at the dichroic."""
    whole = 0.20 / (1 + np.exp(-(wavelength - 4150.0) / 230.0))
    return np.asarray(whole * (1 - 0.18 * np.exp(-(((wavelength - 6000.0) / 150.0) ** 2))))


def variance(flux: Single, grid: Grid, good: NDArray[np.bool_], snr_g: Float) -> Single:
    """Variance of flux that gives each spectrum its S/N in g.

    Parameters
    ----------
    flux : (N, L) float32
        Noiseless, house unit.
    good : (L,) bool
        Pixels with data.
    snr_g : (N,) float64
        Wanted mean of flux / sigma over `G_BAND`.

    Returns
    -------
    (N, L) float32

    Notes
    -----
    With q = throughput x wavelength x pixel width and K electrons per unit, the variance is
    (K q (F + S) + R^2) / (K q)^2. S/N rises with K, so Newton's steps in log K converge.
    """
    q = throughput(grid.wavelength) * grid.wavelength / 5500.0 * grid.widths / 1.27
    inside = pixels_in_g(grid, good)
    some = inside[:: max(1, inside.size // 400)]
    k = _electrons(flux[:, some], q[some], sky(grid)[some], snr_g)
    kq = k.astype(np.float32)[:, None] * q.astype(np.float32)
    light = np.maximum(flux, 0) + sky(grid).astype(np.float32)
    return np.asarray((kq * light + np.float32(_READ_VARIANCE)) / kq**2)


def _electrons(flux: Single, q: Float, sky_here: Float, snr: Float) -> Float:
    """Electrons per unit of flux, (N,), for which the mean of flux / sigma is snr."""
    k = 10.0 * np.ones(snr.size)
    signal, light = flux * q, (np.maximum(flux, 0) + sky_here) * q
    for _ in range(12):
        noise2 = k[:, None] * light + _READ_VARIANCE
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


def within(wavelength: Float, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels whose centres are in a band, (L,)."""
    return np.asarray((wavelength >= band[0]) & (wavelength <= band[1]))


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
