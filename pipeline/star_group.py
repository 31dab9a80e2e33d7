"""The group of stars of an input: its shape, and what it says of its numbers."""

from typing import Any

import numpy as np
import xarray as xr

from pipeline.flags import bits
from pipeline.inputs import Input
from pipeline.star_templates import StarTemplates
from pipeline.stars.flag import Flag
from storage.schema import LEDGER, Field, template


def _number(units: str, description: str, dtype: str = "f4") -> Field:
    return Field(dtype=dtype, units=units, description=description)


_AT_END = "one standard deviation; NaN at an end of the templates"
_FIELDS = {
    "velocity": _number("km/s", "c z, in the frame of the wavelengths"),
    "velocity_err": _number("km/s", "one standard deviation"),
    "teff": _number("K", "effective temperature"),
    "teff_err": _number("K", _AT_END),
    "logg": _number("dex", "log10 of the surface gravity in cm s-2"),
    "logg_err": _number("dex", _AT_END),
    "feh": _number("dex", "[Fe/H]"),
    "feh_err": _number("dex", _AT_END),
    "alpha_m": _number("dex", "[alpha/M]"),
    "alpha_m_err": _number("dex", _AT_END),
    "chi2": _number("1", "least chi square"),
    "pixels": _number("1", "pixels that counted", "u2"),
    "iterations": _number("1", "steps of the fit", "u2"),
    "flag": _number("1", "what to know of the star, bits", "u1"),
    **LEDGER,
}


def stars(n: int) -> xr.Dataset:
    """The shape of a group of stars of n rows; of values that are not there, which are NaN."""
    made = template(n, None, _FIELDS)
    for name, field in _FIELDS.items():
        if field.dtype == "f4":
            # Unlike a pixel, a star that was not measured is not zero.
            made[name].data = np.broadcast_to(np.float32(np.nan), n)
    made["flag"].attrs |= bits(Flag)
    return made


def about(given: Input, fitted: StarTemplates) -> dict[str, Any]:
    """Attributes that say what the numbers of a group are."""
    return {
        "start": given.alias,
        "templates": fitted.chosen.model_dump(mode="json"),
        "templates_digest": fitted.digest,
        "error_kind": "formal: from the ivar of the observed spectrum",
    }
