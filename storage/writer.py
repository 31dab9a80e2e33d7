"""Writing to a store: one coordinator, any number of workers, one transaction at a time.

The rule that keeps rows: workers write blocks of whole chunks, the coordinator merges them, writes
the columns and commits. Two forks in one chunk would merge without an error and lose rows, so they
are refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import icechunk
import numpy as np
import xarray as xr
import zarr

from storage import schema
from storage.chunks import CHUNK_ROWS as CHUNK_ROWS
from storage.chunks import COLUMN_ROWS as COLUMN_ROWS
from storage.chunks import WORKER_DIMS as WORKER_DIMS
from storage.chunks import make_array
from storage.clock import catch_up
from storage.fork import Fork as Fork
from storage.fork import WriteError as WriteError
from storage.fork import refuse_overlap
from storage.lease import Lease
from storage.place import alone, exists, location, reaching
from storage.schema import Field


@contextmanager
def writing(path: str, job: str) -> Iterator["Writer"]:
    """The right to write to a store, for one coordinator at a time.

    Raises
    ------
    FileNotFoundError
        When there is no store at the path.
    LeaseError
        When another one has it.
    """
    if not exists(path):
        raise FileNotFoundError(f"{path}: no survey store here; `specmill ingest` makes one")
    lease = Lease(path, job)
    try:
        with reaching(path):
            repository = icechunk.Repository.open(location(path))
        yield Writer(path, repository, lease)
    finally:
        lease.release()


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
    def snapshot(self) -> str:
        """The version that this transaction goes on from."""
        return str(self._session.snapshot_id)

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
        made, rows = self._root.create_group(group), template.sizes["spectrum"]
        made.attrs.update({"rows": rows, "chunk_rows": chunk_rows, **attrs})
        for name, variable in template.variables.items():
            array = make_array(made, str(name), variable, chunk_rows)
            if "spectrum" not in variable.dims:
                with reaching(self.path):
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
        with reaching(self.path):
            make_array(target, name, column, CHUNK_ROWS)[:] = column.to_numpy()

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
        mine = [group for group in self.groups() if group.split("/")[1:2] == [config]]
        grown = [group for group in mine if self.rows(group) != rows]
        for group in grown:
            self.resize(group, rows)
        return grown

    def reset(self, group: str, rows: np.ndarray) -> None:
        """Make rows of a group pending again, by number or by a mask: they are done anew."""
        target = self._group(group)
        for name in schema.LEDGER:
            array = target[name]
            assert isinstance(array, zarr.Array)
            with reaching(self.path):
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
        return Fork(self._session.fork(), self._base, path=self.path)

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
            refuse_overlap(self._claims, fork.claims)
            self._claims |= fork.claims
            self._session.merge(fork.session)

    def write_columns(self, group: str, first: int, columns: Mapping[str, np.ndarray]) -> None:
        """Write rows from `first` on of columns; the coordinator may write parts of chunks."""
        target = self._group(group)
        for name, values in columns.items():
            array = target[name]
            assert isinstance(array, zarr.Array)
            with reaching(self.path):
                array[first : first + len(values)] = values

    def read_column(self, group: str, name: str) -> np.ndarray:
        """A column as this transaction sees it."""
        array = self._root[f"{group}/{name}"]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[:])

    def groups(self) -> list[str]:
        """Paths of the groups that hold rows, as this transaction sees them, sorted."""
        members = self._root.members(max_depth=None)
        return sorted(path for path, node in members if "rows" in node.attrs)

    def has(self, group: str, name: str) -> bool:
        """Whether a group has a variable."""
        return name in self._group(group)

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
            When somebody else committed meanwhile: nothing is committed.
        StoreError
            When the disk or the bucket refuses: nothing is committed.
        """
        with reaching(self.path):
            catch_up(self._repository.lookup_snapshot(self.snapshot).written_at)
        with alone(self.path), reaching(self.path):
            self.lease.check()
            self._check_tip(self.snapshot)
            try:
                snapshot = self._session.commit(message, dict(metadata or {}))
            except icechunk.ConflictError:
                raise self._overtaken() from None
            self._check_tip(snapshot)
            self.lease.renew()
            self._session = self._repository.writable_session("main")
        return str(snapshot)

    def _check_tip(self, expected: str) -> None:
        if self._repository.lookup_branch("main") != expected:
            raise self._overtaken()

    def _overtaken(self) -> WriteError:
        tip, base = self._repository.lookup_branch("main"), self._session.snapshot_id
        return WriteError(
            f"{self.path}: version {tip} was committed by another writer after {base}; "
            "stop the other one and start again: pending rows are done then"
        )
