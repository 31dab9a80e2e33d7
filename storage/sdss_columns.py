"""The columns of SPECOBJ (SDSS) and SPALL (BOSS), in the names of the schema."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits
from storage.border import Z_RANGE, RefusedError
from storage.schema import ObjectType, Reason
from storage.sdss_format import EBV_PER_EXTINCTION_R

Values = dict[str, Any]

WANTED = frozenset(
    {
        *("SURVEY", "INSTRUMENT", "BESTOBJID", "OBJID", "SOURCETYPE", "OBJTYPE", "CLASS"),
        *("SUBCLASS", "PLATE", "MJD", "FIBERID", "PLUG_RA", "PLUG_DEC", "Z", "Z_ERR"),
        *("ZWARNING", "VDISP", "EXTINCTION"),
    }
)
"Columns to read."


def observation(plate: int, mjd: int, fiber: int) -> str:
    """The name of a spectrum.

    Examples
    --------
    >>> observation(266, 51602, 13)
    '0266-51602-0013'
    """
    return f"{plate:04d}-{mjd:05d}-{fiber:04d}"


def columns(catalog: fits.Table, header: bytes) -> Values:
    """The columns of the one row of a table; from the primary header where it lacks one.

    Raises
    ------
    RefusedError
        When the position or the redshift is missing or absurd.
    """
    row = catalog.rows[0]

    def number(name: str, card: str = "", default: float = np.nan) -> float:
        if name in catalog:
            return float(row[name])
        found = fits.value(header, card or name)
        return default if found is None else float(found)

    def text(name: str) -> str:
        found = row[name] if name in catalog else b""
        return found.decode("ascii", "replace").strip() if isinstance(found, bytes) else ""

    kind = _object_type(text("SOURCETYPE") or text("OBJTYPE"))
    mjd = number("MJD")
    return {
        **_position(number("PLUG_RA"), number("PLUG_DEC")),
        **_dust(row["EXTINCTION"] if "EXTINCTION" in catalog else None),
        "observation": observation(
            int(number("PLATE", "PLATEID")), int(mjd), int(number("FIBERID"))
        ),
        "mjd": mjd,
        "z": _redshift(number("Z"), kind),
        "z_err": number("Z_ERR"),
        "zwarn": np.int32(int(number("ZWARNING", default=0))),
        "class": text("CLASS"),
        "subclass": text("SUBCLASS"),
        "object_type": kind,
        # The pipeline writes 0, or its error below 0, where it measured none.
        "vdisp": number("VDISP") if number("VDISP") > 0 else np.nan,
        "target_id": _identity(text("BESTOBJID")) or _identity(text("OBJID")),
        "survey": (
            text("SURVEY") or text("INSTRUMENT") or ("boss" if catalog.name == "SPALL" else "sdss")
        ).lower(),
    }


def _object_type(target: str) -> ObjectType:
    if target == "SKY":
        return ObjectType.SKY
    return ObjectType.STANDARD if target.endswith(("_STD", "STANDARD")) else ObjectType.SCIENCE


def _identity(name: str) -> str:
    """An id of the photometric survey; blank where it is no number, or 0."""
    return name if name.isdigit() and int(name) > 0 else ""


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


def _dust(extinction: NDArray[Any] | None) -> Values:
    # 0 stands in rows that were not matched to photometry: nowhere is there no dust at all.
    known = extinction is not None and bool(0 < extinction[2] < np.inf)
    if extinction is None or not known:
        return {"ebv": 0.0, "ebv_known": 0}
    return {"ebv": float(extinction[2]) * EBV_PER_EXTINCTION_R, "ebv_known": 1}
