"""The lease: one coordinator per store, by an exclusively created file beside it.

File locks are no locks on cluster file systems; creating a file exclusively is.
"""

import json
import logging
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil

logger = logging.getLogger(__name__)


class LeaseError(RuntimeError):
    """Somebody else writes to the store, or took it over from us."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who writes to a store."""

    host: str
    "Host name."
    pid: int
    "Process id on that host."
    started: float
    "When that process started, seconds since 1970: a pid alone is used again."
    job: str
    "What it does, in words."
    nonce: str
    "A secret of this lease."
    renewed: str
    "ISO time of the last commit."

    @classmethod
    def me(cls, job: str) -> Self:
        """This process."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            job=job,
            nonce=secrets.token_hex(8),
            renewed=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def is_dead(self) -> bool:
        """Whether the process is provably gone: only its own host can tell."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            # A zombie writes no more; its parent has only not asked for its exit status yet.
            return bool(
                abs(process.create_time() - self.started) > 1.0
                or process.status() == psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return True


class Lease:
    """The right to write to a store; give it back with `release`."""

    def __init__(self, store: str, job: str) -> None:
        """Take the lease of a store.

        Raises
        ------
        LeaseError
            When a living process, or one on another host, holds it.
        """
        self.file = Path(f"{store.rstrip('/')}.lease")
        self.holder = Holder.me(job)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            self._evict()

    def check(self) -> None:
        """Raise LeaseError when the lease is no longer ours."""
        found = _read(self.file)
        if found is None or found.nonce != self.holder.nonce:
            by = "nobody" if found is None else f"{found.job} (pid {found.pid} on {found.host})"
            raise LeaseError(f"{self.file}: the lease was taken over by {by}; nothing is committed")

    def renew(self) -> None:
        """Say that we live: rewrites the file, whole or not at all."""
        self.check()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.holder = Holder(**{**asdict(self.holder), "renewed": now})
        draft = self.file.with_suffix(f".{self.holder.nonce}")
        draft.write_text(json.dumps(asdict(self.holder)))
        draft.replace(self.file)

    def release(self) -> None:
        """Give the lease back, if it is ours."""
        found = _read(self.file)
        if found is not None and found.nonce == self.holder.nonce:
            self.file.unlink()

    def _create(self) -> bool:
        draft = self.file.with_suffix(f".{self.holder.nonce}")
        draft.write_text(json.dumps(asdict(self.holder)))
        try:
            # A hard link is created exclusively and with its content, so nobody reads half of it.
            os.link(draft, self.file)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _evict(self) -> None:
        found = _read(self.file)
        if found is None:
            return
        if not found.is_dead():
            raise LeaseError(
                f"{self.file}: {found.job} (pid {found.pid} on {found.host}, last seen "
                f"{found.renewed}) writes to this store; wait for it, or, if that process is "
                f"certainly gone, remove the file"
            )
        aside = self.file.with_suffix(f".dead-{self.holder.nonce}")
        try:
            self.file.rename(aside)
        except FileNotFoundError:
            return
        moved = _read(aside)
        if moved is not None and moved.nonce != found.nonce:
            # Another process evicted the dead one first: what we moved is its living lease.
            with suppress(FileExistsError):
                os.link(aside, self.file)
        else:
            logger.warning("%s: took over from dead process %d", self.file, found.pid)
        aside.unlink()


def _read(file: Path) -> Holder | None:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise LeaseError(f"{file}: not a lease ({error}); remove it if nobody writes") from error
