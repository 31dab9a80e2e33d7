"""Galactic extinction: how much a unit of E(B-V) dims each wavelength.

Curves belong to the observer: they are applied in the observed frame, before any redshift is
taken out.
"""

from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from astropy import units
from numpy.typing import ArrayLike, NDArray

Law = Literal["F99", "CCM89", "O94"]
"Fitzpatrick 1999; Cardelli, Clayton & Mathis 1989; O'Donnell 1994."


def curve(law: Law, wavelength: ArrayLike, r_v: float = 3.1) -> NDArray[np.float64]:
    """Extinction in magnitudes per unit of E(B-V).

    Parameters
    ----------
    law : {'F99', 'CCM89', 'O94'}
        The published curve, as `dust_extinction` computes it.
    wavelength : (L,) float
        Observed, vacuum A.
    r_v : float
        A(V) / E(B-V).

    Returns
    -------
    (L,) float64
        k with A(wavelength) = k E(B-V): dereddened flux is flux x 10^(0.4 k E(B-V)).

    Raises
    ------
    ValueError
        When the law is unknown, or r_v or a wavelength is outside the range it is defined for.

    Examples
    --------
    >>> curve("F99", [5470.0]).round(2)
    array([3.05])
    """
    if law not in get_args(Law):
        raise ValueError(f"extinction law {law!r} is unknown; take one of {list(get_args(Law))}")
    axis = np.asarray(wavelength, dtype=np.float64)
    model = _model(law)
    _refuse(f"{law}: R(V)", np.asarray(r_v), model.Rv_range)
    reddest, bluest = (1e4 / x for x in model.x_range)
    _refuse(f"{law}: wavelength", axis, (bluest, reddest), " A")
    return np.asarray(model(Rv=r_v)(axis * units.AA) * r_v, dtype=np.float64)


@cache
def _model(law: Law) -> Any:
    # Untyped, and half a second to import: only who needs a curve pays.
    from dust_extinction import parameter_averages

    return getattr(parameter_averages, law)


def _refuse(
    what: str, value: NDArray[np.float64], allowed: tuple[float, float], unit: str = ""
) -> None:
    low, high = allowed
    outside = ~((value >= low) & (value <= high))
    if outside.any():
        raise ValueError(
            f"{what} {value[outside].flat[0]:g}{unit} is outside the law's range "
            f"{low:g}-{high:g}{unit}; crop to it, or take another law"
        )
