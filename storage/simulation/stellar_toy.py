"""A toy of a synthetic stellar spectrum: the right signs and orders, from no model atmosphere.

A Planck curve is cut by lines and bands whose optical depths are powers of abundance, gravity and
temperature. Nothing here may be fitted to a real star. What it is for: thousands of spectra that
differ as those of real stars do, without a library. With the optical depth t of all lines, a
pixel keeps 0.10 + 0.90 exp(-0.8 t) of the continuum, and exp(-t) of that below the bands.

Axes: K stars, M pixels of the fine axis, W weak lines.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import voigt_profile

from storage.grid import Float, Grid, air_to_vacuum
from storage.simulation import stellar_lines
from storage.simulation.instrument import C_KMS
from storage.simulation.stellar_grid import Index, Single
from storage.simulation.stellar_lines import Strong

_THETA0 = 5040.0 / 4250.0
_WING_KMS = 3500.0
_SIGMA_KMS = 5.5
_FLOOR = 0.10
_HC_K = 1.438777e8


class Stars(NamedTuple):
    """Parameters of K stars, (K, 1) each."""

    theta: Float
    "5040 K / T, less that of 4250 K."
    gravity: Float
    "log g - 2."
    feh: Float
    "[Fe/H]."
    alpha_h: Float
    "[alpha/H]."


class Toy:
    """The toy on nodes like those of BOSZ; see `storage.simulation.stellar_grid.StellarGrid`."""

    physics = "toy"
    axes = (
        np.arange(3500.0, 7001.0, 250.0),
        np.arange(0.0, 5.01, 0.5),
        np.arange(-2.5, 0.76, 0.25),
        np.arange(-0.25, 0.51, 0.25),
    )
    there: NDArray[np.bool_] = np.ones([nodes.size for nodes in axes], bool)

    def spectra(self, nodes: Index, axis: Grid) -> Single:
        """Flux (K, M) of nodes by number."""
        at = np.unravel_index(nodes, self.there.shape)
        teff, logg, feh, alpha = (a[i] for a, i in zip(self.axes, at, strict=True))
        return spectra(teff, logg, feh, alpha, axis)


def spectra(teff: Float, logg: Float, feh: Float, alpha: Float, axis: Grid) -> Single:
    """Flux at the star, (K, M), in units of a 4250 K star's continuum at 8000 A.

    Parameters
    ----------
    teff, logg, feh, alpha : (K,) float64
        K; log10 of cm s-2; [Fe/H]; [alpha/M].
    axis : Grid
        Logarithmic, of steps below a line's width: 6 km/s.

    Examples
    --------
    >>> one = [np.array([value]) for value in (4000.0, 2.0, 0.0, 0.0)]
    >>> spectra(*one, Grid(kind="log", start=3.9, step=8e-6, size=500)).shape
    (1, 500)
    """
    stars = Stars(
        (5040.0 / teff - _THETA0)[:, None],
        (logg - 2.0)[:, None],
        feh[:, None],
        (feh + alpha)[:, None],
    )
    depth = _weak(stars, axis)
    _add_strong(depth, stars, axis)
    depth *= np.float32(-0.8)
    np.exp(depth, out=depth)
    depth *= np.float32(1 - _FLOOR)
    depth += np.float32(_FLOOR)
    depth *= np.exp(-_bands(teff, stars, axis))
    depth *= _planck(teff, axis)
    return depth


def _planck(teff: Float, axis: Grid) -> Single:
    """Planck's law per A, 1 at 8000 A and 4250 K."""
    x = (_HC_K / axis.wavelength).astype(np.float32) / teff[:, None].astype(np.float32)
    bend = (axis.wavelength / 8000.0) ** -5 * np.expm1(_HC_K / 8000.0 / 4250.0)
    return np.asarray(bend.astype(np.float32) / np.expm1(x))


def _weak(stars: Stars, axis: Grid) -> Single:
    """Optical depth of the lines without wings, (K, M)."""
    lines = stellar_lines.weak()
    abundance = np.where(lines.alpha, stars.alpha_h, stars.feh)
    # Neutral lines from low levels gain in the cool; all lose a little under pressure.
    warmth = (2.2 - 0.9 * np.minimum(lines.excitation, 5.0) / 2.0) * 1.3
    log_depth = lines.depth + 0.85 * abundance + warmth * stars.theta - 0.05 * stars.gravity
    return np.ascontiguousarray((_profiles(axis) @ (10.0**log_depth).astype(np.float32).T).T)


@lru_cache(maxsize=4)
def _profiles(axis: Grid) -> sparse.csr_array:
    """Profile of each weak line, 1 at its centre, (M, W)."""
    lines = stellar_lines.weak()
    step = axis.step * np.log(10) * C_KMS
    reach = int(np.ceil(4.0 * lines.width.max() / step))
    place = axis.pixel(lines.wavelength)[:, None]
    pixel = np.rint(place).astype(np.intp) + np.arange(-reach, reach + 1)
    values = np.exp(-0.5 * ((pixel - place) * step / lines.width[:, None]) ** 2)
    column = np.broadcast_to(np.arange(lines.depth.size)[:, None], pixel.shape)
    inside = (pixel >= 0) & (pixel < axis.size)
    entries = (values[inside].astype(np.float32), (pixel[inside], column[inside]))
    return sparse.coo_array(entries, shape=(axis.size, lines.depth.size)).tocsr()


def _add_strong(depth: Single, stars: Stars, axis: Grid) -> None:
    step = axis.step * np.log(10) * C_KMS
    reach = int(_WING_KMS / step)
    for number, line in enumerate(stellar_lines.STRONG):
        middle = round(float(axis.pixel(air_to_vacuum(line.air))))
        low, high = max(middle - reach, 0), min(middle + reach + 1, axis.size)
        if low < high:
            depth[:, low:high] += _voigt(number, line, (low, high), stars, axis)


def _voigt(number: int, line: Strong, part: tuple[int, int], stars: Stars, axis: Grid) -> Single:
    """Optical depth of one strong line, (K, high - low)."""
    of = {"alpha": stars.alpha_h, "iron": stars.feh, "hydrogen": np.zeros_like(stars.feh)}
    peak = line.depth + line.abundance * of[line.element]
    peak = peak + line.gravity * stars.gravity + line.warmth * stars.theta
    # Few damping parameters, many stars: the profile is what costs.
    damping = line.damping + line.damping_gravity * stars.gravity
    each, which = np.unique(damping.ravel(), return_inverse=True)
    shape = np.stack([_profile(number, part, float(value), axis) for value in each])
    return np.asarray((10.0**peak).astype(np.float32) * shape[which])


@lru_cache(maxsize=2000)
def _profile(number: int, part: tuple[int, int], damping: float, axis: Grid) -> Single:
    centre = float(axis.pixel(air_to_vacuum(stellar_lines.STRONG[number].air)))
    away = (np.arange(*part) - centre) * axis.step * np.log(10) * C_KMS
    gamma = 10.0**damping * _SIGMA_KMS * np.sqrt(2.0)
    whole = voigt_profile(away, _SIGMA_KMS, gamma) * (_SIGMA_KMS * np.sqrt(2 * np.pi))
    # Wings end smoothly where the line does.
    taper = np.cos(0.5 * np.pi * np.clip(np.abs(away) / _WING_KMS, 0.0, 1.0)) ** 2
    return np.asarray(whole * taper, dtype=np.float32)


def _bands(teff: Float, stars: Stars, axis: Grid) -> Single:
    """Optical depth of molecules, (K, M)."""
    cool = (3950.0 - teff[:, None]) / 330.0
    # Bands of real stars saturate where hardly a pixel is left between their lines.
    tio = _saturated(10.0 ** (cool + 0.8 * stars.alpha_h - 0.6), 4.0)
    vo = _saturated(10.0 ** (1.5 * cool + 0.8 * stars.alpha_h - 2.3), 2.0)
    cn = 0.06 * 10.0 ** (0.6 * stars.feh - 0.15 * stars.gravity + 0.8 * stars.theta)
    hydride = 0.25 * 10.0 ** (0.5 * stars.feh + 0.08 * stars.gravity + 2.0 * stars.theta)
    hydride = _saturated(hydride, 1.0)
    heads = _heads(axis)
    out: Single = tio.astype(np.float32) * heads[0]
    # Row by row and not as one product of matrices: its bits would depend on the number of rows.
    for strength, head in zip((vo, cn, hydride), heads[1:], strict=True):
        out += strength.astype(np.float32) * head
    return out


def _saturated(depth: Float, most: float) -> Float:
    shallow: Float = depth / (1 + depth / most)
    return shallow


@lru_cache(maxsize=4)
def _heads(axis: Grid) -> Single:
    """Shapes of the bands, (4, M): steps that fade, with unresolved lines in them."""
    molecules = (stellar_lines.TIO, stellar_lines.VO, stellar_lines.CN, stellar_lines.HYDRIDES)
    out = np.zeros((len(molecules), axis.size), np.float32)
    # Rotational lines: the same places on every axis, about one every 30 km/s.
    knots = np.arange(3.5, 4.05, 4.5e-5)
    for number, (row, molecule) in enumerate(zip(out, molecules, strict=True)):
        ripple = np.random.default_rng(20250402 + number).standard_normal(knots.size)
        for head, strength, length in molecule:
            beyond = np.sign(length) * (axis.wavelength - float(air_to_vacuum(head)))
            rise = 1 / (1 + np.exp(-np.clip(beyond / 0.8, -50, 50)))
            row += strength * rise * np.exp(-np.maximum(beyond, 0.0) / abs(length))
        wave = np.interp(np.log10(axis.wavelength), knots, ripple)
        row *= np.clip(1 + 0.4 * wave, 0.1, 3.0)
    return out
