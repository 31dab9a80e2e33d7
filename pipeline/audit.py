"""Audit: what only all rows of a survey together can show: duplicates, objects, files.

It holds 17 bytes a row: a hash of the observation, the object and its side.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.arrivals import Folder
from pipeline.chunks import Finding
from storage.files import regular
from storage.names import resolve
from storage.reader import Format
from storage.schema import Split, Status, summary

NEEDED = ("observation", "survey", "object_id", "split", "status")
MOST = 20
"Findings of one kind, after which they are counted only."

Columns = Mapping[str, np.ndarray]


class Audit:
    """Collects columns of the spectra, in the order of the rows; then says what is wrong."""

    def __init__(self) -> None:
        self._names: dict[str, list[np.ndarray]] = {}
        self._objects: dict[str, list[np.ndarray]] = {}
        self._sides: dict[str, list[np.ndarray]] = {}

    def add(self, group: str, columns: Columns, size: int) -> None:
        """Take some rows; where a column could not be read they count as nothing."""
        whole = all(name in columns for name in NEEDED)
        done = columns["status"] == Status.DONE if whole else np.zeros(size, bool)
        for held, values in (
            (self._names, _hashes(columns) if whole else np.zeros(size, "u8")),
            (self._objects, columns["object_id"] if whole else np.zeros(size, "u8")),
            (self._sides, columns["split"] if whole else np.zeros(size, "u1")),
        ):
            held.setdefault(group, []).append(np.where(done, values, 0).astype(values.dtype))

    def duplicates(self) -> Iterator[Finding]:
        """Done rows of one observation."""
        for group, parts in self._names.items():
            names = np.concatenate(parts)
            _, inverse, count = np.unique(names, return_inverse=True, return_counts=True)
            twice = np.flatnonzero((count[inverse] > 1) & (names != 0))
            again = np.unique(names[twice])
            for name in again[:MOST]:
                rows = summary(twice[names[twice] == name])
                what = (
                    f"several done rows of one observation: rows {rows}; `specmill ingest` "
                    "quarantines all but the first"
                )
                yield Finding(group=group, what=what)
            if len(again) > MOST:
                what = f"{len(again) - MOST} more observations with several done rows"
                yield Finding(group=group, what=what)

    def sides(self) -> Iterator[Finding]:
        """Objects whose spectra are on several sides, in all configurations together."""
        groups = list(self._objects)
        if not groups:
            return
        sizes = [sum(map(len, self._objects[group])) for group in groups]
        ids = np.concatenate([part for group in groups for part in self._objects[group]])
        side = np.concatenate([part for group in groups for part in self._sides[group]])
        known = np.flatnonzero(ids)
        order = known[np.argsort(ids[known], kind="stable")]
        same = ids[order[1:]] == ids[order[:-1]]
        pairs = np.flatnonzero(same & (side[order[1:]] != side[order[:-1]]))
        # Of an object with many rows the first two that differ are enough.
        torn = pairs[np.unique(ids[order[pairs]], return_index=True)[1]]
        starts = np.cumsum([0, *sizes])
        for pair in torn[:MOST]:
            rows = order[pair : pair + 2]
            places = np.searchsorted(starts, rows, side="right") - 1
            said = " and ".join(
                f"{_side(int(side[row]))} in {groups[place]} row {row - starts[place]}"
                for row, place in zip(rows, places, strict=True)
            )
            what = f"object {ids[rows[0]]} is on two sides: {said}; ingest again"
            yield Finding(group=groups[places[0]], what=what)
        if len(torn) > MOST:
            yield Finding(group=groups[0], what=f"{len(torn) - MOST} more objects on two sides")


def _side(value: int) -> str:
    return Split(value).name.lower() if value in set(Split) else f"split {value}"


def _hashes(columns: Columns) -> np.ndarray:
    """Of survey and observation (N,), 0 where there is none; two names of one hash are too rare."""
    names = columns["observation"].astype(object)
    hashes = pd.util.hash_array(names, categorize=False)
    hashes ^= pd.util.hash_array(columns["survey"].astype(object), hash_key="s" * 16)
    return np.where(columns["observation"] == "", np.uint64(0), hashes)


def empties(
    group: str, columns: Columns, first: int, attrs: Mapping[str, Any]
) -> Iterator[Finding]:
    """Done rows that do not say where they come from, or which object they show."""
    if "status" not in columns:
        return
    done = columns["status"] == Status.DONE
    cases = {}
    for name in ("source", "digest"):
        if name in columns:
            cases[f"done, without a {name}"] = done & (columns[name] == "")
    if attrs.get("complete") and {"object_id", "ra", "dec", "target_id"} <= columns.keys():
        placed = done & np.isfinite(columns["ra"]) & np.isfinite(columns["dec"])
        if attrs.get("identity") == "target_id":
            placed &= columns["target_id"] != ""
        cases["done and on the sky, without an object"] = placed & (columns["object_id"] == 0)
    for what, bad in cases.items():
        if bad.any():
            rows = first + np.flatnonzero(bad)
            said = f"{int(bad.sum())} rows {what}: rows {summary(rows)}; ingest again"
            yield Finding(group=group, what=said, rows=(int(rows[0]), int(rows[-1]) + 1))


def folder(group: str, attrs: Mapping[str, Any], root: str) -> Folder:
    """The files that a group was read from, as its reader sees them.

    Raises
    ------
    ValueError
        When that reader is not there any more, or not with those options.
    """
    module = resolve("storage.readers", str(attrs.get("reader")))
    return Folder(module.build(**attrs.get("options", {})), root, group.split("/")[1])


def files(
    group: str, columns: Columns, first: int, folder: Folder, pool: Executor
) -> Iterator[Finding]:
    """Source files that are gone, or whose bytes, or those of files beside them, are others."""
    if not {"source", "digest"} <= columns.keys():
        return
    named = np.flatnonzero((columns["source"] != "") & (columns["digest"] != ""))
    wanted: dict[str, int] = {}
    for row in named.tolist():
        wanted.setdefault(str(columns["source"][row]), row)
    digests = pool.map(partial(_digest, folder), wanted)
    for (source, row), found in zip(wanted.items(), digests, strict=True):
        if found == columns["digest"][row]:
            continue
        if found.startswith("!"):
            what = f"{source} (row {first + row}) {found[1:]}"
        else:
            what = f"{source} (row {first + row}) has changed since it was read"
            what += f"{_others(folder, source)}; ingest again"
        yield Finding(group=group, what=what)


def _digest(folder: Folder, source: str) -> str:
    """That of a file and those beside it; or, after a '!', why there is none."""
    path = os.path.join(folder.root, source)  # noqa: PTH118 - a path is text here
    try:
        regular(path)
        with open(path, "rb"):  # noqa: PTH123
            pass
        return folder.digest(path) or "!cannot be read"
    except FileNotFoundError:
        return "!is gone; put it back"
    except OSError as error:
        return f"!cannot be read ({error.strerror or error})"


def _others(folder: Folder, source: str) -> str:
    """What else it may be that has changed."""
    path = os.path.join(folder.root, source)  # noqa: PTH118
    beside = [os.path.relpath(other, folder.root) for other in folder.files(path)[1:]]
    if beside:
        return f", or {', '.join(beside)} has"
    # Where redshifts were, there may be none any more.
    alone = getattr(type(folder.reader), "beside", None) is Format.beside
    return "" if alone else ", or a file beside it is gone"
