"""Ionised gas: which lines shine, how their strengths hang together, and how they are drawn.

Star-forming galaxies follow Pettini & Pagel (2004), so that N2 and O3N2 give the metallicity back;
retired and active ones the ratios of LINERs and Seyferts.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from storage.grid import Float, Grid
from storage.simulation.line_statistics import Strengths

LINES: dict[str, float] = {
    "oii3726": 3727.092, "oii3729": 3729.875, "neiii3869": 3869.857, "hdelta": 4102.892,
    "hgamma": 4341.684, "oiii4363": 4364.435, "hbeta": 4862.683, "oiii4959": 4960.295,
    "oiii5007": 5008.240, "hei5876": 5877.249, "oi6300": 6302.046, "nii6548": 6549.859,
    "halpha": 6564.614, "nii6584": 6585.268, "sii6716": 6718.294, "sii6731": 6732.678,
    "ariii7136": 7137.757, "siii9069": 9071.100,
}  # fmt: skip
"Names and rest wavelengths, vacuum A."
BALMER = ("halpha", "hbeta", "hgamma", "hdelta")
_REACH = 6.0
"Half width of a drawn line, in sigmas."


def ratios(
    rng: np.random.Generator,
    star_forming: NDArray[np.bool_],
    seyfert: NDArray[np.bool_],
    oh: Float,
    strengths: Strengths | None = None,
) -> Float:
    """Line fluxes over Halpha before any dust, (N, 18) in the order of `LINES`.

    strengths : of star-forming galaxies, if not those of the relations below.

    Notes
    -----
    Case B: 2.86, 1, 0.468, 0.259. Pettini & Pagel (2004): 12 + log(O/H) = 8.90 + 0.57 N2 (eq. 1)
    and 8.73 - 0.32 O3N2 (eq. 3).
    """

    def normal(mean: Float | float, width: float) -> Float:
        return np.asarray(mean + width * rng.standard_normal(oh.size))

    def of_kind(forming: Float, active: Float, retired: Float) -> Float:
        return np.where(star_forming, forming, np.where(seyfert, active, retired))

    n2_forming = normal((oh - 8.90) / 0.57, 0.06)
    o3_forming = (8.73 - oh) / 0.32 + normal(n2_forming, 0.09)
    n2 = of_kind(n2_forming, normal(-0.02, 0.12), normal(0.06, 0.12))
    o3 = of_kind(o3_forming, normal(0.85, 0.15), normal(0.32, 0.12))
    s2_forming, o2_forming = -0.42 - 0.25 * (oh - 8.6), 0.38 - 0.6 * (oh - 8.6)
    s2 = of_kind(normal(s2_forming, 0.07), normal(-0.25, 0.1), normal(-0.1, 0.1))
    o2 = of_kind(normal(o2_forming, 0.1), normal(0.4, 0.15), normal(0.55, 0.15))
    o1 = of_kind(normal(-1.55, 0.12), normal(-0.9, 0.15), normal(-0.75, 0.15))
    if strengths is not None:
        taken = (strengths.n2, strengths.o3, strengths.s2, strengths.o2)
        n2, o3, s2, o2 = (
            np.where(star_forming, new, old)
            for new, old in zip(taken, (n2, o3, s2, o2), strict=True)
        )
    doublet_s2, doublet_o2 = rng.uniform(1.1, 1.44, oh.size), rng.uniform(1.2, 1.45, oh.size)
    hbeta = 1 / 2.86
    oii, oiii, nii, sii = 10**o2 * hbeta, 10**o3 * hbeta, 10**n2, 10**s2
    by_name: dict[str, Float | float] = {
        "oii3726": oii / (1 + doublet_o2), "oii3729": oii * doublet_o2 / (1 + doublet_o2),
        "neiii3869": 0.08 * oiii, "hdelta": 0.259 * hbeta, "hgamma": 0.468 * hbeta,
        "oiii4363": 0.006 * oiii, "hbeta": hbeta, "oiii4959": oiii / 2.98, "oiii5007": oiii,
        "hei5876": 0.036, "oi6300": 10**o1, "nii6548": nii / 2.94, "halpha": 1.0, "nii6584": nii,
        "sii6716": sii * doublet_s2 / (1 + doublet_s2), "sii6731": sii / (1 + doublet_s2),
        "ariii7136": 0.025 + 0.012 * oiii, "siii9069": normal(0.09, 0.01),
    }  # fmt: skip
    return np.stack([np.broadcast_to(by_name[line], oh.shape) for line in LINES], axis=1)


def add_lines(
    flux: NDArray[np.float32], grid: Grid, centre: Float, sigma: Float, total: Float
) -> None:
    """Add one Gaussian, averaged over each pixel, to every spectrum; in place.

    Parameters
    ----------
    flux : (N, L) float32
        Flux density, per A.
    centre, sigma : (N,) float64
        Observed, vacuum A.
    total : (N,) float64
        Flux of the whole line.
    """
    # Columns of a window that holds the widest line; they are the same number for every spectrum.
    first = np.floor(grid.pixel(centre - _REACH * sigma)).astype(np.intp)
    last = np.ceil(grid.pixel(centre + _REACH * sigma)).astype(np.intp)
    columns = first[:, None] + np.arange(int((last - first).max()) + 1)
    edges = np.clip(np.concatenate([columns, columns[:, -1:] + 1], axis=1), 0, grid.size)
    below = ndtr((grid.edges[edges] - centre[:, None]) / sigma[:, None])
    inside = (columns >= 0) & (columns < grid.size)
    columns = np.clip(columns, 0, grid.size - 1)
    share = np.where(inside, np.diff(below, axis=1) / grid.widths[columns], 0.0)
    # A pixel off the grid has share 0, and only there may a column be listed twice.
    rows = np.broadcast_to(np.arange(centre.size)[:, None], columns.shape)
    np.add.at(flux, (rows, columns), (total[:, None] * share).astype(np.float32))


def calzetti(wavelength: Float) -> Float:
    """A/E(B-V) of dust inside a galaxy, (L,), rest-frame A (Calzetti et al. 2000, eq. 4).

    Examples
    --------
    >>> float(calzetti(np.array([5500.0]))[0].round(1))
    4.0
    """
    x = 1e4 / wavelength
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    # As published the branches miss each other by 0.025 at 6300 A: a step that no galaxy has.
    share = 1 / (1 + np.exp((wavelength - 6300.0) / 100.0))
    return np.asarray(share * blue + (1 - share) * red)
