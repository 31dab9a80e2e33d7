"""Units of DESI files, turned into factors to house units."""

from functools import lru_cache

from storage.border import RefusedError
from storage.schema import FLUX_UNIT, IVAR_UNIT, Reason


def flux_scale(text: str | None, name: str) -> float:
    """What flux is multiplied by.

    Raises
    ------
    RefusedError
        When the unit is missing or another quantity's.
    """
    if not text:
        raise _refused(f"{name} has no BUNIT, expected 10**-17 erg/(s cm2 Angstrom)")
    return _scale(text, FLUX_UNIT, name)


def ivar_scale(text: str | None, name: str, flux: float) -> float:
    """What ivar is multiplied by; without a unit it goes with that of flux.

    Raises
    ------
    RefusedError
        When the unit is another quantity's.
    """
    return _scale(text, IVAR_UNIT, name) if text else flux**-2


def angstroms(text: str | None, name: str) -> float:
    """What wavelengths are multiplied by; without a unit they are A.

    Raises
    ------
    RefusedError
        When the unit is another quantity's.
    """
    return _scale(text, "Angstrom", name) if text else 1.0


@lru_cache(maxsize=64)
def _scale(text: str, unit: str, name: str) -> float:
    from astropy import units

    try:
        # "10**-17" is not FITS, but astropy's own text reads it, and so does DESI.
        scale = float(units.Unit(text).to(units.Unit(unit)))
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise _refused(f"{name} has BUNIT {text!r}, expected as {unit!r}: {error}") from error
    # 1e-17 of two texts may differ in the last bit: that is no other unit.
    return 1.0 if abs(scale - 1) < 1e-12 else scale


def _refused(words: str) -> RefusedError:
    return RefusedError(Reason.BAD_UNITS, f"{words}; fetch the file again, or correct its header")
