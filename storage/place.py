"""Where a store lies: a folder, or a prefix of an S3 bucket, by one path.

A bucket is reached with the usual AWS_* environment variables. Credentials are read from the
environment by every process for itself: they travel in no pickle and stand in no card.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import icechunk

LOCK_S = 60.0
"How long a commit waits for another process that is inside one, s."
_CURES = {
    "os error 28": "no space left on the disk; free some",
    "os error 27": "a file grew over the limit of this process (ulimit -f); raise it",
    "os error 122": "the disk quota is used up; free some",
    "os error 30": "the file system is read-only; mount it writable, or copy the store",
    "os error 13": "not permitted; ask the owner of the store",
    "snapshot timestamp is invalid": (
        "the clocks of this machine and of the store differ by more than 10 minutes; set them right"
    ),
    "invalid snapshot timestamp ordering": (
        "the clock of this machine stands before the last commit; set it right"
    ),
    "NoSuchBucket": "no such bucket; make it, or correct the path",
    "AccessDenied": "access is denied; check AWS_ACCESS_KEY_ID and the policy of the bucket",
    "dispatch failure": "the endpoint does not answer; check AWS_ENDPOINT_URL",
    "HTTP error: error sending request": "the endpoint does not answer; check AWS_ENDPOINT_URL",
    "InvalidAccessKeyId": "the service does not know this key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not fit the key; check AWS_SECRET_ACCESS_KEY",
}


class StoreError(OSError):
    """The store cannot be reached or written: disk, network or rights."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """How a store on S3 is reached."""

    name: str
    "Bucket."
    prefix: str
    "Key of the store in it."
    endpoint: str | None
    "URL of the service; None for Amazon's own."
    region: str | None
    "Region; None lets the environment say it."
    allow_http: bool
    "Whether the endpoint may be spoken to unencrypted."


def is_bucket(path: str) -> bool:
    """Whether a path leads to S3."""
    return path.startswith("s3://")


def bucket(path: str) -> Bucket:
    """The bucket of an s3:// path, with the settings of the environment.

    Raises
    ------
    ValueError
        When the path names no bucket or no key, or the endpoint is unencrypted and not on this
        machine.
    """
    parts = urlsplit(path)
    if not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"{path}: expected s3://bucket/prefix/name.icechunk")
    env = os.environ
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None
    return Bucket(
        name=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=endpoint,
        region=env.get("AWS_REGION")
        or env.get("AWS_DEFAULT_REGION")
        # A service of one's own has no regions, but requests are signed with one.
        or ("us-east-1" if endpoint else None),
        allow_http=bool(endpoint) and _may_be_plain(str(endpoint)),
    )


def _may_be_plain(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        return False
    allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in {"1", "true", "yes"}
    if not allowed and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError(
            f"AWS_ENDPOINT_URL {endpoint}: unencrypted; use https://, or set AWS_ALLOW_HTTP=true "
            "if nobody else listens on the way"
        )
    return True


def location(path: str) -> icechunk.Storage:
    """Where Icechunk finds the store of a path.

    Raises
    ------
    ValueError
        When the path does not end in .icechunk.
    """
    if not path.rstrip("/").endswith(".icechunk"):
        raise ValueError(f"{path}: the folder of a store ends in .icechunk")
    if not is_bucket(path):
        if path.startswith("s3:"):
            raise ValueError(f"{path}: a path on S3 begins with s3://")
        local: icechunk.Storage = icechunk.local_filesystem_storage(str(Path(path).absolute()))
        return local
    where = bucket(path)
    found: icechunk.Storage = icechunk.s3_storage(
        bucket=where.name,
        prefix=where.prefix,
        region=where.region,
        endpoint_url=where.endpoint,
        allow_http=where.allow_http,
        force_path_style=where.endpoint is not None,
        from_env=True,
    )
    return found


def objects(path: str) -> Any:
    """The bucket of an s3:// path as an obstore.store.S3Store.

    Raises
    ------
    ImportError
        When obstore is not installed.
    ValueError
        When there is a profile only.
    """
    try:
        from obstore.store import S3Store
    except ImportError as error:
        raise ImportError(
            f"{path}: writing to a store on S3 needs obstore; pip install 'specmill[s3]'"
        ) from error
    if "AWS_PROFILE" in os.environ and "AWS_ACCESS_KEY_ID" not in os.environ:
        raise ValueError(
            f"{path}: the lease does not read profiles (AWS_PROFILE={os.environ['AWS_PROFILE']}); "
            'run: eval "$(aws configure export-credentials --format env)"'
        )
    where = bucket(path)
    known = {"region": where.region, "endpoint": where.endpoint}
    settings: Any = {name: value for name, value in known.items() if value}
    return S3Store(
        where.name,
        config=settings,
        virtual_hosted_style_request=where.endpoint is None,
        client_options={"allow_http": where.allow_http},
    )


def exists(path: str) -> bool:
    """Whether there is a store.

    Raises
    ------
    StoreError
        When a bucket cannot be reached.
    """
    if not is_bucket(path) and not Path(path).is_dir():
        return False
    with reaching(path):
        return bool(icechunk.Repository.exists(location(path)))


def make_room(path: str) -> None:
    """The folder of a store that is to be made; a bucket has no folders."""
    if not is_bucket(path):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def reaching(path: str) -> Iterator[None]:
    """Say in words what a disk or a bucket refuses, and what to do.

    Raises
    ------
    StoreError
        In place of an OSError of the disk or an IcechunkError.
    """
    try:
        yield
    except (StoreError, icechunk.ConflictError):
        raise
    except (OSError, icechunk.IcechunkError) as error:
        raise refusal(path, error) from error


def refusal(path: str, error: Exception) -> StoreError:
    """The error in words: the store, what was refused, the cure."""
    number = error.errno if isinstance(error, OSError) else None
    text = f"{error} (os error {number})"
    cure = next((words for mark, words in _CURES.items() if mark in text), "")
    detail = cure or _detail(str(error)) or type(error).__name__
    return StoreError(
        f"{path}: {detail}; what was committed is whole: the same command goes on from there"
    )


def _detail(text: str) -> str:
    """The line of an error that says most: the deepest cause of a tree, or its first words."""
    # obstore says it in one line, and has the same as a Rust structure of many lines below it.
    head, debug, _ = text.partition("Debug source:")
    lines = [line.strip("| >-x`\t") for line in head.splitlines()]
    told = [line for line in lines if any(char.isalnum() for char in line)]
    # Icechunk draws its chain of causes as a tree, the deepest last.
    return (told[0] if debug else told[-1]) if told else ""


@contextmanager
def alone(path: str) -> Iterator[None]:
    """No other process of this machine commits to the same folder meanwhile.

    On a folder Icechunk compares the branch's tip and then writes it, in two steps: a process that
    was stopped between them would commit over another's version. S3 does both in one. A file system
    without locks leaves that window, of milliseconds, to the lease alone.

    Raises
    ------
    StoreError
        When another process stays inside a commit, stopped perhaps.
    """
    if is_bucket(path):
        yield
        return
    with reaching(path):
        folder = os.open(path, os.O_RDONLY)
    try:
        _lock(folder, path)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, path: str) -> None:
    end = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EINTR}:
                return
        if time.monotonic() > end:
            raise StoreError(
                f"{path}: another process has been inside a commit for {LOCK_S:g} s; if it is "
                "stopped (ps shows T), continue or kill it; nothing of ours is committed"
            )
        time.sleep(0.05)
