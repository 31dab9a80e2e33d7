"""Writing to a store: one coordinator, any number of workers, one transaction at a time.

The rule that keeps rows: workers write blocks of whole chunks, the coordinator merges them, writes
the columns and commits. Two forks in one chunk would merge without an error and lose rows, so they
are refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from storage import schema
from storage.lease import Lease
from storage.schema import Field
from storage.store import location

CHUNK_ROWS = 512
"Rows of one chunk of a (spectrum, pixel) array."
COLUMN_ROWS = 65_536
"Rows of one chunk of a column, so that a column query is fast."
WORKER_DIMS = frozenset({"wavelength", "latent"})
"Arrays with one of these axes are written by workers, in blocks; all others by the coordinator."


class WriteError(ValueError):
    """A write that would lose rows."""


@contextmanager
def writing(path: str, job: str) -> Iterator["Writer"]:
    """The right to write to a store, for one coordinator at a time.

    Raises
    ------
    LeaseError
        When another one has it.
    """
    lease = Lease(path, job)
    try:
        yield Writer(path, icechunk.Repository.open(location(path)), lease)
    finally:
        lease.release()


@dataclass
class Fork:
    """A worker's part of a transaction: pickled to it, written by it, returned by it."""

    session: icechunk.ForkSession
    "What Icechunk merges."
    base: str
    "Snapshot that it started from."
    claims: set[tuple[str, int]] = field(default_factory=set)
    "Chunks written: (array, number of the chunk)."

    def write_block(self, group: str, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write rows from `first` on of (spectrum, ...) arrays: whole chunks, or up to the end.

        Raises
        ------
        WriteError
            When the rows begin or end inside a chunk, or a chunk was written before.
        """
        target = zarr.open_group(self.session.store, path=group, mode="r+")
        for name, values in arrays.items():
            array = target[name]
            assert isinstance(array, zarr.Array)
            rows, last = array.chunks[0], first + len(values)
            if first % rows or (last % rows and last != array.shape[0]):
                raise WriteError(
                    f"{group}/{name}: rows {first}:{last} are not whole chunks of {rows} "
                    f"(of {array.shape[0]}); a block begins and ends where chunks do"
                )
            self._claim(f"{group}/{name}", range(first // rows, -(-last // rows)))
            array[first:last] = values

    def _claim(self, array: str, chunks: Iterable[int]) -> None:
        wanted = {(array, chunk) for chunk in chunks}
        _refuse_overlap(self.claims, wanted)
        self.claims |= wanted


class Writer:
    """The coordinator's side of a store: structure, columns, merge, commit."""

    def __init__(self, path: str, repository: icechunk.Repository, lease: Lease) -> None:
        """Use `writing`."""
        self.path = path
        self.lease = lease
        self._repository = repository
        self._session = repository.writable_session("main")
        self._base = ""
        self._claims: set[tuple[str, int]] = set()

    @property
    def _root(self) -> zarr.Group:
        return zarr.open_group(self._session.store, mode="r+")

    def _group(self, group: str) -> zarr.Group:
        found = self._root[group]
        assert isinstance(found, zarr.Group)
        return found

    def create_group(
        self,
        group: str,
        template: xr.Dataset,
        attrs: Mapping[str, Any],
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        """Make a group of the template's shape; coordinates are written, values are not."""
        made = self._root.create_group(group)
        made.attrs.update({"rows": template.sizes["spectrum"], "chunk_rows": chunk_rows, **attrs})
        for name, variable in template.variables.items():
            array = _make(made, str(name), variable, chunk_rows)
            if "spectrum" not in variable.dims:
                array[:] = variable.to_numpy()

    def add_column(
        self,
        group: str,
        name: str,
        field: Field,
        values: np.ndarray,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Give a group one more column with its values; attrs say where it came from.

        Raises
        ------
        WriteError
            When the group has a variable of that name, or another number of rows.
        """
        target, rows = self._group(group), self.rows(group)
        if name in target:
            raise WriteError(f"{self.path}/{group}: has a variable {name!r}; delete it first")
        if field.dims != ("spectrum",) or np.shape(values) != (rows,):
            raise WriteError(
                f"{self.path}/{group}: column {name!r} has axes {field.dims} and shape "
                f"{np.shape(values)}, expected ('spectrum',) and ({rows},)"
            )
        about = {**schema.attrs(field), **(attrs or {})}
        column = xr.Variable("spectrum", np.asarray(values, schema.dtype(field)), about)
        _make(target, name, column, CHUNK_ROWS)[:] = column.to_numpy()

    def delete_column(self, group: str, name: str) -> None:
        """Drop a variable of a group from this version on; older versions keep it.

        Raises
        ------
        KeyError
            When there is none.
        """
        if name not in (target := self._group(group)):
            raise KeyError(f"{self.path}/{group}: no variable {name!r}")
        del target[name]

    def resize(self, group: str, rows: int) -> None:
        """Give a group more rows, of the fill value (status pending); commit it by itself.

        Raises
        ------
        WriteError
            When it has more rows already.
        """
        if rows < self.rows(group):
            raise WriteError(f"{self.path}/{group}: has {self.rows(group)} rows, {rows} are fewer")
        target = self._group(group)
        for _, array in target.arrays():
            names = array.metadata.dimension_names or ()  # type: ignore[union-attr]  # Zarr v3
            if names[:1] == ("spectrum",):
                array.resize((rows, *array.shape[1:]))
        target.attrs["rows"] = rows

    def resize_all(self, config: str, rows: int) -> list[str]:
        """Give every group of a configuration as many rows, so that they stay aligned.

        Returns the groups that grew; their new rows are pending. Commit it by itself.
        """
        grown = [
            path
            for path, node in sorted(self._root.members(max_depth=None))
            if path.split("/")[1:2] == [config] and node.attrs.get("rows", rows) != rows
        ]
        for group in grown:
            self.resize(group, rows)
        return grown

    def reset(self, group: str, rows: np.ndarray) -> None:
        """Make rows of a group pending again, by number or by a mask: they are done anew."""
        target = self._group(group)
        for name in schema.LEDGER:
            array = target[name]
            assert isinstance(array, zarr.Array)
            array.oindex[np.asarray(rows)] = 0

    def delete_group(self, group: str) -> None:
        """Drop a group from this version on; older versions keep it."""
        del self._root[group]

    def fork(self) -> Fork:
        """A part of the work for workers, before any other write since the last commit.

        Every worker gets its own copy of one fork; what they return is absorbed in any order and
        over any number of commits, until the next fork is made.
        """
        self._base, self._claims = self._session.snapshot_id, set()
        return Fork(self._session.fork(), self._base)

    def absorb(self, forks: Iterable[Fork]) -> None:
        """Take what workers wrote into the transaction.

        Raises
        ------
        WriteError
            When two of them wrote one chunk: merged, the rows of one would be lost. When one is
            older than the last call of `fork`.
        """
        for fork in forks:
            if fork.base != self._base:
                raise WriteError(
                    f"{self.path}: a worker wrote from version {fork.base}, the work goes on from "
                    f"{self._base}; run its block again"
                )
            _refuse_overlap(self._claims, fork.claims)
            self._claims |= fork.claims
            self._session.merge(fork.session)

    def write_columns(self, group: str, first: int, columns: Mapping[str, np.ndarray]) -> None:
        """Write rows from `first` on of columns; the coordinator may write parts of chunks."""
        target = self._group(group)
        for name, values in columns.items():
            array = target[name]
            assert isinstance(array, zarr.Array)
            array[first : first + len(values)] = values

    def read_column(self, group: str, name: str) -> np.ndarray:
        """A column as this transaction sees it."""
        array = self._root[f"{group}/{name}"]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[:])

    def __contains__(self, group: str) -> bool:
        return group in self._root and "rows" in self._root[group].attrs

    def attrs(self, group: str) -> dict[str, Any]:
        """Attributes of a group as this transaction sees them."""
        return dict(self._root[group].attrs)

    def rows(self, group: str) -> int:
        """Rows of a group as this transaction sees it."""
        return int(self.attrs(group)["rows"])

    def set_attrs(self, group: str, attrs: Mapping[str, Any]) -> None:
        """Add attributes to a group."""
        self._root[group].attrs.update(dict(attrs))

    def commit(self, message: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Make everything since the last commit a version; gives its snapshot.

        Raises
        ------
        LeaseError
            When the lease is no longer ours: nothing is committed.
        WriteError
            When somebody else committed meanwhile.
        """
        self.lease.check()
        self._check_tip(self._session.snapshot_id)
        snapshot = self._session.commit(message, dict(metadata or {}))
        self._check_tip(snapshot)
        self.lease.renew()
        self._session = self._repository.writable_session("main")
        return str(snapshot)

    def _check_tip(self, expected: str) -> None:
        tip = self._repository.lookup_branch("main")
        if tip != expected:
            raise WriteError(
                f"{self.path}: version {tip} was committed by another writer after {expected}; "
                "stop the other one and start again: pending rows are done then"
            )


def _make(group: zarr.Group, name: str, variable: xr.Variable, chunk_rows: int) -> zarr.Array[Any]:
    """An array of the variable's shape; its values are not written."""
    axes = [str(dim) for dim in variable.dims]
    rows = chunk_rows if WORKER_DIMS & set(axes) else COLUMN_ROWS
    return group.create_array(
        name,
        shape=variable.shape,
        chunks=tuple(rows if d == "spectrum" else max(n, 1) for d, n in variable.sizes.items()),
        dtype=str if variable.dtype.kind == "T" else variable.dtype,
        compressors=[BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()],
        dimension_names=axes,
        attributes=dict(variable.attrs),
        fill_value=_fill(variable),
    )


def _fill(variable: xr.Variable) -> Any:
    if variable.dtype.kind == "T":
        return ""
    # A pixel that is missing is 0, with an ivar of 0; a number that is missing is none.
    column = variable.dtype.kind == "f" and not WORKER_DIMS & set(variable.dims)
    lacking = np.nan if column else 0
    return variable.dtype.type(lacking)


def _refuse_overlap(taken: set[tuple[str, int]], wanted: set[tuple[str, int]]) -> None:
    twice = sorted(taken & wanted)
    if twice:
        array, chunk = twice[0]
        raise WriteError(
            f"{array}: chunk {chunk} is written twice in one transaction "
            f"({len(twice)} such chunks); give every block to one worker only"
        )
