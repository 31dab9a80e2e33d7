"""Arrivals: what a folder of survey files holds that its store does not, or holds otherwise.

A file is known by its path below the root and told apart by size and time; only where those differ
is its content hashed. A file that is read beside it, such as one of redshifts, counts as its own.
Rows of the store keep their places, whatever comes, changes or goes.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import files
from storage.reader import Reader, Source
from storage.schema import Status

STEP_ROWS = 65_536
"Rows that are looked at, and appended, at a time."
NEEDED = ("source", "source_row", "source_size", "source_time", "status")
"Columns of the store that say what it has."

Integers = NDArray[np.int64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Folder:
    """A survey's folder, as its reader sees it."""

    reader: Reader
    "Says which files are beside which."
    root: str
    "Folder of the survey."
    config: str
    "Configuration."

    def sources(self) -> Iterator[Source]:
        """What the reader finds."""
        return self.reader.find(self.root, self.config)

    def files(self, path: str) -> list[str]:
        """A file and those beside it."""
        return [path, *self.reader.beside(path, self.root, self.config)]

    def digest(self, path: str) -> str:
        """That of a file and those beside it; empty when it cannot be read."""
        return files.digest(self.files(path))

    def facts(self, paths: Sequence[str]) -> Integers:
        """Size and time (N, 2) of files and those beside them; see `storage.files.facts`."""
        known = {path: files.facts(self.files(path)) for path in dict.fromkeys(paths)}
        return np.array([known[path] for path in paths], np.int64).reshape(len(paths), 2)


@dataclass(frozen=True, kw_only=True)
class Files:
    """Rows of a folder, in the order of the reader."""

    paths: tuple[str, ...]
    "One for each row."
    rows: Integers
    "Row in that file."
    size: Integers
    "Bytes; -1 where there is no such file."
    time: Integers
    "Modification, ns since 1970."

    def take(self, chosen: NDArray[np.bool_]) -> "Files":
        """Some of the rows."""
        return Files(
            paths=tuple(self.paths[row] for row in np.flatnonzero(chosen)),
            rows=self.rows[chosen],
            size=self.size[chosen],
            time=self.time[chosen],
        )

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Some rows of the folder, held against the store."""

    new: Files
    "Rows that the store does not have."
    touched: Files
    "Rows whose file has another size or time than when it was read."
    touched_at: Integers
    "Their rows in the store."


@dataclass
class Known:
    """What a store has, and what of it was seen in the folder."""

    columns: Mapping[str, Any]
    "(N,) each, of `NEEDED`."
    seen: NDArray[np.bool_] = field(init=False)
    "(N,) rows that were found in the folder."

    def __post_init__(self) -> None:
        names = [str(name) for name in self.columns["source"]]
        keys = _keys(names, self.columns["source_row"])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self.seen = np.zeros(len(names), bool)

    def compare(self, rows: Files, root: str) -> Step:
        """Hold rows of the folder against the store."""
        at = self._find(_keys([relative(path, root) for path in rows.paths], rows.rows))
        there = at >= 0
        self.seen[at[there]] = True
        row = np.maximum(at, 0)
        differs = np.zeros(len(rows), bool)
        if len(self.seen):
            size, time = (self.columns[name][row] for name in ("source_size", "source_time"))
            read = self.columns["status"][row] != Status.PENDING
            # A file that is gone takes nothing with it.
            differs = there & read & (rows.size >= 0)
            differs &= (size != rows.size) | (time != rows.time)
        return Step(new=rows.take(~there), touched=rows.take(differs), touched_at=at[differs])

    def gone(self, paths: Iterable[str]) -> Integers:
        """Rows of files that hold other content now, and these rows no more."""
        changed = set(paths)
        missing = np.flatnonzero(~self.seen)
        lost = [row for row in missing if str(self.columns["source"][row]) in changed]
        return np.array(lost, np.int64)

    def _find(self, keys: NDArray[np.uint64]) -> Integers:
        if not len(self._keys):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._order[place], -1)


def steps(folder: Folder) -> Iterator[Files]:
    """Rows of a folder, with the size and time of their files, `STEP_ROWS` at a time."""
    held: list[tuple[str, int]] = []
    for source in folder.sources():
        one = len(source.files) == 1
        places = range(source.start, source.start + source.rows)
        held += zip(source.files * source.rows, places, strict=True) if one else _firsts(source)
        while len(held) >= STEP_ROWS:
            yield _files(held[:STEP_ROWS], folder)
            held = held[STEP_ROWS:]
    if held:
        yield _files(held, folder)


def sources(paths: Iterable[str], rows: Integers) -> Iterator[Source]:
    """The sources that hold rows of files, in order: the way back from a store's columns."""
    singles: list[str] = []
    for path, first, count in _runs(paths, rows):
        if (first, count) == (0, 1):
            singles.append(path)
            continue
        if singles:
            yield Source(files=tuple(singles), rows=len(singles))
            singles = []
        yield Source(files=(path,), rows=count, start=first)
    if singles:
        yield Source(files=tuple(singles), rows=len(singles))


def relative(path: str, root: str) -> str:
    """A path as the store names it."""
    return os.path.relpath(path, root)


def _firsts(source: Source) -> list[tuple[str, int]]:
    return [(path, 0) for path in source.files]


def _files(held: list[tuple[str, int]], folder: Folder) -> Files:
    paths = tuple(path for path, _ in held)
    size, time = folder.facts(paths).T
    return Files(
        paths=paths,
        rows=np.array([row for _, row in held], np.int64),
        size=size,
        time=time,
    )


def _keys(names: list[str], rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A number for each (file, row): 64 bits of a hash tell 100 million of them apart."""
    hashed: dict[str, int] = {}
    for name in names:
        if name not in hashed:
            code = hashlib.blake2b(name.encode(), digest_size=8).digest()
            hashed[name] = int.from_bytes(code, "little")
    files = np.array([hashed[name] for name in names], np.uint64)
    return files ^ (np.asarray(rows).astype(np.uint64) * _GOLDEN)


def _runs(paths: Iterable[str], rows: Integers) -> Iterator[tuple[str, int, int]]:
    """(file, first row, rows) of runs of successive rows."""
    begun: tuple[str, int, int] | None = None
    for path, row in zip(paths, rows.tolist(), strict=True):
        if begun and begun[0] == path and row == begun[1] + begun[2]:
            begun = (path, begun[1], begun[2] + 1)
            continue
        if begun:
            yield begun
        begun = (path, row, 1)
    if begun:
        yield begun
