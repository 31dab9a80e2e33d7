"""Precision: the bits of a spectrum that its noise justifies.

Lossless is the default. Rounded to the noise, flux keeps steps of at most an eighth of sigma, so
that rounding adds at most 1/768 of its variance, and zeros for the compressor to take.
"""

from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Precision = Literal["lossless", "noise"]

STEP = 0.125
"Largest step of flux, in sigma of its pixel."
_IVAR_BITS = 8  # of 23: sigma to 0.1 %

Single = NDArray[np.float32]


def rounded(ds: xr.Dataset, precision: Precision) -> xr.Dataset:
    """Spectra with no more bits than asked for; changed in place, and given back.

    Parameters
    ----------
    ds : Dataset
        With `flux`, `model` and `ivar`, (N, L) float32.

    Notes
    -----
    Steps are powers of two, the largest that is not above `STEP` sigma: flux stays exact where the
    compressor counts. The survey's best fit has the same steps, and ivar 8 bits. Where ivar is 0
    nothing changes.
    """
    if precision == "noise":
        ivar = ds["ivar"].to_numpy()
        step = _step(ivar)
        for name in ("flux", "model"):
            values = ds[name].to_numpy()
            values[:] = np.where(ivar > 0, np.rint(values / step) * step, values)
        ivar[:] = _keep_bits(ivar, _IVAR_BITS)
    return ds


def _step(ivar: Single) -> Single:
    """The largest power of two that is at most STEP sigma; 1 where there is no data."""
    with np.errstate(divide="ignore"):
        widest = np.where(ivar > 0, STEP / np.sqrt(ivar), 1).astype(np.float32)
    _, exponent = np.frexp(widest)
    found: Single = np.ldexp(np.float32(1), exponent - 1)
    return found


def _keep_bits(values: Single, bits: int) -> Single:
    """Values rounded to so many bits of the mantissa, half to even."""
    mantissa, exponent = np.frexp(values)
    scale = np.float32(1 << (bits + 1))
    kept: Single = np.ldexp(np.rint(mantissa * scale) / scale, exponent).astype(np.float32)
    return kept
