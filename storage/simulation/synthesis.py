"""Galaxy spectra from their parameters: stars and gas, moved, broadened, reddened, on a grid.

Stars are summed, broadened and redshifted at once, in the Fourier space of log wavelength, where
a velocity is a phase and a dispersion a Gaussian; exact for any z and sigma, and never aliased.
Axes: N spectra, L pixels of the grid, M pixels of the fine axis, T templates, K frequencies.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from storage import dust
from storage.grid import Float, Grid
from storage.simulation import nebula, templates
from storage.simulation.instrument import C_KMS, Instrument
from storage.simulation.templates import Templates

Draw = dict[str, Float]
Single = NDArray[np.float32]

Z_MOST = 0.25
"Above it the blue end of the templates enters the observed range."
# The transform is periodic: these pixels of REST never see what wraps around.
_FIRST, _LAST = 2010, 12230
OBSERVED = Grid(
    kind="log",
    start=templates.REST.start + _FIRST * templates.REST.step,
    step=templates.REST.step,
    size=_LAST - _FIRST,
)
"The fine axis, observed frame: 3346-10851 A."
PIXEL_KMS = templates.REST.step * np.log(10) * C_KMS
GUIDE = Grid(kind="linear", start=4350.0, step=700.0, size=2)
"The two halves of g: what tells how bright an object is there, on whatever grid it is drawn."


def flux(
    draw: Draw, grid: Grid, instrument: Instrument, base: Templates
) -> tuple[Single, Float, Single]:
    """Flux (N, L) as the telescope sees it, without noise; line fluxes (N, 18); flux in g (N, 2).

    Parameters
    ----------
    draw : dict
        `storage.simulation.population.PARAMETERS`, (N,) each; weights, line_ratios, wiggles.
    grid : Grid
        Within `OBSERVED`.
    instrument : Instrument
        Whose line spread it is seen with.
    base : Templates
        That the weights are of.

    Returns
    -------
    flux, lines, guide
        House unit; lines x A, observed, before Galactic dust; mean flux over `GUIDE`.
    """
    _onto(grid)  # refuses a grid out of reach before anything is drawn
    fine = _stars(draw, instrument, base)
    fine *= _internal_dust(draw)
    lines = _line_fluxes(draw, fine)
    whole, guide = (_seen(fine, lines, draw, axis, instrument) for axis in (grid, GUIDE))
    return whole, lines, guide


def _seen(fine: Single, lines: Float, draw: Draw, grid: Grid, instrument: Instrument) -> Single:
    """Starlight on the fine axis, on a grid with all that is added there, (N, L)."""
    on = _onto(grid)
    out: Single = np.ascontiguousarray((on.rebin @ fine.T).T)
    waves = draw["wiggles"].astype(np.float32) @ on.smooth
    out *= 1 + waves
    _add_gas(out, grid, draw, lines, instrument)
    out *= np.exp(np.float32(-0.4 * np.log(10)) * draw["ebv"].astype(np.float32)[:, None] * on.dust)
    return out


@dataclass(frozen=True, kw_only=True)
class _Onto:
    """What is the same for every spectrum on one grid."""

    rebin: sparse.csr_array
    "(L, M) mean over each pixel."
    smooth: Single
    "(5, L) Legendre polynomials in log wavelength, unit rms."
    dust: Single
    "(L,) Galactic extinction, mag per E(B-V)."


@lru_cache(maxsize=8)
def _onto(grid: Grid) -> _Onto:
    if grid.edges[0] < OBSERVED.edges[0] or grid.edges[-1] > OBSERVED.edges[-1]:
        raise ValueError(
            f"grid {grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A: the mock reaches "
            f"{OBSERVED.edges[0]:.0f}-{OBSERVED.edges[-1]:.0f} A; take a grid within it"
        )
    axis = np.linspace(-1, 1, OBSERVED.size)
    place = np.interp(np.log10(grid.wavelength), np.log10(OBSERVED.wavelength), axis)
    degrees = [np.polynomial.Legendre.basis(k)(place) * np.sqrt(2 * k + 1) for k in range(1, 6)]
    return _Onto(
        rebin=_mean_over_pixels(grid) if _is_coarse(grid) else _between_pixels(grid),
        smooth=np.stack(degrees).astype(np.float32),
        dust=dust.curve("F99", grid.wavelength).astype(np.float32),
    )


def _mean_over_pixels(grid: Grid) -> sparse.csr_array:
    """Shares of fine pixels in each pixel of a grid: what conserves the integral of flux."""
    fine = OBSERVED.edges
    first = np.searchsorted(fine, grid.edges[:-1], side="right") - 1
    reach = int((np.searchsorted(fine, grid.edges[1:]) - first).max())
    columns = np.minimum(first[:, None] + np.arange(reach), OBSERVED.size - 1)
    low = np.maximum(fine[columns], grid.edges[:-1, None])
    overlap = np.clip(np.minimum(fine[columns + 1], grid.edges[1:, None]) - low, 0, None)
    share = overlap / overlap.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(grid.size), reach)
    matrix = sparse.coo_array(
        (share.ravel().astype(np.float32), (rows, columns.ravel())),
        shape=(grid.size, OBSERVED.size),
    ).tocsr()
    matrix.eliminate_zeros()
    return matrix


def _is_coarse(grid: Grid) -> bool:
    """Whether fine pixels are smaller than those of a grid everywhere."""
    return bool((grid.widths / (OBSERVED.step * np.log(10) * grid.wavelength)).min() > 1.1)


def _between_pixels(grid: Grid) -> sparse.csr_array:
    """Means over pixels that are about as small as fine ones: a polynomial through six of these.

    Starlight is broadened by 60 km/s or more, 1.7 fine pixels, and so has no power that it misses.
    """
    half = 0.5 / np.sqrt(3.0)  # the two nodes of Gauss
    rows, columns, shares = [], [], []
    for node in (-half, half):
        place = OBSERVED.pixel(grid.wavelength + node * grid.widths)
        first = np.clip(np.floor(place).astype(np.intp) - 2, 0, OBSERVED.size - 6)
        offset = place - first
        for k in range(6):
            others = [j for j in range(6) if j != k]
            share = np.prod([(offset - j) / (k - j) for j in others], axis=0)
            rows.append(np.arange(grid.size))
            columns.append(first + k)
            shares.append(0.5 * share.astype(np.float32))
    entries = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.coo_array(entries, shape=(grid.size, OBSERVED.size)).tocsr()


def _stars(draw: Draw, instrument: Instrument, base: Templates) -> Single:
    """Starlight on the fine axis, (N, M), house unit."""
    weights = draw["weights"] * draw["level"][:, None]
    changed = [weights, weights * draw["alpha_fe"][:, None], weights * draw["iron_h"][:, None]]
    spectrum = (np.concatenate(changed, axis=1).astype(np.float32) @ _transforms(base)).view(
        np.complex64
    )
    # Steps are sampled below: 2 pi f is the phase that one pixel of shift gives.
    omega = (2 * np.pi / templates.REST.size) * np.arange(spectrum.shape[1])
    sigma = draw["sigma_v"] / PIXEL_KMS
    spectrum *= np.exp((-0.5 * sigma**2).astype(np.float32)[:, None] * _f4(omega**2))
    spectrum *= _phases(np.log10(1 + draw["z"]) / templates.REST.step, spectrum.shape[1])
    sharp, blunt = (
        fft.irfft(spectrum * _f4(np.exp(-0.5 * (kms / PIXEL_KMS * omega) ** 2)), axis=1)
        for kms in _ends(instrument)
    )
    out: Single = sharp[:, _FIRST:_LAST]
    out += _bluntness(instrument) * (blunt[:, _FIRST:_LAST] - out)
    return out


@lru_cache(maxsize=2)
def _transforms(base: Templates) -> Single:
    """Fourier transforms of the templates and of their two derivatives, (3 T, 2 K) real pairs."""
    every = np.concatenate([base.flux, base.alpha, base.iron])
    return np.asarray(fft.rfft(every, axis=1).view(np.float32))


@lru_cache(maxsize=8)
def _ends(instrument: Instrument) -> tuple[float, float]:
    """The sharpest and the bluntest line spread, km/s.

    Spectra with either are mixed, so that the variance is right at every wavelength in between;
    the fourth moment is then right to a few per cent.
    """
    if instrument.broaden is not None:
        return instrument.broaden
    kms = instrument.lsf_kms(OBSERVED.wavelength)
    return float(kms.min()), max(float(kms.max()), 1.01 * float(kms.min()))


@lru_cache(maxsize=8)
def _bluntness(instrument: Instrument) -> Single:
    sharp, blunt = _ends(instrument)
    variance = instrument.lsf_kms(OBSERVED.wavelength) ** 2
    return _f4((variance - sharp**2) / (blunt**2 - sharp**2))


def _phases(shift: Float, size: int) -> NDArray[np.complex64]:
    """exp(-i omega_k shift), (N, K), from two short tables: sines are what costs."""
    step = 96
    turn = -2j * np.pi / templates.REST.size * shift[:, None]
    coarse = np.exp(turn * np.arange(0, size, step)).astype(np.complex64)
    small = np.exp(turn * np.arange(step)).astype(np.complex64)
    whole = (coarse[:, :, None] * small[:, None, :]).reshape(shift.size, -1)
    return np.asarray(whole[:, :size])


def _internal_dust(draw: Draw) -> Single:
    """Transmission of the galaxy's own dust on the fine axis, (N, M), 1 at 5500 A."""
    # The curve is smooth: a shift by whole fine pixels (17 km/s at most off) is exact enough.
    curve = np.lib.stride_tricks.sliding_window_view(_rest_dust(), OBSERVED.size)
    shift = np.rint(np.log10(1 + draw["z"]) / templates.REST.step).astype(np.intp)
    seen = curve[_FIRST - shift]
    return np.asarray(np.exp(_f4(-0.4 * np.log(10) * draw["ebv_internal"])[:, None] * seen))


@lru_cache(maxsize=1)
def _rest_dust() -> Single:
    return _f4(nebula.calzetti(templates.REST.wavelength))


def _line_fluxes(draw: Draw, fine: Single) -> Float:
    """Fluxes of the lines, (N, 18): Halpha by its equivalent width, the rest by ratio and dust."""
    rest = np.array(list(nebula.LINES.values()))
    continuum = _beside_halpha(fine, draw["z"])
    halpha = draw["ew_halpha"] * (1 + draw["z"]) * continuum
    curve = nebula.calzetti(rest) - nebula.calzetti(np.array([nebula.LINES["halpha"]]))
    # Gas lies in the dust that made it: Calzetti's E(B-V) of stars is 0.44 of it.
    seen = 10 ** (-0.4 * curve * draw["ebv_internal"][:, None] / 0.44)
    return np.asarray(halpha[:, None] * draw["line_ratios"] * seen)


def _beside_halpha(fine: Single, z: Float) -> Float:
    """Mean flux density on both sides of Halpha, (N,)."""
    rest = np.concatenate([np.arange(6480.0, 6530.0), np.arange(6600.0, 6650.0)])
    columns = np.rint(OBSERVED.pixel(rest * (1 + z[:, None]))).astype(np.intp)
    return np.asarray(np.take_along_axis(fine, columns, axis=1).mean(axis=1), dtype=np.float64)


def _add_gas(out: Single, grid: Grid, draw: Draw, lines: Float, instrument: Instrument) -> None:
    for number, (name, rest) in enumerate(nebula.LINES.items()):
        centre = rest * (1 + draw["z"]) * (1 + draw["velocity_gas"] / C_KMS)
        sigma = _seen_width(centre, draw["sigma_gas"], instrument)
        nebula.add_lines(out, grid, centre, sigma, lines[:, number])
        broad = np.flatnonzero(draw["sigma_broad"])
        if name in nebula.BALMER and broad.size:
            some = out[broad]
            sigma = _seen_width(centre[broad], draw["sigma_broad"][broad], instrument)
            # Five times the narrow flux, and never less than 30 A.
            factor = np.maximum(5.0, 30.0 / np.maximum(draw["ew_halpha"][broad], 0.1))
            nebula.add_lines(some, grid, centre[broad], sigma, factor * lines[broad, number])
            out[broad] = some


def _seen_width(centre: Float, kms: Float, instrument: Instrument) -> Float:
    """Sigma in A of a line of kms through the instrument."""
    return np.asarray(centre * np.hypot(kms, instrument.lsf_kms(centre)) / C_KMS)


def _f4(value: NDArray[np.floating[Any]]) -> Single:
    return value.astype(np.float32)
