"""What is known of each spectrum besides its pixels: from a catalogue, its table, its header."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.border import RefusedError
from storage.schema import COLUMNS, ObjectType, Reason
from storage.table.options import Options
from storage.table.spectra import Spectra
from storage.velocity import Frame, computed, middle, mjd, site, stated

Values = dict[str, Any]
Entry = Mapping[str, Any]

USUAL: dict[str, tuple[str, ...]] = {
    "ra": ("RA", "PLUG_RA", "TARGET_RA", "RA_OBJ", "OBJRA", "RA_TARG", "RAJ2000", "ALPHA_J2000"),
    "dec": (
        "DEC",
        "PLUG_DEC",
        "TARGET_DEC",
        "DEC_OBJ",
        "OBJDEC",
        "DEC_TARG",
        "DEJ2000",
        "DECJ2000",
    ),
    "z": ("Z", "REDSHIFT", "Z_HELIO", "ZHELIO", "Z_BEST", "ZBEST"),
    "z_err": ("Z_ERR", "ZERR", "REDSHIFT_ERR", "Z_ERROR"),
    "zwarn": ("ZWARN", "ZWARNING"),
    "class": ("CLASS", "SPECTYPE"),
    "subclass": ("SUBCLASS", "SUBTYPE"),
    "target_id": ("TARGETID", "TARGET_ID", "OBJID", "OBJECT_ID", "OBJECT", "OBJNAME", "NAME"),
    "observation": ("OBSERVATION", "OBS_ID", "OBSID", "SPEC_ID", "SPECID"),
    "survey": ("SURVEY",),
    "mjd": ("MJD", "MJD-OBS", "MJD_OBS", "MJD-AVG", "UTMJD", "DATE-OBS"),
    "ebv": ("EBV", "E_BV", "E(B-V)"),
    "vdisp": ("VDISP", "SIGMA_STARS"),
    "object_type": ("OBJ_TYPE", "OBJTYPE", "OBSTYPE", "TARGTYPE"),
}
"Our variable, and the keywords or columns that usually hold it; in capitals."

_MISSING = -99.0
"What surveys write for no number: -99, -999, -9999."


def values(spectra: Spectra, options: Options, entries: list[Entry]) -> list[Values]:
    """Variables of `storage.schema.COLUMNS` of each spectrum, those that are known.

    entries : row of the catalogue for each spectrum; empty where there is none.

    Raises
    ------
    RefusedError
        When positions are of another equinox.
    """
    cards = spectra.cards
    if "B1950" in str(cards.get("EQUINOX")) or _float(cards.get("EQUINOX")) == 1950:
        raise RefusedError(
            Reason.BAD_POSITION,
            "positions are of equinox 1950, expected ICRS; set survey.options.catalog to a table "
            "of positions and remove EQUINOX",
        )
    found = []
    for row, entry in enumerate(entries):
        own = {name: column[row] for name, column in spectra.columns.items()}
        found.append(_row((entry, own, cards), options))
    return found


def _row(places: tuple[Entry, ...], options: Options) -> Values:
    found: Values = {"survey": options.survey} if options.survey else {}
    for name in USUAL:
        value = _first(places, names(name, options))
        if value is None:
            continue
        if name in ("ra", "dec"):
            # A catalogue is made for this: in degrees, whatever the files are in.
            listed = _first(places[:1], names(name, options)) is not None
            found[name] = _angle(name, value, "deg" if listed else options.angle)
        elif name == "object_type":
            found[name] = _object_type(_text(value), options)
        elif name == "mjd":
            found[name] = _or_nan(mjd(_text(value)))
        elif COLUMNS[name].dtype == "str":
            found[name] = _text(value)
        else:
            found[name] = _number(value)
    if np.isfinite(found.get("ebv", np.nan)):
        found["ebv_known"] = 1
    else:
        found |= {"ebv": 0.0, "ebv_known": 0}
    warned = np.nan_to_num(found.get("zwarn", 0))
    found["zwarn"] = int(np.clip(warned, -(2**31), 2**31 - 1))
    return found


def names(name: str, options: Options) -> tuple[str, ...]:
    """Where a variable may be found: what the options say, then the usual places."""
    asked = options.columns.get(name, ())
    listed = (asked,) if isinstance(asked, str) else asked
    return (*(each.upper() for each in listed), *USUAL[name])


def _first(places: tuple[Entry, ...], keys: tuple[str, ...]) -> Any:
    for place in places:
        for key in keys:
            value = place.get(key)
            if value is not None and value is not np.ma.masked and _text(value) != "":
                return value
    return None


def _text(value: Any) -> str:
    found = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return found.strip().strip("\0")


def _float(value: Any) -> float:
    try:
        return float(_text(value))
    except (TypeError, ValueError):
        return float("nan")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _number(value: Any) -> float:
    found = _float(value)
    return float("nan") if found <= _MISSING else found


def _angle(name: str, value: Any, unit: str) -> float:
    """Degrees of a number in a unit, or of hh:mm:ss (dd:mm:ss) in a text."""
    parts = re.fullmatch(r"([+-]?)(\d+)[: ](\d+)[: ](\d+(?:\.\d*)?)", _text(value))
    if parts:
        size = sum(float(parts[n]) / 60 ** (n - 2) for n in (2, 3, 4))
        return float((-size if parts[1] == "-" else size) * (15 if name == "ra" else 1))
    found = _float(value)
    if unit == "rad":
        return float(np.degrees(found))
    return found * 15 if unit == "hour" and name == "ra" else found


def _object_type(text: str, options: Options) -> ObjectType:
    kind = text.upper()
    if kind in (each.upper() for each in options.sky):
        return ObjectType.SKY
    if kind in (each.upper() for each in options.standard):
        return ObjectType.STANDARD
    return ObjectType.SCIENCE


def velocities(
    spectra: Spectra, options: Options, frame: Frame, rows: list[Values]
) -> NDArray[np.float64]:
    """The velocity (N,) km/s that makes wavelengths heliocentric; 0 where they are.

    Raises
    ------
    RefusedError
        When it is neither in the header nor can be computed: names what is missing.
    """
    if frame != "topocentric":
        return np.zeros(len(rows))
    if options.velocity:
        said = stated(spectra.cards, options.velocity)
        if said is None:
            raise _unknown(f"no velocity {options.velocity!r} in the header", "velocity")
        return np.full(len(rows), said)
    place, time = options.site or site(spectra.cards), middle(spectra.cards, options.time)
    if place is None:
        raise _unknown("no longitude and latitude of the observatory in the header", "site")
    if time is None:
        raise _unknown("no time in the header: middle, or begin and exposure", "time")
    ra, dec = (np.array([row.get(name, np.nan) for row in rows]) for name in ("ra", "dec"))
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    found = np.zeros(len(rows))
    if good.any():
        found[good] = computed(ra[good], dec[good], time, place)
    return found


def _unknown(what: str, option: str) -> RefusedError:
    return RefusedError(
        Reason.BAD_UNITS,
        f"wavelengths are topocentric and cannot be made heliocentric: {what}; set "
        f"survey.options.{option}",
    )


def entries(path: str, root: str, options: Options, rows: range, many: bool) -> list[Entry]:
    """The row of the catalogue for each spectrum of a file; empty where it has none."""
    if not options.catalog:
        return [{} for _ in rows]
    listed = catalog(options, root)
    name = stem(path)
    keys = [f"{name}:{row}" if many else name for row in rows]
    return [listed.get(key, {}) for key in keys]


def stem(path: str) -> str:
    """File name without folder and suffix."""
    return re.sub(r"(\.fits?|\.ecsv|\.parquet)?(\.gz)?$", "", Path(path).name)


def catalog(options: Options, root: str) -> Mapping[str, Entry]:
    """Rows of the options' catalogue by file; its path may be relative to root.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it has no column of file names, or astropy does not read it.
    """
    path = Path(root, options.catalog)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such catalogue; check survey.options.catalog")
    return _catalog(str(path), path.stat().st_mtime_ns, options.catalog_key.upper())


@lru_cache(maxsize=4)
def _catalog(path: str, changed: int, key: str) -> Mapping[str, Entry]:
    from astropy.table import Table

    table = Table.read(path)
    columns = {name.upper(): table[name] for name in table.colnames if table[name].ndim == 1}
    if key not in columns:
        raise ValueError(
            f"{path}: no column {key.lower()!r} (columns: {', '.join(table.colnames)}); set "
            "survey.options.catalog_key to that of the file names"
        )
    lists = {name: column.tolist() for name, column in columns.items()}
    files = [_key(_text(value)) for value in lists[key]]
    return {
        file: {name: listed[row] for name, listed in lists.items() if name != key}
        for row, file in enumerate(files)
    }


def _key(text: str) -> str:
    name, colon, row = text.rpartition(":")
    return f"{stem(name)}:{row}" if colon and row.isdigit() else stem(text)
