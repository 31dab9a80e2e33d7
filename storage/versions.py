"""Versions of a store: names for them, and the space of those that nobody needs any more."""

import re
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import icechunk

from storage import shadow
from storage.holder import Holder
from storage.lease import Lease, LeaseError, held
from storage.place import exists, location, reaching
from storage.store import KEPT, WAIT_S, Survey, kept_of, lookup, tags_of

EXPIRY = "expire"
"The job of a lease under which versions are freed."
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
    "Versions that stay: the newest, younger ones, tagged ones, and those that they name."
    dry_run: bool
    "True: nothing was deleted."


def tag(path: str, name: str, snapshot: str | None = None) -> str:
    """Name a version, for ever: it is never expired; gives its snapshot.

    Others may write meanwhile: what is named is one version, looked up once. Of two that give one
    name at once, one is told whose it is.

    snapshot : its id or another tag of it; the newest version when None.

    Raises
    ------
    LeaseError
        While versions are being freed.
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
    if (freeing := _freeing(path)) is not None:
        raise LeaseError(f"{path}: {freeing}; it frees versions: tag again when it is over")
    _refuse_known(repository, path, name)
    found = lookup(repository, snapshot, path)
    # A version that an expiry, killed half-way, has cut off may have lost its chunks already.
    if snapshot is not None and found not in _listed(repository, path):
        raise _gone(path, snapshot)
    _create_tag(repository, path, name, found)
    _outlive_expiry(path, name, found)
    return found


def _refuse_known(repository: icechunk.Repository, path: str, name: str) -> None:
    if name in (known := tags_of(repository)):
        raise ValueError(f"{path}: tag {name!r} is of version {known[name]}; take another name")


def _listed(repository: icechunk.Repository, path: str) -> set[str]:
    newest = Survey(path, repository, lookup(repository, None, path))
    return {version.snapshot for version in newest.history()}


def _gone(path: str, snapshot: str) -> ValueError:
    return ValueError(
        f"{path}: no snapshot or tag {snapshot!r}, or it was expired; "
        f"`specmill history {path}` lists those there are"
    )


def _create_tag(repository: icechunk.Repository, path: str, name: str, found: str) -> None:
    with reaching(path):
        try:
            repository.create_tag(name, found)
        except icechunk.IcechunkError as error:
            if "already exists" not in str(error):
                raise
            _refuse_known(repository, path, name)
            raise ValueError(
                f"{path}: tag {name!r} was given and taken away; a name is used once, so that it "
                "never means two versions: take another"
            ) from error


def _outlive_expiry(path: str, name: str, found: str) -> None:
    """An expiry that began since we looked may have listed the tags before ours was there."""
    end = time.monotonic() + WAIT_S
    while (freeing := _freeing(path)) is not None:
        if time.monotonic() > end:
            raise LeaseError(
                f"{path}: tag {name!r} is given, and {freeing} may not have seen it; when that is "
                f"over, see whether it is whole: `specmill verify {path} --snapshot {name}`"
            )
        time.sleep(0.05)
    repository = _open(path)
    with reaching(path):
        try:
            repository.lookup_snapshot(found)
        except (ValueError, icechunk.IcechunkError) as error:
            repository.delete_tag(name)
            raise _gone(path, found) from error


def _freeing(path: str) -> Holder | None:
    holder = held(path)
    return holder if holder is not None and holder.job == EXPIRY else None


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

    The newest version and tagged ones stay whole, and so does what the products in them say that
    they were made from (``input_snapshot``), and the version that changed each group last. Nobody
    may write meanwhile; who reads any other old version then loses it.

    older_than : with a time zone. dry_run : count only, with Icechunk's own code on a copy of the
    store's metadata.

    Raises
    ------
    LeaseError
        When somebody writes to the store: what is not committed yet would look like garbage, and
        workers read the version that their stage began with.
    ValueError
        When the time has no zone.
    """
    if older_than.tzinfo is None:
        raise ValueError(f"expire before {older_than}: in which time zone? e.g. {older_than}Z")
    _open(path)
    lease = Lease(path, EXPIRY)
    try:
        with reaching(path):
            if not dry_run:
                return _expire(path, older_than, dry_run)
            with tempfile.TemporaryDirectory(suffix=".icechunk") as folder:
                shadow.cast(path, folder)
                return _expire(folder, older_than, dry_run)
    finally:
        lease.release()


def _open(path: str) -> icechunk.Repository:
    if not exists(path):
        raise FileNotFoundError(f"{path}: no survey store here; `specmill ingest` makes one")
    with reaching(path):
        return icechunk.Repository.open(location(path))


def _expire(path: str, older_than: datetime, dry_run: bool) -> Freed:
    repository = _open(path)
    _keep(repository, _needed(repository, path), older_than)
    repository.expire_snapshots(older_than)
    found = repository.garbage_collect(datetime.now(UTC), dry_run=dry_run)
    heads = [{"branch": name} for name in repository.list_branches()]
    heads += [{"tag": name} for name in repository.list_tags()]
    kept = {info.id for head in heads for info in repository.ancestry(**head)}
    return Freed(
        snapshots=found.snapshots_deleted,
        chunks=found.chunks_deleted,
        bytes=found.bytes_deleted,
        kept=len(kept),
        dry_run=dry_run,
    )


def _needed(repository: icechunk.Repository, path: str) -> set[str]:
    """Versions that the newest one and tagged ones were made from, or are told by."""
    newest = lookup(repository, None, path)
    found = _changed(Survey(path, repository, newest))
    for snapshot in {newest, *tags_of(repository).values()}:
        survey = Survey(path, repository, snapshot)
        named = (survey.attrs(group).get("input_snapshot") for group in survey.groups())
        found |= {name for name in named if isinstance(name, str)}
    return found


def _changed(survey: Survey) -> set[str]:
    """The newest version that changed each group: by it products know whether they are of today."""
    groups, found = set(survey.groups()), set()
    for version in survey.history():
        said = {version.metadata.get("group"), *version.metadata.get("groups", ())} & groups
        if said:
            found.add(version.snapshot)
            groups -= said
    return found


def _keep(repository: icechunk.Repository, needed: set[str], older_than: datetime) -> None:
    """A branch for each old version that is needed; none for what is not any more."""
    kept = {name.removeprefix(KEPT) for name in kept_of(repository)}
    for snapshot in kept - needed:
        repository.delete_branch(f"{KEPT}{snapshot}")
    for snapshot in needed - kept:
        try:
            written = repository.lookup_snapshot(snapshot).written_at
        except (ValueError, icechunk.IcechunkError):
            # Expired before anything was kept.
            continue
        if written < older_than:
            repository.create_branch(f"{KEPT}{snapshot}", snapshot)
