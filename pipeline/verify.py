"""Verify: does a store hold what it says, all of it, and say where it came from."""

from collections.abc import Iterator
from dataclasses import dataclass

import icechunk
import numpy as np
import xarray as xr

from storage import schema
from storage.schema import Reason, SchemaError, Status
from storage.store import Survey

PROVENANCE = ("code_version", "packages", "platform", "card_digest")
# The codecs raise these for a wrong checksum, Icechunk its own for a missing chunk.
_LOST = (ValueError, RuntimeError, OSError, icechunk.IcechunkError)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a store."""

    group: str
    "Where."
    what: str
    "What, which rows, and the cure."


def verify(path: str) -> Iterator[Finding]:
    """Read every chunk of a store and hold it against the schema, the ledger and its neighbours.

    Checksums of chunks are checked by reading them. Memory is bounded by a chunk.

    Raises
    ------
    FileNotFoundError, SchemaError
        When there is no store of this schema.
    """
    survey = Survey.open(path)
    for group in survey.groups():
        yield from _alignment(survey, group)
        try:
            ds = survey.dataset(group)
        except _LOST as error:
            yield _lost(group, "its axes", slice(0, survey.rows(group)), error)
            continue
        yield from _attrs(survey, group, ds)
        for first in range(0, survey.rows(group), survey.chunk_rows(group)):
            rows = slice(first, first + survey.chunk_rows(group))
            part = ds.isel(spectrum=rows)
            lost = list(_unread(group, part, first))
            yield from lost or _rows(group, part, first)


def _attrs(survey: Survey, group: str, ds: xr.Dataset) -> Iterator[Finding]:
    missing = [name for name in PROVENANCE if name not in survey.attrs(group)]
    if missing:
        yield Finding(group=group, what=f"no provenance: {', '.join(missing)}")
    if group.startswith("spectra/") and not survey.attrs(group).get("complete"):
        yield Finding(group=group, what="ingest is not finished; run `specmill ingest` again")
    unitless = [n for n, v in ds.data_vars.items() if "units" not in v.attrs]
    if unitless:
        yield Finding(group=group, what=f"no units on {', '.join(map(str, unitless))}")


def _alignment(survey: Survey, group: str) -> Iterator[Finding]:
    config = group.split("/")[1]
    if f"spectra/{config}" not in survey:
        yield Finding(group=group, what=f"no spectra/{config} beside it; ingest them again")
        return
    rows, expected = survey.rows(group), survey.rows(f"spectra/{config}")
    if rows != expected:
        yield Finding(group=group, what=f"{rows} rows, spectra/{config} has {expected}")


def _unread(group: str, lazy: xr.Dataset, first: int) -> Iterator[Finding]:
    """Load some rows; what cannot be read, variable by variable."""
    rows = slice(first, first + lazy.sizes["spectrum"])
    for name, variable in lazy.variables.items():
        try:
            variable.load()
        except _LOST as error:
            yield _lost(group, repr(name), rows, error)


def _lost(group: str, name: str, rows: slice, error: Exception) -> Finding:
    first_line = str(error).strip().partition("\n")[0]
    return Finding(
        group=group,
        what=f"{name} cannot be read in rows {rows.start}:{rows.stop} ({first_line}); put the "
        "store back from a copy, or make it again",
    )


def _rows(group: str, ds: xr.Dataset, first: int) -> Iterator[Finding]:
    last = first + ds.sizes["spectrum"]
    if group.startswith("spectra/"):
        try:
            schema.check(ds, f"{group} rows {first}:{last}")
        except SchemaError as error:
            yield Finding(group=group, what=str(error))
    yield from _ledger(group, ds, first)


def _ledger(group: str, ds: xr.Dataset, first: int) -> Iterator[Finding]:
    """The status of every row against its data."""
    status, code = ds["status"].to_numpy(), ds["reason_code"].to_numpy()
    filled = _filled(group, ds)
    cases = {
        "pending; run the stage again": status == Status.PENDING,
        "done, but without data": (status == Status.DONE) & ~filled,
        "done, but with a reason": (status == Status.DONE) & (code != Reason.NONE),
        "not done, and no reason why": np.isin(status, [2, 3]) & (code == Reason.NONE),
        "a reason of no meaning": ~np.isin(code, [int(reason) for reason in Reason]),
    }
    for what, bad in cases.items():
        if bad.any():
            rows = schema.summary(first + np.flatnonzero(bad))
            yield Finding(group=group, what=f"{int(bad.sum())} rows {what}: rows {rows}")


def _filled(group: str, ds: xr.Dataset) -> np.ndarray:
    """Rows that hold anything: a hole in the store reads as zeros, or as NaN for an index."""
    kind = group.split("/")[0]
    if kind == "indices":
        # An index that could not be measured says why in its flag.
        found = np.isfinite(ds["value"].to_numpy()) | (ds["flag"].to_numpy() > 0)
    else:
        found = ds["ivar" if kind == "spectra" else "flux"].to_numpy() != 0
    return np.asarray(found.any(axis=1))
