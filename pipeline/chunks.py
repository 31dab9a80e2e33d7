"""Chunks of a store, one by one: what is listed, what can be read, and what is lost.

Icechunk keeps a list of the chunks of every array, its manifest, as a compressed file without a
checksum. A damaged list may read well and name other chunks, and what is in no list reads as empty:
so the lists are counted against the numbers in the version's own file.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import icechunk
import numpy as np
import zarr

from storage.place import location

# The codecs raise these for a wrong checksum, Icechunk its own for a missing chunk.
LOST = (ValueError, RuntimeError, OSError, icechunk.IcechunkError)
CURE = "put the store back from a copy, or make it again"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a store."""

    group: str
    "Where; '/' for the store itself."
    what: str
    "What, which rows, and the cure."
    array: str = ""
    "Which array of the group, where it is one."
    rows: tuple[int, int] | None = None
    "First row and the row after the last, where it is a range."


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Rows of an array that cannot be read."""

    group: str
    array: str
    rows: tuple[int, int]
    error: str
    "The first line of what was raised."
    chunks: int = 1

    def finding(self) -> Finding:
        """In words."""
        first, last = self.rows
        many = f"{self.chunks} chunks; the first: " if self.chunks > 1 else ""
        what = f"'{self.array}' cannot be read in rows {first}:{last} ({many}{self.error}); {CURE}"
        return Finding(group=self.group, what=what, array=self.array, rows=self.rows)


@dataclass(frozen=True)
class Opened:
    """One version of a store, as arrays."""

    repository: icechunk.Repository
    session: icechunk.Session
    root: zarr.Group
    nodes: dict[str, Any] = field(repr=False)
    "What Icechunk says of the version: its manifests, and those of each array."

    @classmethod
    def open(cls, path: str, snapshot: str) -> "Opened":
        """A store at a snapshot."""
        repository = icechunk.Repository.open(location(path))
        session = repository.readonly_session(snapshot_id=snapshot)
        root = zarr.open_group(session.store, mode="r")
        return cls(repository, session, root, json.loads(repository.inspect_snapshot(snapshot)))

    def arrays(self, group: str) -> dict[str, zarr.Array[Any]]:
        """Arrays of a group, by name."""
        node = self.root[group]
        assert isinstance(node, zarr.Group)
        return dict(sorted(node.arrays()))

    def listed(self, path: str) -> list[tuple[int, ...]]:
        """Chunks of an array that its manifests name."""

        async def collect() -> list[tuple[int, ...]]:
            return [tuple(place) async for place in self.session.chunk_coordinates(f"/{path}")]

        # A notebook has a running loop of its own, in which no other one can be run.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, collect()).result()


def read(array: zarr.Array[Any], group: str, rows: slice) -> np.ndarray | Lost:
    """Rows of an array, or that they are lost; whole arrays of other axes."""
    try:
        return np.asarray(array[rows] if axes(array)[:1] == ("spectrum",) else array[...])
    except LOST as error:
        return Lost(
            group=group, array=array.basename, rows=(rows.start, rows.stop), error=said(error)
        )


def axes(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of the axes of an array."""
    names = array.metadata.dimension_names or ()  # type: ignore[union-attr]  # Zarr v3
    return tuple(str(name) for name in names)


def said(error: Exception) -> str:
    """The line of an error that says most: Icechunk's own ends in the cause."""
    lines = [line.strip(" |x`'─▶╰├-") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)


def merged(found: Iterable[Finding | Lost]) -> Iterator[Finding]:
    """Findings, with lost chunks of one array that lie side by side in one."""
    held: dict[tuple[str, str], Lost] = {}
    for one in found:
        if isinstance(one, Finding):
            yield one
            continue
        key = (one.group, one.array)
        before = held.get(key)
        if before is not None and before.rows[1] == one.rows[0]:
            rows = (before.rows[0], one.rows[1])
            held[key] = replace(before, rows=rows, chunks=before.chunks + 1)
        else:
            held[key] = one
            if before is not None:
                yield before.finding()
    yield from (lost.finding() for lost in held.values())


def unlisted(opened: Opened) -> Iterator[Finding]:
    """Chunks that a version counts and its manifests do not name: they read as empty."""
    size = {m["id"]: int(m["num_chunk_refs"]) for m in opened.nodes["manifests"]}
    arrays = {n["path"].strip("/"): n.get("manifest_refs", []) for n in opened.nodes["nodes"]}
    users = Counter(ref["id"] for refs in arrays.values() for ref in refs)
    for path, node in sorted(opened.root.members(max_depth=None)):
        mine = {ref["id"] for ref in arrays.get(path, [])}
        # Of a manifest that serves several arrays the count says nothing about one of them.
        if isinstance(node, zarr.Array) and all(users[one] == 1 for one in mine):
            group = path.rpartition("/")[0]
            yield from _unlisted(opened, group, node, sum(size[one] for one in mine))


def _unlisted(
    opened: Opened, group: str, array: zarr.Array[Any], counted: int
) -> Iterator[Finding]:
    name = array.basename
    try:
        listed = set(opened.listed(f"{group}/{name}"))
    except LOST as error:
        what = f"the list of the chunks of '{name}' cannot be read ({said(error)}); {CURE}"
        yield Finding(group=group, what=what, array=name)
        return
    # A shard is what Icechunk knows as a chunk.
    sizes = array.shards or array.chunks
    places = [-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]
    inside = {p for p in listed if len(p) == len(places) and all(map(int.__lt__, p, places))}
    if len(inside) == counted and inside == listed:
        return
    step = sizes[0]
    absent = sorted(set(range(places[0])) - {place[0] for place in inside})
    spans = [f"{i * step}:{min((i + 1) * step, array.shape[0])}" for i in absent]
    more = f" and {len(spans) - 5} more" if len(spans) > 5 else ""
    what = (
        f"'{name}' has {counted} chunks and its list names {len(inside)} of them: the list is "
        f"damaged, and rows read as empty, among {', '.join(spans[:5]) or 'any'}{more}; {CURE}"
    )
    rows = (absent[0] * step, min((absent[-1] + 1) * step, array.shape[0])) if absent else None
    yield Finding(group=group, what=what, array=name, rows=rows)
