"""The one shape of a survey: its variables, their units, their invariants.

Missing is said once: where ``ivar`` is 0 there is no data, and ``flux`` there is 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import xarray as xr

from storage.grid import Grid

SCHEMA_VERSION = 2
FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
IVAR_UNIT = "1e34 s2 cm4 Angstrom2 erg-2"


class SchemaError(ValueError):
    """A dataset that does not have the shape of a survey."""


class Status(IntEnum):
    """What became of a row in one group: the ledger."""

    PENDING = 0
    DONE = 1
    QUARANTINED = 2
    NOT_APPLICABLE = 3


class Reason(IntEnum):
    """Why a row is not simply done; the meaning in words is in `REASONS`."""

    NONE = 0
    UNREADABLE = 1
    MISSING_HDU = 2
    BAD_GRID = 3
    NO_DATA = 4
    NOT_FINITE = 5
    NEGATIVE_IVAR = 6
    BAD_REDSHIFT = 7
    BAD_POSITION = 8
    DUPLICATE = 9
    BAD_UNITS = 10
    BAD_PATH = 11
    GONE = 12
    ABSURD = 13
    UPSTREAM_QUARANTINED = 20
    UPSTREAM_NOT_APPLICABLE = 21
    NOT_SCIENCE = 22
    ROUTED_NOWHERE = 23
    ROUTED_ELSEWHERE = 24
    OUTSIDE_FOOTPRINT = 25
    NOT_IN_CATALOGUE = 26
    NOT_A_STAR = 27
    STORE_DAMAGED = 30
    FAILED = 31


REASONS: dict[Reason, str] = {
    Reason.NONE: "none",
    Reason.UNREADABLE: "file unreadable or truncated",
    Reason.MISSING_HDU: "an extension is missing",
    Reason.BAD_GRID: "wavelengths are off the grid of the configuration",
    Reason.NO_DATA: "no good pixel: ivar is 0 everywhere",
    Reason.NOT_FINITE: "flux or ivar is not finite",
    Reason.NEGATIVE_IVAR: "ivar is negative",
    Reason.BAD_REDSHIFT: "redshift is missing or absurd",
    Reason.BAD_POSITION: "sky position is missing or absurd",
    Reason.DUPLICATE: "the same observation is in the store already",
    Reason.BAD_UNITS: "units are missing or cannot be converted",
    Reason.BAD_PATH: "the path leads out of the survey's folder",
    Reason.GONE: "its file was changed and holds the row no more",
    Reason.ABSURD: "a value is finite, and beyond what any spectrum has",
    Reason.UPSTREAM_QUARANTINED: "quarantined at ingest",
    Reason.UPSTREAM_NOT_APPLICABLE: "its input was not applicable",
    Reason.NOT_SCIENCE: "not a science target: sky fibre or standard star",
    Reason.ROUTED_NOWHERE: "no route takes it",
    Reason.ROUTED_ELSEWHERE: "another model takes it",
    Reason.OUTSIDE_FOOTPRINT: "outside the footprint of the model",
    Reason.NOT_IN_CATALOGUE: "no row of the catalogue matches",
    Reason.NOT_A_STAR: "the survey calls it no star",
    Reason.STORE_DAMAGED: "a chunk of the store that holds it cannot be read",
    Reason.FAILED: "it fails, or kills, whoever computes it",
}


class ObjectType(IntEnum):
    """What a fibre was put on."""

    SCIENCE = 0
    SKY = 1
    STANDARD = 2


class Split(IntEnum):
    """The side of an object: what its spectra may be used for."""

    NONE = 0
    TRAIN = 1
    VAL = 2
    CALIB = 3
    TEST = 4


@dataclass(frozen=True, kw_only=True)
class Field:
    """One variable: what it holds and in which unit."""

    dtype: str
    "NumPy dtype, or 'str'."
    units: str
    "As astropy.units reads it; '1' for a number, a name or a code."
    description: str
    "One line."
    dims: tuple[str, ...] = ("spectrum",)
    "Its axes."
    codes: type[IntEnum] | None = None
    "The meanings of its values, where it is a code."


_PIXELS = ("spectrum", "wavelength")

PIXELS: dict[str, Field] = {
    "flux": Field(dtype="f4", units=FLUX_UNIT, dims=_PIXELS, description="flux; 0 where no data"),
    "ivar": Field(
        dtype="f4", units=IVAR_UNIT, dims=_PIXELS, description="inverse variance; 0 = no data"
    ),
    "mask": Field(dtype="u4", units="1", dims=_PIXELS, description="mask bits of the survey"),
    "model": Field(
        dtype="f4", units=FLUX_UNIT, dims=_PIXELS, description="best fit of the survey's pipeline"
    ),
    "lsf": Field(
        dtype="f2", units="pixel", dims=_PIXELS, description="line spread, Gaussian sigma"
    ),
}

LEDGER: dict[str, Field] = {
    "status": Field(dtype="u1", units="1", description="what became of the row", codes=Status),
    "reason_code": Field(dtype="u2", units="1", description="why, as a code", codes=Reason),
}

COLUMNS: dict[str, Field] = {
    "target_id": Field(dtype="str", units="1", description="the survey's id of the sky object"),
    "observation": Field(
        dtype="str", units="1", description="the survey's name of this spectrum (plate-mjd-fiber)"
    ),
    "object_id": Field(dtype="u8", units="1", description="one sky object, whatever spectrum"),
    "split": Field(dtype="u1", units="1", description="side of the object", codes=Split),
    "survey": Field(dtype="str", units="1", description="survey or programme"),
    "source": Field(dtype="str", units="1", description="file, relative to the survey's root"),
    "source_row": Field(dtype="i4", units="1", description="row in the file"),
    "digest": Field(dtype="str", units="1", description="blake2b-128 of its files' bytes, hex"),
    "source_size": Field(dtype="i8", units="byte", description="size of its files when read"),
    "source_time": Field(dtype="i8", units="ns", description="latest change of its files, Unix"),
    "mjd": Field(dtype="f8", units="d", description="modified Julian date of the observation"),
    "ra": Field(dtype="f8", units="deg", description="right ascension, ICRS"),
    "dec": Field(dtype="f8", units="deg", description="declination, ICRS"),
    "z": Field(dtype="f8", units="1", description="redshift, heliocentric"),
    "z_err": Field(dtype="f4", units="1", description="error of the redshift"),
    "zwarn": Field(dtype="i4", units="1", description="redshift warning bits; 0 is good"),
    "class": Field(dtype="str", units="1", description="GALAXY, QSO or STAR"),
    "subclass": Field(dtype="str", units="1", description="the survey's subclass"),
    "object_type": Field(dtype="u1", units="1", description="fibre target", codes=ObjectType),
    "ebv": Field(dtype="f4", units="mag", description="Galactic E(B-V); 0 where unknown"),
    "ebv_known": Field(
        dtype="u1", units="1", description="E(B-V) is 1 of the survey, 2 of a map, 0 unknown"
    ),
    "vdisp": Field(dtype="f4", units="km/s", description="stellar velocity dispersion"),
    "snr": Field(dtype="f4", units="1", description="median S/N per good pixel"),
    "snr_g": Field(dtype="f4", units="1", description="mean S/N per pixel, 4000-5400 A observed"),
    "snr_r": Field(dtype="f4", units="1", description="mean S/N per pixel, 5600-6900 A observed"),
    "reason": Field(dtype="str", units="1", description="why it is quarantined, with the cure"),
}

SPECTRA: dict[str, Field] = {**PIXELS, **COLUMNS, **LEDGER}


def attrs(field: Field) -> dict[str, Any]:
    """CF attributes of a variable: units, long_name, and flag meanings where it is a code."""
    found: dict[str, Any] = {"units": field.units, "long_name": field.description}
    if field.codes is not None:
        found["flag_values"] = [int(code) for code in field.codes]
        found["flag_meanings"] = " ".join(code.name.lower() for code in field.codes)
    return found


def dtype(field: Field) -> np.dtype[Any]:
    """The NumPy dtype of a variable; strings are of variable length."""
    return np.dtypes.StringDType() if field.dtype == "str" else np.dtype(field.dtype)


def empty(field: Field) -> Any:
    """The value of a variable where there is none: NaN for a float column, 0 for a pixel."""
    if field.dtype == "str":
        return ""
    return np.nan if field.dtype.startswith("f") and field.dims == ("spectrum",) else 0


def template(
    n: int,
    grid: Grid | None,
    fields: Mapping[str, Field] | None = None,
    more: Mapping[str, int] | None = None,
) -> xr.Dataset:
    """The shape, dtypes and units of n spectra on a grid; no values are held.

    grid : the wavelength axis, if the fields have one; more : sizes of other axes.
    """
    sizes = {"spectrum": n, **({"wavelength": grid.size} if grid else {}), **(more or {})}
    arrays = {
        name: (
            field.dims,
            np.broadcast_to(
                np.array(empty(field), dtype=dtype(field)), [sizes[dim] for dim in field.dims]
            ),
            attrs(field),
        )
        for name, field in (SPECTRA if fields is None else fields).items()
    }
    return xr.Dataset(arrays, coords={"wavelength": wavelength(grid)} if grid else {})


def blank(n: int, grid: Grid | None, fields: Mapping[str, Field] | None = None) -> xr.Dataset:
    """As `template`, with every value there and empty: what a reader fills in."""
    return template(n, grid, fields).copy(deep=True)


def wavelength(grid: Grid) -> xr.Variable:
    """The wavelength coordinate of a grid."""
    return xr.Variable(
        "wavelength",
        grid.wavelength,
        {"units": "Angstrom", "long_name": "wavelength in vacuum", "medium": "vacuum"},
    )


def check(ds: xr.Dataset, where: str = "dataset") -> xr.Dataset:
    """ds itself, if it has the shape of a survey.

    Raises
    ------
    SchemaError
        Names the variable, the rows and the cure: a variable is missing or of another dtype,
        `ivar` is negative or not finite, `flux` is not finite or not 0 where ivar is 0, a status
        is unknown.
    """
    _check_shape(ds, where)
    flux, ivar = ds["flux"].to_numpy(), ds["ivar"].to_numpy()
    _refuse(
        ~np.isfinite(ivar) | (ivar < 0),
        f"{where}: 'ivar' is negative or not finite",
        "ivar is >= 0, with 0 for no data",
    )
    _refuse(~np.isfinite(flux), f"{where}: 'flux' is not finite", "set it to 0 and ivar to 0")
    _refuse(
        (ivar == 0) & (flux != 0),
        f"{where}: 'flux' is not 0 where ivar is 0",
        "flux is 0 where there is no data",
    )
    known = np.isin(ds["status"].to_numpy(), [int(status) for status in Status])
    _refuse(~known, f"{where}: 'status' is unknown", f"one of {[int(s) for s in Status]}")
    return ds


def _check_shape(ds: xr.Dataset, where: str) -> None:
    for name, field in SPECTRA.items():
        if name not in ds:
            raise SchemaError(f"{where}: no variable {name!r}; make it with schema.blank()")
        if ds[name].dims != field.dims:
            raise SchemaError(f"{where}: {name!r} has axes {ds[name].dims}, expected {field.dims}")
        if ds[name].dtype != dtype(field):
            raise SchemaError(
                f"{where}: {name!r} is {ds[name].dtype}, expected {dtype(field)}; convert it"
            )


def _refuse(bad: np.ndarray[Any, np.dtype[np.bool_]], what: str, cure: str) -> None:
    if not bad.any():
        return
    rows = np.flatnonzero(bad.reshape(bad.shape[0], -1).any(axis=1))
    raise SchemaError(f"{what}: {int(bad.sum())} values in rows {summary(rows)}; {cure}")


def summary(rows: Iterable[int], most: int = 5) -> str:
    """Row numbers in few words.

    Examples
    --------
    >>> summary(range(8), most=3)
    '0, 1, 2 and 5 more'
    """
    listed = [str(int(row)) for row in rows]
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
