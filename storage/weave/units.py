"""The unit of DATA x SENSFUNC in WEAVE files, turned into a factor to the house unit."""

import re
import warnings
from functools import lru_cache

from storage.border import RefusedError
from storage.schema import FLUX_UNIT, Reason

PUBLISHED = "erg / (s cm2 Angstrom)"
"What the survey's data model and L2 software say."
_COUNTS = re.compile(r"\b(adu|dn|counts?|ct|electrons?)\b", re.IGNORECASE)


@lru_cache(maxsize=64)
def flux_scale(sensitivity: str | None, data: str | None, stated: str | None) -> float:
    """What DATA x SENSFUNC is multiplied by to be in 1e-17 erg s-1 cm-2 A-1.

    Parameters
    ----------
    sensitivity, data
        BUNIT of the two; blank or None where there is none. Counts drop out.
    stated
        What the card says of the product; BUNIT is asked when None.

    Raises
    ------
    RefusedError
        When the unit cannot be read, or is no flux density.
    """
    if stated:
        return _scale((stated,), f"survey.options.flux_unit is {stated!r}")
    if not sensitivity and (not data or _COUNTS.fullmatch(data)):
        return _scale((PUBLISHED,), "")
    said = f"BUNIT is {sensitivity!r} of SENSFUNC, {data!r} of DATA"
    return _scale((sensitivity or "", data or ""), said)


def _scale(factors: tuple[str, ...], said: str) -> float:
    from astropy import units

    try:
        found = units.CompositeUnit(1, [], [])
        with warnings.catch_warnings():
            # Of several slashes, and other ways of writing that are discouraged but clear.
            warnings.simplefilter("ignore", units.UnitsWarning)
            for text in factors:
                found = found * units.Unit(_COUNTS.sub("adu", text))
        kept = units.Unit(found.scale)
        for base, power in zip(found.bases, found.powers, strict=True):
            if base != units.adu:
                kept *= base**power
        return float(kept.to(units.Unit(FLUX_UNIT)))
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise RefusedError(
            Reason.BAD_UNITS,
            f"{said}: not a flux density; set survey.options.flux_unit to the unit of "
            f"DATA x SENSFUNC, such as '{PUBLISHED}'",
        ) from error
