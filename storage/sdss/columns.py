"""The columns of SPECOBJ (SDSS) and SPALL (BOSS, SDSS-V), in the names of the schema.

BOSS's FIELD is that of an image; it is the field of a spectrum only beside a CATALOGID.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits
from storage.border import EBV_RANGE, MOST_NUMBER, NO_REDSHIFT, Z_RANGE, RefusedError
from storage.schema import ObjectType, Reason
from storage.sdss.format import EBV_PER_EXTINCTION_R
from storage.sdss.names import observation, observation5

Values = dict[str, Any]

WANTED = frozenset(
    {
        *("SURVEY", "INSTRUMENT", "BESTOBJID", "OBJID", "SOURCETYPE", "OBJTYPE", "CLASS"),
        *("SUBCLASS", "PLATE", "MJD", "FIBERID", "PLUG_RA", "PLUG_DEC", "Z", "Z_ERR"),
        *("ZWARNING", "VDISP", "EXTINCTION"),
        # Those of SDSS-V; its first tables say SDSSID.
        *("FIELD", "CATALOGID", "SDSS_ID", "SDSSID", "RACAT", "DECCAT", "EBV"),
    }
)
"Columns to read."

MJD_RANGE = (10_000, 100_000)
"Dates of five digits, as in the names of files: 1886 to 2132."
_IDS = ("BESTOBJID", "OBJID", "SDSS_ID", "SDSSID", "CATALOGID")


def columns(catalog: fits.Table, header: bytes) -> Values:
    """The columns of the one row of a table; from the primary header where it lacks one.

    Raises
    ------
    RefusedError
        When the position or the redshift is missing or absurd, or E(B-V) or the date is.
    """
    row = catalog.rows[0]

    def number(name: str, card: str = "", default: float = np.nan) -> float:
        if name in catalog:
            return float(row[name])
        found = fits.value(header, card or name)
        return default if found is None else float(found)

    def whole(name: str, card: str = "") -> int:
        found = number(name, card)
        if name in catalog and row[name].dtype.kind not in "iu":
            raise RefusedError(
                Reason.UNREADABLE,
                f"{name} is {row[name].dtype}, expected a whole number; fetch the file again",
            )
        return int(found)

    def text(name: str) -> str:
        found = row[name] if name in catalog else b""
        return found.decode("ascii", "replace").strip() if isinstance(found, bytes) else ""

    def identity(name: str) -> str:
        found = row[name] if name in catalog else b""
        return _identity(str(found) if isinstance(found, np.integer) else text(name))

    def sure(found: float) -> float:
        return found if abs(found) <= MOST_NUMBER else np.nan

    def name() -> Values:
        if "CATALOGID" not in catalog:
            plate, fiber = whole("PLATE", "PLATEID"), whole("FIBERID")
            return {"observation": observation(plate, int(mjd), fiber)}
        # A fibre of SDSS-V without a target has no number: it is named as its file.
        if not (catalogid := identity("CATALOGID")):
            return {}
        return {"observation": observation5(whole("FIELD"), int(mjd), int(catalogid))}

    kind = _object_type(text("SOURCETYPE") or text("OBJTYPE"))
    mjd, z = number("MJD"), _redshift(number("Z"), kind)
    if not MJD_RANGE[0] <= mjd < MJD_RANGE[1]:
        # It is part of the spectrum's name.
        raise RefusedError(Reason.ABSURD, f"MJD is {mjd:g}, not a date; fetch the file again")
    # Asked of the table only: a search of the header costs as much as all the rest.
    ebv = number("EBV") if "EBV" in catalog else np.nan
    place = (number("RACAT"), number("DECCAT")) if "RACAT" in catalog else (np.nan, np.nan)
    return {
        **_position(*(place if _known(*place) else (number("PLUG_RA"), number("PLUG_DEC")))),
        **_dust(row["EXTINCTION"] if "EXTINCTION" in catalog else None, ebv),
        **name(),
        "mjd": mjd,
        "z": z,
        "z_err": sure(number("Z_ERR")),
        "zwarn": np.int32(int(number("ZWARNING", default=0)) | (NO_REDSHIFT if z != z else 0)),
        "class": text("CLASS"),
        "subclass": text("SUBCLASS"),
        "object_type": kind,
        # The pipeline writes 0, or its error below 0, where it measured none.
        "vdisp": sure(number("VDISP")) if number("VDISP") > 0 else np.nan,
        "target_id": next(filter(None, map(identity, _IDS)), ""),
        "survey": (text("SURVEY") or text("INSTRUMENT") or _survey(catalog)).lower(),
    }


def _survey(catalog: fits.Table) -> str:
    if "CATALOGID" in catalog:
        return "sdss5"
    return "boss" if catalog.name == "SPALL" else "sdss"


def _object_type(target: str) -> ObjectType:
    # SKY, SPECTROPHOTO_STD; of SDSS-V also sky_boss, ops_sky_boss, standard_boss.
    words = re.split("[ _]", target.upper())
    if "SKY" in words:
        return ObjectType.SKY
    is_standard = "STD" in words or "STANDARD" in words
    return ObjectType.STANDARD if is_standard else ObjectType.SCIENCE


def _identity(name: str) -> str:
    """An id of a catalogue; blank where it is no number, or not above 0."""
    return name if name.isdigit() and int(name) > 0 else ""


def _known(ra: float, dec: float) -> bool:
    """Whether a catalogue's position is one; NaN, -999 and 0, 0 stand where there is none."""
    return 0 <= ra <= 360 and -90 <= dec <= 90 and (ra, dec) != (0, 0)


def _position(ra: float, dec: float) -> Values:
    # The header's RA and DEC are the telescope's: they would make one object of a whole plate.
    if not (0 <= ra <= 360 and -90 <= dec <= 90):
        raise RefusedError(
            Reason.BAD_POSITION,
            f"PLUG_RA {ra}, PLUG_DEC {dec}; expected 0 to 360 and -90 to 90 deg; fetch it again",
        )
    return {"ra": ra % 360, "dec": dec}


def _redshift(z: float, kind: ObjectType) -> float:
    # A sky fibre's redshift means nothing, whatever it is.
    if kind != ObjectType.SKY and not Z_RANGE[0] <= z <= Z_RANGE[1]:
        raise RefusedError(
            Reason.BAD_REDSHIFT,
            f"Z is {z}, expected {Z_RANGE[0]} to {Z_RANGE[1]}; leave the file out",
        )
    return z if np.isfinite(z) else np.nan


def _dust(extinction: NDArray[Any] | None, ebv: float) -> Values:
    # 0 stands in rows that were not matched to photometry: nowhere is there no dust at all.
    if not 0 < ebv < np.inf:
        known = extinction is not None and bool(0 < extinction[2] < np.inf)
        if extinction is None or not known:
            return {"ebv": 0.0, "ebv_known": 0}
        ebv = float(extinction[2]) * EBV_PER_EXTINCTION_R
    if ebv > EBV_RANGE[1]:
        raise RefusedError(
            Reason.ABSURD, f"E(B-V) is {ebv:g}, at most {EBV_RANGE[1]} mag; fetch the file again"
        )
    return {"ebv": ebv, "ebv_known": 1}
