"""Units of a spectrum, made the house's: vacuum A, heliocentric, 1e-17 erg s-1 cm-2 A-1."""

import re
import warnings
from typing import Any, Literal

import numpy as np

from storage.border import RefusedError
from storage.grid import air_to_vacuum
from storage.schema import FLUX_UNIT, Reason
from storage.table.options import Kind, Options
from storage.table.spectra import Cards, Float, Spectra
from storage.velocity import Frame
from storage.velocity import frame as said_frame

RELATIVE = "relative"
_VACUUM_BELOW = 2000.0
"A; shortward of it wavelengths are in vacuum by convention."

# Spellings that astropy does not know, or knows as something else (A is ampere).
_SPELLINGS = (
    (r"\bang(strom)?s?\b", "Angstrom"),
    (r"\bA\b", "Angstrom"),
    (r"\bergs\b", "erg"),
    (r"\bseconds?\b|\bsec\b", "s"),
    (r"\bmicrons?\b", "um"),
    (r"\bnanometers?\b", "nm"),
    (r"^10\s*(?:\^|\*\*)?\s*\(?(-\d+)\)?", r"1e\1 "),
)


def unit(text: str, option: str) -> Any:
    """The unit that astropy reads in a text.

    Raises
    ------
    RefusedError
        When there is none, naming the option that tells it.
    """
    from astropy import units as u

    plain = text.strip()
    if not plain:
        raise RefusedError(Reason.BAD_UNITS, f"the file has no unit; set survey.options.{option}")
    for spelling, name in _SPELLINGS:
        flags = re.NOFLAG if spelling == r"\bA\b" else re.IGNORECASE
        plain = re.sub(spelling, name, plain, flags=flags)
    try:
        with warnings.catch_warnings():
            # "erg/s/cm^2" means what surveys mean by it, whatever the FITS standard prefers.
            warnings.simplefilter("ignore")
            found = u.Unit(plain)
    # Its parser raises anything on damaged text.
    except Exception:
        found = None
    if not isinstance(found, u.UnitBase):
        raise RefusedError(
            Reason.BAD_UNITS,
            f"unit {text!r} is none that astropy reads, or is logarithmic; set "
            f"survey.options.{option}",
        )
    return found


def angstrom(spectra: Spectra, options: Options) -> Float:
    """Wavelengths in A, of the medium and frame of the file; (L,) or (N, L).

    Raises
    ------
    RefusedError
        When the unit is missing, or is none of length, frequency or energy.
    """
    from astropy import units as u

    values = spectra.wavelength
    if spectra.scale != "linear":
        values = 10.0**values if spectra.scale == "log10" else np.exp(values)
    found = unit(options.wavelength_unit or spectra.wavelength_unit, "wavelength_unit")
    try:
        return np.asarray((values * found).to_value(u.AA, u.spectral()), dtype=np.float64)
    except (u.UnitsError, TypeError):
        raise RefusedError(
            Reason.BAD_UNITS,
            f"wavelengths are in {found}, which is no length; set survey.options.wavelength_unit",
        ) from None


def flux_factor(spectra: Spectra, options: Options, wavelength: Float) -> Float:
    """What the file's flux is multiplied by, of the shape of the wavelengths (A).

    Raises
    ------
    RefusedError
        When the unit is missing or is none of flux density.
    """
    text = options.flux_unit or spectra.flux_unit
    if text == RELATIVE:
        return np.ones_like(wavelength)
    return _density(unit(text, "flux_unit"), wavelength)


def _density(found: Any, wavelength: Float) -> Float:
    from astropy import units as u

    try:
        return np.asarray(
            (np.ones_like(wavelength) * found).to_value(
                u.Unit(FLUX_UNIT), u.spectral_density(wavelength * u.AA)
            )
        )
    except (u.UnitsError, TypeError):
        raise RefusedError(
            Reason.BAD_UNITS,
            f"flux is in {found}, which is no flux density; set survey.options.flux_unit to its "
            f"unit, or to {RELATIVE!r} to keep the numbers",
        ) from None


def ivar(spectra: Spectra, options: Options) -> Float:
    """Inverse variance (N, L) of the flux in the file's unit; 0 where there is no data.

    What is negative stays so: the border says it.

    Raises
    ------
    RefusedError
        When there is no uncertainty, or its unit is not that of the flux.
    """
    if spectra.uncertainty is None or spectra.kind is None:
        raise RefusedError(
            Reason.BAD_UNITS,
            "no uncertainty; name it in survey.options.uncertainty, or set survey.options.error "
            "to 'estimate'",
        )
    values, kind = spectra.uncertainty, spectra.kind
    with np.errstate(all="ignore"):
        if kind == "ivar":
            found = values.copy()
        elif kind == "variance":
            found = np.where(values == 0, 0, 1 / values)
        else:
            found = np.where(values > 0, 1 / values**2, 0)
    return np.asarray(found / _sigma_factor(spectra, options, kind) ** 2)


def _sigma_factor(spectra: Spectra, options: Options, kind: Kind) -> float:
    """One sigma's unit over the flux's."""
    from astropy import units as u

    text = options.uncertainty_unit or spectra.uncertainty_unit
    flux = options.flux_unit or spectra.flux_unit
    if text in ("", "same") or flux == RELATIVE:
        return 1.0
    power = {"std": 1.0, "variance": 0.5, "ivar": -0.5}[kind]
    found, of_flux = unit(text, "uncertainty_unit") ** power, unit(flux, "flux_unit")
    try:
        return float(found.to(of_flux))
    except (u.UnitsError, TypeError):
        raise RefusedError(
            Reason.BAD_UNITS,
            f"uncertainty ({kind}) is in {text}, flux in {flux}: not of one kind; set "
            "survey.options.uncertainty_unit, 'same' for what follows from the flux's",
        ) from None


def estimated_ivar(flux: Float) -> Float:
    """Inverse variance (N, L) of one noise for each spectrum, from differences of its pixels.

    Pixels that are 0 or not finite are no data; a spectrum without noise has none at all.

    Notes
    -----
    DER_SNR (Stoehr et al. 2008): 1.482602 / sqrt(6) median |2 f_i - f_(i-2) - f_(i+2)|.
    """
    good = np.isfinite(flux) & (flux != 0)
    curve = np.abs(2 * flux[:, 2:-2] - flux[:, :-4] - flux[:, 4:])
    whole = good[:, 2:-2] & good[:, :-4] & good[:, 4:]
    found = np.zeros_like(flux)
    for row in np.flatnonzero(whole.any(axis=1)):
        noise = 1.482602 / np.sqrt(6) * np.median(curve[row, whole[row]])
        if noise > 0:
            found[row, good[row]] = 1 / noise**2
    return found


def medium(cards: Cards, options: Options) -> Literal["air", "vacuum"]:
    """Air or vacuum, as the options or the header say.

    Raises
    ------
    RefusedError
        When neither does.
    """
    if options.medium != "header":
        return options.medium
    vacuum = str(cards.get("VACUUM", "")).strip().upper()
    if vacuum in ("TRUE", "T", "1", "YES"):
        return "vacuum"
    if vacuum in ("FALSE", "F", "0", "NO"):
        return "air"
    said = str(cards.get("AIRORVAC", cards.get("MEDIUM", ""))).strip().lower()
    kind = str(cards.get("CTYPE1", "")).strip().upper()
    if said.startswith("vac") or kind in ("WAVE", "WAVE-LOG"):
        return "vacuum"
    if said.startswith("air") or kind in ("AWAV", "AWAV-LOG"):
        return "air"
    if options.medium_unsaid:
        return options.medium_unsaid
    raise RefusedError(
        Reason.BAD_UNITS,
        "the header does not say whether wavelengths are in air or in vacuum; set "
        "survey.options.medium",
    )


def frame(cards: Cards, options: Options) -> Frame:
    """The frame of the wavelengths, as the options or the header say.

    Raises
    ------
    RefusedError
        When neither does.
    """
    if options.frame != "header":
        return options.frame
    found = said_frame(cards) or options.frame_unsaid
    if not found:
        raise RefusedError(
            Reason.BAD_UNITS,
            "the header does not say whether wavelengths are heliocentric; set "
            "survey.options.frame",
        )
    return found


def vacuum(wavelength: Float, of: Literal["air", "vacuum"]) -> Float:
    """Vacuum A of wavelengths in A."""
    if of == "vacuum":
        return wavelength
    with np.errstate(all="ignore"):
        return np.where(wavelength > _VACUUM_BELOW, air_to_vacuum(wavelength), wavelength)
