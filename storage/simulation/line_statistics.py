"""How the emission lines of star-forming galaxies hang together in DESI: means and covariance.

Fitted to public rest equivalent widths of ten lines in 12,000 DESI galaxies at 0.06 < z < 0.3: to
the 6,374 with S/N above 5 in Halpha and Hbeta and 3 in [N II] that lie below the line of Kauffmann
et al. (2003). Measurement errors are taken out of the covariance. The means, the scatter of EW and
the last row of the correlations are set by hand, on the same galaxies, so that the mock's widths
look like the observed ones through the same errors and cuts.
"""

from typing import NamedTuple

import numpy as np

from storage.grid import Float

# log10 of: EW Halpha (A); [N II] 6584 / Halpha; [O III] 5007 / Hbeta; [S II] / Halpha;
# [O II] / Hbeta. The last is of fluxes before dust: its mean is set so that the EWs are right.
_MEAN = np.array([1.43, -0.49, -0.37, -0.47, 0.57])
_SCATTER = np.array([0.27, 0.170, 0.330, 0.090, 0.160])
_CORRELATION = np.array([
    [1.000, -0.455, 0.462, -0.182, 0.250],
    [-0.455, 1.000, -0.866, -0.135, -0.700],
    [0.462, -0.866, 1.000, 0.325, 0.820],
    [-0.182, -0.135, 0.325, 1.000, 0.520],
    [0.250, -0.700, 0.820, 0.520, 1.000],
])  # fmt: skip
_HOLD = 0.8
"Correlation of log EW with young light, and of [N II] / Halpha with the metallicity of the gas."


class Strengths(NamedTuple):
    """Logarithms of line strengths, (N,) each."""

    ew_halpha: Float
    n2: Float
    o3: Float
    s2: Float
    o2: Float

    @property
    def oh(self) -> Float:
        """12 + log(O/H) of Pettini & Pagel (2004), eq. 3: what these lines mean."""
        return np.asarray(8.73 - 0.32 * (self.o3 - self.n2))


def draw(rng: np.random.Generator, young: Float, metal: Float) -> Strengths:
    """Joint line strengths that follow two standardised properties, (N,), of the galaxies.

    young : light of young stars, of mean 0 and variance 1; metal : likewise, gas metallicity.
    """
    free = rng.standard_normal((5, young.size))
    for row, leader in ((0, young), (1, metal)):
        free[row] = _HOLD * leader + np.sqrt(1 - _HOLD**2) * free[row]
    values = np.linalg.cholesky(_CORRELATION) @ free
    return Strengths(*(_MEAN[:, None] + _SCATTER[:, None] * np.clip(values, -3.5, 3.5)))
