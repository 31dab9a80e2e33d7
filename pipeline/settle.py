"""Settle: objects, sides and duplicates, which only the whole survey can say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.card import Card
from storage import objects, sky
from storage.reader import Reader
from storage.schema import Reason, Split, Status
from storage.store import Survey
from storage.writer import Writer

_NAMES = ("survey", "target_id", "observation")
_NEEDED = (
    *_NAMES,
    "ra",
    "dec",
    "status",
    "reason_code",
    "reason",
    "digest",
    "source",
    "source_row",
)

Columns = dict[str, Any]


def settle(writer: Writer, card: Card, config: str, form: Reader) -> None:
    """Give every row its object and its side, and quarantine what is there twice; commit it."""
    group = f"spectra/{config}"
    columns = {n: writer.read_column(group, n) for n in (*_NEEDED, "object_id")}
    ledger = _duplicates(columns)
    _place(writer, card, group, form, columns, ledger["status"] == Status.DONE)
    writer.write_columns(group, 0, ledger)
    writer.set_attrs(group, {"complete": True, "split": card.split.model_dump()})
    sky.write(writer, config)
    writer.commit(f"{group}: objects and split", {"group": group})


def _place(
    writer: Writer,
    card: Card,
    group: str,
    form: Reader,
    columns: Columns,
    good: NDArray[np.bool_],
) -> None:
    """One object, one id, in all configurations of the store."""
    there = Survey.open(writer.path).groups()
    others = [each for each in there if each.startswith("spectra/") and each != group]
    parts = [columns, *(_read(writer, other) for other in others)]
    masks = [good, *(part["status"] == Status.DONE for part in parts[1:])]
    # A row that is not done has no object: its position may be anything.
    place = [
        np.concatenate([np.where(m, p[n], np.nan) for p, m in zip(parts, masks, strict=True)])
        for n in ("ra", "dec")
    ]
    names = [np.concatenate([part[name] for part in parts]) for name in _NAMES]
    names[1] = np.where(np.concatenate(masks), names[1], "")
    before = np.concatenate(
        [np.where(m, p["object_id"], 0) for p, m in zip(parts, masks, strict=True)]
    )
    found = objects.assign(
        names[0],
        names[1],
        names[2],
        place[0],
        place[1],
        form.identity,
        existing=before.astype(np.uint64),
    )
    bounds = np.cumsum([len(part["status"]) for part in parts])[:-1]
    cut = zip(
        [group, *others],
        np.split(found.object_id, bounds),
        np.split(found.bridged, bounds),
        strict=True,
    )
    for name, object_id, bridged in cut:
        if name != group and not bridged.any():
            continue
        side = objects.split(object_id, card.split.salt, card.split.shares)
        # Two objects that turn out to be one may stand on both sides: neither teaches then.
        side[bridged & (side == Split.TRAIN)] = Split.NONE
        writer.write_columns(name, 0, {"object_id": object_id, "split": side})


def _read(writer: Writer, group: str) -> Columns:
    return {n: writer.read_column(group, n) for n in (*_NAMES, "ra", "dec", "status", "object_id")}


def _duplicates(columns: Columns) -> Columns:
    """The ledger with every second row of one observation, or of one file, quarantined."""
    status, code, reason = (columns[n].copy() for n in ("status", "reason_code", "reason"))
    rows = np.flatnonzero(status == Status.DONE)
    for key, values in (("observation", columns["observation"]), ("digest", _contents(columns))):
        named = values[rows]
        _, first, inverse = np.unique(named, return_index=True, return_inverse=True)
        again = (first[inverse] != np.arange(len(rows))) & (named != "")
        for row, original in zip(rows[again], rows[first[inverse[again]]], strict=True):
            status[row], code[row] = Status.QUARANTINED, Reason.DUPLICATE
            reason[row] = (
                f"{columns['source'][row]}: the same {key} as {columns['source'][original]}; "
                "remove one of the two files"
            )
    return {"status": status, "reason_code": code, "reason": reason}


def _contents(columns: Columns) -> NDArray[Any]:
    """What a row is made of: the bytes of its file, and where in it; empty where unknown."""
    digest = columns["digest"].astype(np.dtypes.StringDType())
    place = columns["source_row"].astype(np.dtypes.StringDType())
    return np.where(digest == "", digest, np.strings.add(np.strings.add(digest, "/"), place))
