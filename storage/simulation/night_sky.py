"""The night sky over a fibre: a continuum and its lines, as a spectrograph sees them."""

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat
from scipy.special import ndtr

from storage.grid import Float, Grid

Curve = tuple[tuple[PositiveFloat, NonNegativeFloat], ...]
"Pairs of (A, value), ascending; linear in between and level beyond."

_CONTINUUM = (
    (3300, 9.0), (3800, 8.0), (4300, 7.2), (5000, 7.8), (5450, 7.0), (5800, 10.0), (6000, 10.8),
    (6250, 8.4), (7000, 6.4), (7500, 6.0), (8000, 7.2), (8500, 6.4), (9200, 8.0), (10900, 10.0),
)  # fmt: skip
# City lamps, airglow [O I] and sodium, and the bands of OH.
_LINES = (
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


class Sky(BaseModel):
    """Sky brightness in a 3 arcsec fibre; the defaults are those of SDSS files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    continuum: Curve = _CONTINUUM
    "Vacuum A, house unit."
    lines: Curve = _LINES
    "Vacuum A, peak over the continuum at the line spread of SDSS, house unit."
    factor: NonNegativeFloat = 1.0
    "On all of it: about 2.5 with the Moon up."

    def over(self, grid: Grid, areas: Float, sigma: Float) -> Float:
        """Brightness, (L,), before the factor: lines are averaged over each pixel.

        Parameters
        ----------
        areas, sigma : (lines,) float64
            House unit x A; A.
        """
        continuum = np.interp(grid.wavelength, *np.array(self.continuum).T)
        centre = np.array(self.lines)[:, 0]
        below = ndtr((grid.edges - centre[:, None]) / sigma[:, None])
        return np.asarray(continuum + areas @ np.diff(below, axis=1) / grid.widths)
