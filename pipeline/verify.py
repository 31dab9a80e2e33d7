"""Verify: does a store hold what it says, all of it, and say where it came from."""

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr

from deploy.job import cores
from pipeline import audit, chunks, ledger
from pipeline.arrivals import Folder
from pipeline.audit import Audit
from pipeline.chunks import CURE, LOST, Finding, Lost, Opened
from storage import schema
from storage.schema import SchemaError
from storage.store import Survey
from storage.writer import COLUMN_ROWS

__all__ = ["Finding", "verify"]

PROVENANCE = ("code_version", "packages", "platform", "card_digest")
_DAMAGED = (RuntimeError, OSError, json.JSONDecodeError, icechunk.IcechunkError)


def verify(
    path: str, snapshot: str | None = None, root: str | None = None, workers: int = 0
) -> Iterator[Finding]:
    """Read every chunk of a store and hold it against the schema, the ledger and its neighbours.

    Checksums of chunks are checked by reading them. Memory: the columns of 65,536 rows, a chunk of
    every pixel array a worker, and 17 bytes a row of the store.

    Parameters
    ----------
    snapshot : str, optional
        A version or tag; the newest when None.
    root : str, optional
        Folder of the survey's files: they are read too, and held against their digests.
    workers : int
        Threads; as many as this process has cores when 0.

    Raises
    ------
    FileNotFoundError, SchemaError, ValueError
        When there is no store of this schema, no such version, or no such folder of files.
    """
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give the one that the survey's files are")
    try:
        survey = _open(path, snapshot)
        opened = Opened.open(path, survey.snapshot)
        groups = survey.groups()
        inside = {group: opened.arrays(group) for group in groups}
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        yield Finding(
            group="/", what=f"cannot be opened ({chunks.said(error)}); if that is damage, {CURE}"
        )
        return
    yield from _store(survey, opened)
    yield from chunks.unlisted(opened)
    whole = Audit()
    workers = workers or cores()
    with ThreadPoolExecutor(workers) as pool:
        for group in filter(_kind, groups):
            yield from _alignment(survey, group)
            spectra = inside.get(f"spectra/{group.split('/')[1]}", {}).get("status")
            part = Part(
                group, survey.attrs(group), inside[group], spectra=spectra, ahead=2 * workers
            )
            yield from chunks.merged(_group(part, whole, pool, root))
    yield from whole.duplicates()
    yield from whole.sides()


def _open(path: str, snapshot: str | None) -> Survey:
    try:
        return Survey.open(path, snapshot=snapshot)
    except SchemaError as error:
        if error.__cause__ is None:
            raise
        # Also what a damaged version looks like: it reads as one without a root.
        raise RuntimeError(f"no root in its newest version: {error.__cause__}") from error


def _kind(group: str) -> str | None:
    """What a group of rows holds; None for what is no group of ours to judge, like /sky."""
    kind = group.split("/")[0]
    return kind if kind in ledger.KINDS else None


@dataclass(frozen=True)
class Part:
    """One group."""

    group: str
    attrs: dict[str, Any]
    arrays: dict[str, zarr.Array[Any]]
    spectra: zarr.Array[Any] | None
    "Status of the spectra that it is made from."
    ahead: int
    "Blocks that are under way at a time."

    @property
    def rows(self) -> int:
        """Rows that it says it has."""
        return int(self.attrs["rows"])

    def of(self, *, wide: bool) -> dict[str, zarr.Array[Any]]:
        """Arrays with rows: those in chunks of a few hundred, or those in chunks of many."""
        found = {n: a for n, a in self.arrays.items() if chunks.axes(a)[:1] == ("spectrum",)}
        few = int(self.attrs["chunk_rows"])
        return {n: a for n, a in found.items() if (a.chunks[0] == few != COLUMN_ROWS) == wide}


def _store(survey: Survey, opened: Opened) -> Iterator[Finding]:
    try:
        survey.history()
    except LOST as error:
        what = f"its history cannot be read ({chunks.said(error)}): older versions are lost"
        yield Finding(group="/", what=what)
    for path, node in opened.root.members(max_depth=None):
        if not isinstance(node, zarr.Array):
            continue
        group = path.rpartition("/")[0]
        if not _kind(path):
            # Another's: what it means is not known, but it can be read or not.
            found = chunks.read(node, group, slice(0, *node.shape[:1]))
            yield from [found.finding()] if isinstance(found, Lost) else []
        elif group not in survey and path.endswith("/status"):
            yield Finding(group=group, what=f"holds arrays and does not say its rows; {CURE}")


def _alignment(survey: Survey, group: str) -> Iterator[Finding]:
    config = group.split("/")[1]
    if f"spectra/{config}" not in survey:
        yield Finding(group=group, what=f"no spectra/{config} beside it; ingest them again")
        return
    rows, expected = survey.rows(group), survey.rows(f"spectra/{config}")
    if rows != expected:
        yield Finding(group=group, what=f"{rows} rows, spectra/{config} has {expected}")


def _group(part: Part, whole: Audit, pool: Executor, root: str | None) -> Iterator[Finding | Lost]:
    yield from _attrs(part)
    sound = True
    for fault in _shape(part):
        sound = False
        yield fault
    for array in part.arrays.values():
        if "spectrum" not in chunks.axes(array):
            found = chunks.read(array, part.group, slice(0, part.rows))
            yield from [found] if isinstance(found, Lost) else []
    folder = _folder(part, root)
    if isinstance(folder, Finding):
        yield folder
    for first in range(0, part.rows, COLUMN_ROWS):
        rows = slice(first, min(first + COLUMN_ROWS, part.rows))
        columns, lost = _read(part, rows, wide=False)
        yield from lost
        yield from ledger.reasons(part.group, columns, first)
        if part.spectra is not None:
            above = chunks.read(part.spectra, part.group, rows)
            # That it is lost is said where it is.
            if not isinstance(above, Lost):
                yield from ledger.upstream(part.group, columns, above, first)
        if part.group.startswith("spectra/"):
            whole.add(part.group, columns, rows.stop - first)
            yield from audit.empties(part.group, columns, first, part.attrs)
            if isinstance(folder, Folder):
                yield from audit.files(part.group, columns, first, folder, pool)
        yield from _blocks(part, columns, rows, pool, sound)


def _folder(part: Part, root: str | None) -> Folder | Finding | None:
    """The files of a group of spectra, where they are asked for; or why they are not checked."""
    if root is None or not part.group.startswith("spectra/"):
        return None
    try:
        return audit.folder(part.group, part.attrs, root)
    except (ValueError, TypeError, ImportError) as error:
        said = " ".join(str(error).split())
        return Finding(group=part.group, what=f"its files cannot be checked: {said}")


def _attrs(part: Part) -> Iterator[Finding]:
    missing = [name for name in PROVENANCE if name not in part.attrs]
    if missing:
        yield Finding(group=part.group, what=f"no provenance: {', '.join(missing)}")
    if part.group.startswith("spectra/") and not part.attrs.get("complete"):
        what = "ingest is not finished; run `specmill ingest` again"
        yield Finding(group=part.group, what=what)
    unitless = [name for name, array in part.arrays.items() if "units" not in array.attrs]
    # The axis of an index set is its names.
    unitless = [n for n in unitless if chunks.axes(part.arrays[n]) != (n,)]
    if unitless:
        yield Finding(group=part.group, what=f"no units on {', '.join(unitless)}")


def _shape(part: Part) -> Iterator[Finding]:
    """Arrays that are missing, of another dtype or of other rows than their group."""
    for name, array in part.arrays.items():
        if chunks.axes(array)[:1] == ("spectrum",) and array.shape[0] != part.rows:
            what = f"'{name}' has {array.shape[0]} rows, its group has {part.rows}; {CURE}"
            yield Finding(group=part.group, what=what, array=name)
    if part.group.startswith("spectra/"):
        none = {n: np.asarray(a[0:0]) for n, a in part.arrays.items() if n in schema.SPECTRA}
        try:
            schema.check(_dataset(part, none), part.group)
        except SchemaError as error:
            yield Finding(group=part.group, what=str(error))


def _dataset(part: Part, values: dict[str, np.ndarray]) -> xr.Dataset:
    return xr.Dataset({n: (chunks.axes(part.arrays[n]), found) for n, found in values.items()})


def _read(part: Part, rows: slice, *, wide: bool) -> tuple[dict[str, np.ndarray], list[Lost]]:
    """What can be read of some rows, and what cannot."""
    found = {n: chunks.read(a, part.group, rows) for n, a in part.of(wide=wide).items()}
    good = {n: values for n, values in found.items() if not isinstance(values, Lost)}
    return good, [lost for lost in found.values() if isinstance(lost, Lost)]


def _blocks(
    part: Part, columns: dict[str, np.ndarray], rows: slice, pool: Executor, sound: bool
) -> Iterator[Finding | Lost]:
    """The pixel arrays of some rows, a chunk at a time, in order, with few under way."""
    step = int(part.attrs["chunk_rows"])
    under_way: deque[Future[list[Finding | Lost]]] = deque()
    for first in range(rows.start, rows.stop, step):
        block = slice(first, min(first + step, rows.stop))
        mine = {n: v[first - rows.start : block.stop - rows.start] for n, v in columns.items()}
        under_way.append(pool.submit(_block, part, mine, block, sound))
        if len(under_way) >= part.ahead:
            yield from under_way.popleft().result()
    while under_way:
        yield from under_way.popleft().result()


def _block(
    part: Part, columns: dict[str, np.ndarray], rows: slice, sound: bool
) -> list[Finding | Lost]:
    pixels, lost = _read(part, rows, wide=True)
    found: list[Finding | Lost] = [*lost]
    values = {**columns, **pixels}
    if sound and part.group.startswith("spectra/"):
        found += _values(part, values, rows)
    return [*found, *ledger.holes(part.group, values, rows.start)]


def _values(part: Part, values: dict[str, np.ndarray], rows: slice) -> Iterator[Finding]:
    """The invariants of a survey; what could not be read is taken as empty."""
    there = {name: values[name] for name in schema.SPECTRA if name in values}
    if "ivar" not in there:
        there.pop("flux", None)
    for name in schema.SPECTRA.keys() - there.keys():
        array = part.arrays[name]
        shape = (rows.stop - rows.start, *array.shape[1:])
        there[name] = np.zeros(shape, schema.dtype(schema.SPECTRA[name]))
    where = f"{part.group} rows {rows.start}:{rows.stop}, counted from {rows.start}"
    try:
        schema.check(_dataset(part, there), where)
    except SchemaError as error:
        yield Finding(group=part.group, what=str(error), rows=(rows.start, rows.stop))
