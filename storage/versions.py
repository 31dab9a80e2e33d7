"""Versions of a store: names for them, and the space of those that nobody needs any more."""

import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime

import icechunk

from storage import shadow
from storage.lease import Lease
from storage.place import exists, location, reaching
from storage.store import lookup, tags_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Freed:
    """What expiry freed, or would free."""

    snapshots: int
    "Versions that can be read no more."
    chunks: int
    "Chunks that only they had, or that a killed writer left."
    bytes: int
    "Of all that was deleted, byte."
    kept: int
    "Versions that stay: the newest, younger ones and tagged ones."
    dry_run: bool
    "True: nothing was deleted."


def tag(path: str, name: str, snapshot: str | None = None) -> str:
    """Name a version, for ever: it is never expired; gives its snapshot.

    snapshot : its id or another tag of it; the newest version when None.

    Raises
    ------
    ValueError
        When the name is not letters, digits, ``.``, ``_`` and ``-``, was given before, or there is
        no such version.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r}: a tag is 1-100 letters, digits, '.', '_', '-', and begins with one of the "
            "first two"
        )
    repository = _open(path)
    known = tags_of(repository)
    if name in known:
        raise ValueError(f"{path}: tag {name!r} is of version {known[name]}; take another name")
    found = lookup(repository, snapshot, path)
    with reaching(path):
        try:
            repository.create_tag(name, found)
        except icechunk.IcechunkError as error:
            if "already exists" not in str(error):
                raise
            raise ValueError(
                f"{path}: tag {name!r} was given and taken away; a name is used once, so that it "
                "never means two versions: take another"
            ) from error
    return found


def untag(path: str, name: str) -> None:
    """Take a tag away: its version may expire then. The name cannot be given again.

    Raises
    ------
    KeyError
        When there is no such tag; names those there are.
    """
    repository = _open(path)
    if name not in (known := tags_of(repository)):
        raise KeyError(f"{path}: no tag {name!r} (there: {', '.join(known) or 'none'})")
    with reaching(path):
        repository.delete_tag(name)


def tags(path: str) -> dict[str, str]:
    """The snapshot of every tag, by name."""
    return tags_of(_open(path))


def expire(path: str, older_than: datetime, *, dry_run: bool = False) -> Freed:
    """Delete versions written before a time, and what only they or a killed writer had.

    The newest version and tagged ones stay whole. Nobody may write meanwhile; who reads an old
    version then loses it.

    older_than : with a time zone. dry_run : count only, with Icechunk's own code on a copy of the
    store's metadata.

    Raises
    ------
    LeaseError
        When somebody writes to the store: what is not committed yet would look like garbage.
    ValueError
        When the time has no zone.
    """
    if older_than.tzinfo is None:
        raise ValueError(f"expire before {older_than}: in which time zone? e.g. {older_than}Z")
    _open(path)
    lease = Lease(path, "expire")
    try:
        with reaching(path):
            if not dry_run:
                return _expire(_open(path), older_than, dry_run)
            with tempfile.TemporaryDirectory(suffix=".icechunk") as folder:
                shadow.cast(path, folder)
                copy = icechunk.Repository.open(location(folder))
                return _expire(copy, older_than, dry_run)
    finally:
        lease.release()


def _open(path: str) -> icechunk.Repository:
    if not exists(path):
        raise FileNotFoundError(f"{path}: no survey store here; `specmill ingest` makes one")
    with reaching(path):
        return icechunk.Repository.open(location(path))


def _expire(repository: icechunk.Repository, older_than: datetime, dry_run: bool) -> Freed:
    repository.expire_snapshots(older_than)
    found = repository.garbage_collect(datetime.now(UTC), dry_run=dry_run)
    heads = [{"branch": "main"}, *({"tag": name} for name in repository.list_tags())]
    kept = {info.id for head in heads for info in repository.ancestry(**head)}
    return Freed(
        snapshots=found.snapshots_deleted,
        chunks=found.chunks_deleted,
        bytes=found.bytes_deleted,
        kept=len(kept),
        dry_run=dry_run,
    )
