"""The store of a survey: one Icechunk repository, groups of aligned rows, versions.

A version is a commit; what is open for reading stays as it was while others write.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import icechunk
import numpy as np
import xarray as xr
import zarr

from storage.lease import Lease, LeaseError
from storage.place import exists as exists
from storage.place import location as location
from storage.place import make_room, reaching
from storage.schema import SCHEMA_VERSION, SchemaError

WAIT_S = 60.0
"How long `Survey.create` waits for another process that makes the same store, s."
KEPT = "kept-"
"How the branch begins that keeps an old version; its snapshot follows."

# Icechunk logs on stdout that local commits need one committer; the lease sees to that.
icechunk.set_logs_filter("error")


@dataclass(frozen=True, kw_only=True)
class Version:
    """One commit of a store."""

    snapshot: str
    "Id, by which it can be opened again."
    written: datetime
    "When."
    message: str
    "What, in words."
    metadata: dict[str, Any]
    "Who: job, code version, card digest."
    tags: tuple[str, ...] = ()
    "Names that it was given, sorted."


class Survey:
    """A store opened for reading at one snapshot."""

    def __init__(self, path: str, repository: icechunk.Repository, snapshot: str) -> None:
        """Use `Survey.open` or `Survey.create`."""
        self.path = path
        self.snapshot = snapshot
        self._repository = repository
        self._store = repository.readonly_session(snapshot_id=snapshot).store
        self._root = _root(self._store, path)

    @classmethod
    def create(cls, path: str) -> Self:
        """Make an empty store, or open the one that is there; two may do so at once.

        Raises
        ------
        LeaseError
            When another process has been making it for `WAIT_S`.
        StoreError
            When it cannot be written.
        """
        end = time.monotonic() + WAIT_S
        while not (exists(path) and _is_whole(path)):
            try:
                lease = Lease(path, "create")
            except LeaseError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
                continue
            try:
                _make(path)
            finally:
                lease.release()
        return cls.open(path)

    @classmethod
    def open(cls, path: str, *, snapshot: str | None = None) -> Self:
        """Open a store at a snapshot or tag; at its newest version when None.

        Raises
        ------
        FileNotFoundError
            When there is no store at the path.
        SchemaError
            When it was written by another schema version.
        ValueError
            When there is no such snapshot or tag.
        """
        if not exists(path):
            raise FileNotFoundError(f"{path}: no survey store here; `specmill ingest` makes one")
        with reaching(path):
            repository = icechunk.Repository.open(location(path))
            survey = cls(path, repository, lookup(repository, snapshot, path))
        _check_version(survey._root.attrs.get("specmill_schema"), path, newest=snapshot is None)
        return survey

    def groups(self) -> list[str]:
        """Paths of the groups that hold rows, sorted."""
        return sorted(
            path
            for path, node in self._root.members(max_depth=None)
            if isinstance(node, zarr.Group) and "rows" in node.attrs
        )

    def __contains__(self, group: str) -> bool:
        return group in self._root and "rows" in self._root[group].attrs

    def dataset(self, group: str, *, dask: bool = False) -> xr.Dataset:
        """One group, its variables by name, lazily; as Dask arrays of whole chunks when asked.

        Raises
        ------
        KeyError
            When there is no such group; names those there are.
        """
        if group not in self:
            raise KeyError(f"{self.path}: no group {group!r} (there: {', '.join(self.groups())})")
        found: xr.Dataset = xr.open_zarr(
            self._store,
            group=group,
            consolidated=False,
            zarr_format=3,
            chunks={} if dask else None,
        )
        # Zarr lists members as they arrive: another order each time, and so of exported columns.
        names = sorted(map(str, found.data_vars))
        return found.drop_vars(names).assign({name: found.variables[name] for name in names})

    def chunk_rows(self, group: str) -> int:
        """Rows of one chunk of the group's pixel arrays: what a block is made of."""
        return int(self._root[group].attrs["chunk_rows"])  # type: ignore[arg-type]  # we wrote an int

    def rows(self, group: str) -> int:
        """Rows of a group."""
        return int(self._root[group].attrs["rows"])  # type: ignore[arg-type]  # we wrote an int

    def read_column(self, group: str, name: str) -> np.ndarray:
        """A column of a group, as an array."""
        return self.dataset(group)[name].to_numpy()

    def attrs(self, group: str) -> dict[str, Any]:
        """Attributes of a group: where it came from."""
        return dict(self._root[group].attrs)

    def history(self) -> list[Version]:
        """All versions, the newest first; of those that were expired, the ones that were kept."""
        tags = tags_of(self._repository)
        line = list(self._repository.ancestry(branch="main"))
        heads = [{"tag": name} for name in tags]
        heads += [{"branch": name} for name in kept_of(self._repository)]
        named = {i.id: i for head in heads for i in [next(self._repository.ancestry(**head))]}
        off = [named[snapshot] for snapshot in named.keys() - {info.id for info in line}]
        off.sort(key=lambda info: info.written_at, reverse=True)
        return [
            Version(
                snapshot=info.id,
                written=info.written_at,
                message=info.message,
                metadata=dict(info.metadata),
                tags=tuple(name for name, snapshot in tags.items() if snapshot == info.id),
            )
            # What was expired is older than what was not, and younger than the empty beginning.
            for info in [*line[:-1], *off, line[-1]]
        ]


def tags_of(repository: icechunk.Repository) -> dict[str, str]:
    """The snapshot of every tag, by name."""
    return {name: str(repository.lookup_tag(name)) for name in sorted(repository.list_tags())}


def kept_of(repository: icechunk.Repository) -> list[str]:
    """Branches of one old version each, which something in the store names; see `versions`."""
    return sorted(name for name in repository.list_branches() if name.startswith(KEPT))


def schema_version(path: str) -> Any:
    """The schema version of a store's newest version, as it stands there; None where it lacks."""
    with reaching(path):
        session = icechunk.Repository.open(location(path)).readonly_session("main")
        return _root(session.store, path).attrs.get("specmill_schema")


def _make(path: str) -> None:
    with reaching(path):
        make_room(path)
        repository = icechunk.Repository.open_or_create(location(path))
        session = repository.writable_session("main")
        root = zarr.open_group(session.store, mode="a")
        if root.attrs.get("specmill_schema") is None:
            root.attrs["specmill_schema"] = SCHEMA_VERSION
            session.commit("create")


def _is_whole(path: str) -> bool:
    try:
        return schema_version(path) is not None
    except SchemaError:
        return False


def _check_version(found: object, path: str, *, newest: bool) -> None:
    if found == SCHEMA_VERSION:
        return
    words = f"{path}: written with schema version {found}, this specmill reads {SCHEMA_VERSION}"
    if isinstance(found, int) and found < SCHEMA_VERSION:
        raise SchemaError(
            f"{words}; `specmill migrate {path}` brings it up to date"
            if newest
            else f"{words}; past versions stay as they are: open the newest one (after "
            f"`specmill migrate {path}`), or use the specmill that wrote this"
        )
    raise SchemaError(
        f"{words}: a newer specmill wrote it; use the specmill that wrote it, or ingest again"
    )


def _root(store: icechunk.IcechunkStore, path: str) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r")
    except FileNotFoundError as error:
        raise SchemaError(
            f"{path}: a store whose making was broken off; `specmill ingest` makes it whole"
        ) from error


def lookup(repository: icechunk.Repository, snapshot: str | None, path: str) -> str:
    """The id of a snapshot or tag; of the newest version when None.

    Raises
    ------
    ValueError
        When there is none such.
    """
    if snapshot is None:
        return str(repository.lookup_branch("main"))
    if snapshot in repository.list_tags():
        return str(repository.lookup_tag(snapshot))
    try:
        return str(repository.lookup_snapshot(snapshot).id)
    except (ValueError, icechunk.IcechunkError) as error:
        raise ValueError(
            f"{path}: no snapshot or tag {snapshot!r}, or it was expired; "
            f"`specmill history {path}` lists those there are"
        ) from error
