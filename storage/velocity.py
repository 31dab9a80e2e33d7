"""The velocity of the observatory: what a header says of it, and what astropy computes offline.

Velocities are what is added to a measured one (as `SkyCoord.radial_velocity_correction` gives
them): positive when the observatory moves towards the source.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Cards = Mapping[str, Any]
Frame = Literal["heliocentric", "barycentric", "topocentric"]
Site = tuple[float, float, float]

C_KMS = 299792.458
"Speed of light, km/s."

_FRAMES: dict[str, Frame] = {
    **{"HELIOCEN": "heliocentric", "BARYCENT": "barycentric", "TOPOCENT": "topocentric"},
    **{"HELIOCENTRIC": "heliocentric", "BARYCENTRIC": "barycentric"},
    **{"TOPOCENTRIC": "topocentric"},
}
_LONGITUDE = ("LONGITUD", "LONG_OBS", "OBSGEO-L", "SITELONG", "LONG-OBS", "OBSLONG")
_LATITUDE = ("LATITUDE", "LAT_OBS", "OBSGEO-B", "SITELAT", "LAT-OBS", "OBSLAT")
_HEIGHT = ("ALT_OBS", "OBSGEO-H", "ALTITUDE", "SITEELEV", "SITEALT", "ALT-OBS", "OBSALT")
_MIDDLE = ("MJD-MID", "MJDMID", "MJD_MID", "MJD-AVG", "DATE-AVG", "DATE-MID", "DATEMID")
_BEGIN = ("MJD-BEG", "MJD-OBS", "MJD_OBS", "UTMJD", "DATE-BEG", "DATE-OBS")
_END = ("MJD-END", "DATE-END")
_EXPOSURE = ("EXPTIME", "EXPOSURE", "TOTALEXP", "EXPOSED", "ITIME")


def to_heliocentric(wavelength: ArrayLike, velocity_kms: ArrayLike) -> Float:
    """Wavelengths seen from the Sun, of those seen from an observatory.

    wavelength : (L,) in any unit; velocity_kms : what is added to a measured velocity, km/s.

    Examples
    --------
    >>> float(to_heliocentric(5000.0, 29.9792458))
    5000.5
    """
    factor = 1.0 + np.asarray(velocity_kms, dtype=np.float64) / C_KMS
    return np.asarray(np.asarray(wavelength, dtype=np.float64) * factor)


def frame(cards: Cards) -> Frame | None:
    """The frame of the wavelengths, where a header says it: SPECSYS, else HELIO true or false."""
    said = str(cards.get("SPECSYS", "")).strip().upper()
    if said in _FRAMES:
        return _FRAMES[said]
    helio = cards.get("HELIO")
    if isinstance(helio, bool | np.bool_):
        return "heliocentric" if helio else "topocentric"
    return None


def stated(cards: Cards, keyword: str) -> float | None:
    """The correcting velocity in a header, km/s; None where there is none.

    Surveys write it with either sign (HELIO_RV of LAMOST is what was subtracted), so its name is
    never guessed: ``-HELIO_RV`` takes it with the other sign.
    """
    found = _number(cards, (keyword.removeprefix("-").upper(),))
    return -found if found is not None and keyword.startswith("-") else found


def site(cards: Cards) -> Site | None:
    """East longitude and latitude (deg) and height (m) of the observatory, from a header."""
    longitude, latitude = _number(cards, _LONGITUDE), _number(cards, _LATITUDE)
    if longitude is None or latitude is None or abs(longitude) > 360 or abs(latitude) > 90:
        return None
    # 1 km of height is 7 cm/s: one that is not written, or absurd, is not missed.
    height = _number(cards, _HEIGHT) or 0.0
    return longitude, latitude, height if abs(height) < 1e4 else 0.0


def middle(cards: Cards, keyword: str = "") -> float | None:
    """The middle of the exposure, MJD (UTC); None where a header does not say it.

    From a keyword of the middle, else begin and end, else begin and exposure time.
    keyword : the only one to look for, of the middle.
    """
    found = _time(cards, (keyword.upper(),) if keyword else _MIDDLE)
    if found is not None or keyword:
        return found
    begin, end, seconds = _time(cards, _BEGIN), _time(cards, _END), _number(cards, _EXPOSURE)
    if begin is None:
        return None
    if end is not None and end >= begin:
        return (begin + end) / 2
    return None if seconds is None else begin + seconds / 86400 / 2


def computed(
    ra: ArrayLike, dec: ArrayLike, mjd: ArrayLike, at: Site, kind: Frame = "heliocentric"
) -> Float:
    """The correcting velocity, (N,) km/s, by astropy, without a download.

    Parameters
    ----------
    ra, dec : (N,) float
        ICRS, deg.
    mjd : (N,) or number
        Middle of the exposure, UTC.
    at : tuple
        East longitude and latitude, deg, and height, m.

    Raises
    ------
    ValueError
        When a coordinate is off the sphere.
    """
    from astropy import units as u
    from astropy.coordinates import EarthLocation, SkyCoord
    from astropy.time import Time

    with offline():
        place = EarthLocation.from_geodetic(at[0] * u.deg, at[1] * u.deg, at[2] * u.m)
        found = SkyCoord(ra=ra, dec=dec, unit="deg").radial_velocity_correction(
            kind, obstime=Time(mjd, format="mjd", scale="utc"), location=place
        )
        return np.asarray(found.to_value(u.km / u.s), dtype=np.float64)


@contextmanager
def offline() -> Iterator[None]:
    """Within it astropy downloads nothing: the Earth's rotation as it shipped, good to 1 m/s."""
    from astropy.utils import iers

    with (
        warnings.catch_warnings(),
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


def _number(cards: Cards, keywords: tuple[str, ...]) -> float | None:
    for keyword in keywords:
        try:
            found = float(cards[keyword])
        except (KeyError, TypeError, ValueError):
            continue
        if np.isfinite(found):
            return found
    return None


def _time(cards: Cards, keywords: tuple[str, ...]) -> float | None:
    for keyword in keywords:
        found = mjd(cards.get(keyword))
        if found is not None:
            return found
    return None


def mjd(value: Any) -> float | None:
    """MJD of a number (MJD, or JD) or of a date with time as FITS writes it; None otherwise."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return _date(value)
    number -= 2400000.5 if number > 2400000.5 else 0
    return number if 0 < number < _LATEST else None


def _date(value: Any) -> float | None:
    text = str(value).strip()
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*)?Z?", text):
        return None
    try:
        return float((np.datetime64(text.rstrip("Z"), "us") - _EPOCH) / np.timedelta64(1, "D"))
    except ValueError:
        return None


_LATEST = 200000.0  # MJD, in the year 2406
_EPOCH = np.datetime64("1858-11-17T00:00:00", "us")
