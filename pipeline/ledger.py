"""The ledger of a store, checked: the status of rows against reasons, data and spectra."""

from collections.abc import Iterator

import numpy as np

from pipeline.chunks import Finding
from storage import schema
from storage.schema import Reason, Status

KINDS = {
    "spectra": ("ivar", "flux"),
    "truth": ("flux",),
    "denoised": ("flux",),
    "indices": ("value",),
    "lines": ("flux",),
    "stars": ("velocity",),
    "catalog": (),
}
"Groups of rows, and the arrays of which a done row holds something."


def reasons(group: str, columns: dict[str, np.ndarray], first: int) -> Iterator[Finding]:
    """The status of every row against its reason."""
    if not {"status", "reason_code"} <= columns.keys():
        return
    status, code = columns["status"], columns["reason_code"]
    cases = {
        "pending; run the stage again": status == Status.PENDING,
        "done, but with a reason": (status == Status.DONE) & (code != Reason.NONE),
        "not done, and no reason why": np.isin(status, [2, 3]) & (code == Reason.NONE),
        "a reason of no meaning": ~np.isin(code, [int(reason) for reason in Reason]),
    }
    yield from _said(group, cases, first)


def upstream(
    group: str, columns: dict[str, np.ndarray], spectra: np.ndarray, first: int
) -> Iterator[Finding]:
    """Rows of a product that are done, of spectra that are not; a truth needs no spectrum."""
    if group.split("/")[0] in ("spectra", "truth") or len(spectra) != len(
        columns.get("status", ())
    ):
        return
    orphans = (columns["status"] == Status.DONE) & (spectra != Status.DONE)
    said = {"done, and their spectra are not; run the stage again": orphans}
    yield from _said(group, said, first)


def holes(group: str, values: dict[str, np.ndarray], first: int) -> Iterator[Finding]:
    """Done rows that hold nothing: a hole in the store reads as zeros, or as NaN for an index."""
    if "status" not in values:
        return
    done, kind = values["status"] == Status.DONE, group.split("/")[0]
    for name in KINDS[kind]:
        if name not in values:
            continue
        if kind in ("indices", "lines", "stars"):
            # What could not be measured says why in its flag.
            held = np.isfinite(values[name]) | (values.get("flag", np.zeros(1)) > 0)
        else:
            held = values[name] != 0
        empty = done & ~held.reshape(len(held), -1).any(axis=1)
        yield from _said(group, {f"done, but without data in '{name}'": empty}, first)
        # A row without data has no flux either, and says so once.
        done = done & ~empty


def _said(group: str, cases: dict[str, np.ndarray], first: int) -> Iterator[Finding]:
    for what, bad in cases.items():
        if bad.any():
            rows = first + np.flatnonzero(bad)
            said = f"{int(bad.sum())} rows {what}: rows {schema.summary(rows)}"
            yield Finding(group=group, what=said, rows=(int(rows[0]), int(rows[-1]) + 1))
