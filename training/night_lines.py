"""Night lines: where the night sky is bright, and what is left of it cannot be trusted.

Found in the sky that SDSS took off 202 spectra of 14 plates: the median of the plates, less a
continuum (its 20th percentile over 151 pixels), summed over 7 pixels around each peak. Lines that
SDSS does not resolve are one. Wavelengths are heliocentric, as the files are: good to 1 A. Beyond
9220 A there is one plate.
"""

import numpy as np
from numpy.typing import NDArray

STRONGEST = (
    9314.4, 9325.5, 8829.7, 5579.1, 8922.2, 8768.7, 8765.9, 8888.5, 8347.1, 8960.6, 8779.9,
    8432.6, 8837.5, 8401.6, 7717.4, 8631.7, 8661.6, 7916.4, 8290.0, 8467.8, 7856.2, 9003.8,
    8300.5, 8284.6, 8905.8, 7243.9, 7753.1, 7995.7, 8354.4, 5891.8, 8945.9, 7921.2, 6302.3,
    7823.8, 8869.8, 7967.3, 7278.5, 8028.2, 8991.0, 7861.4, 8507.2, 7796.3, 7343.2, 5897.1,
    9052.3, 8417.7, 7318.4, 8454.8, 7892.0, 7872.3, 7371.6, 8384.6, 8793.7, 7526.7, 7981.5,
    7285.2, 7883.0, 7725.0, 8852.0, 6832.4, 8496.2, 6834.5, 6866.1, 8064.6, 7933.6, 9041.1,
    7761.9, 8551.2, 7404.1, 7601.2, 7573.9, 8017.0, 8313.2, 8366.7, 4359.6, 7811.0, 9105.0,
    7483.4, 7630.8, 6365.8, 5462.7, 7843.7, 7475.1, 7331.5, 7781.6, 7951.2, 9161.2, 5689.8,
    7360.8, 6951.2, 9157.5, 7531.0, 6925.3, 9294.5, 9227.1, 7306.1, 9096.0, 9220.5, 7255.2,
    6238.0,
)  # fmt: skip
"Wavelengths, vacuum A, brightest first, of 3784-9332 A."


def clear(wavelength: NDArray[np.float64], count: int, width: float) -> NDArray[np.bool_]:
    """Whether observed wavelengths (L,) are further than `width` from the `count` brightest lines.

    Parameters
    ----------
    wavelength : (L,) float64
        Vacuum A.
    count : int
        Up to 100.
    width : float
        A.
    """
    lines = np.array(STRONGEST[:count])
    found: NDArray[np.bool_] = (np.abs(wavelength[:, None] - lines) > width).all(axis=1)
    return found
