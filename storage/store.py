"""The store of a survey: one Icechunk repository, groups of aligned rows, versions.

A version is a commit; what is open for reading stays as it was while others write.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import icechunk
import xarray as xr
import zarr

from storage.schema import SCHEMA_VERSION, SchemaError

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
        """Make an empty store, or open the one that is there."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        repository = icechunk.Repository.open_or_create(location(path))
        # Icechunk's own first version is empty: one who was killed after it left no more.
        if len(list(repository.ancestry(branch="main"))) == 1:
            session = repository.writable_session("main")
            zarr.open_group(session.store, mode="a").attrs["specmill_schema"] = SCHEMA_VERSION
            session.commit("create")
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
        repository = icechunk.Repository.open(location(path))
        survey = cls(path, repository, _lookup(repository, snapshot, path))
        found = survey._root.attrs.get("specmill_schema")
        if found != SCHEMA_VERSION:
            raise SchemaError(
                f"{path}: written with schema version {found}, this specmill reads "
                f"{SCHEMA_VERSION}; use the specmill that wrote it, or ingest again"
            )
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
        """One group, lazily; as Dask arrays of whole chunks when asked.

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
        return found

    def chunk_rows(self, group: str) -> int:
        """Rows of one chunk of the group's pixel arrays: what a block is made of."""
        return int(self._root[group].attrs["chunk_rows"])  # type: ignore[arg-type]  # we wrote an int

    def rows(self, group: str) -> int:
        """Rows of a group."""
        return int(self._root[group].attrs["rows"])  # type: ignore[arg-type]  # we wrote an int

    def attrs(self, group: str) -> dict[str, Any]:
        """Attributes of a group: where it came from."""
        return dict(self._root[group].attrs)

    def history(self) -> list[Version]:
        """All versions, the newest first."""
        return [
            Version(
                snapshot=info.id,
                written=info.written_at,
                message=info.message,
                metadata=dict(info.metadata),
            )
            for info in self._repository.ancestry(branch="main")
        ]


def exists(path: str) -> bool:
    """Whether there is a store."""
    return Path(path).is_dir() and icechunk.Repository.exists(location(path))


def location(path: str) -> icechunk.Storage:
    """Where Icechunk finds the store of a path.

    Raises
    ------
    ValueError
        When the path does not end in .icechunk.
    """
    if not path.rstrip("/").endswith(".icechunk"):
        raise ValueError(f"{path}: the folder of a store ends in .icechunk")
    found: icechunk.Storage = icechunk.local_filesystem_storage(str(Path(path).absolute()))
    return found


def _root(store: icechunk.IcechunkStore, path: str) -> zarr.Group:
    try:
        return zarr.open_group(store, mode="r")
    except FileNotFoundError as error:
        raise SchemaError(
            f"{path}: a store whose making was broken off; `specmill ingest` makes it whole"
        ) from error


def _lookup(repository: icechunk.Repository, snapshot: str | None, path: str) -> str:
    if snapshot is None:
        return str(repository.lookup_branch("main"))
    if snapshot in repository.list_tags():
        return str(repository.lookup_tag(snapshot))
    try:
        return str(repository.lookup_snapshot(snapshot).id)
    except (ValueError, icechunk.IcechunkError) as error:
        raise ValueError(
            f"{path}: no snapshot or tag {snapshot!r}; `specmill history {path}` lists them"
        ) from error
