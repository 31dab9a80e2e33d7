"""The lease: one coordinator per store, by an exclusively created file or object beside it.

File locks are no locks on cluster file systems; creating a file exclusively is.
"""

import json
import logging
from dataclasses import asdict

from storage.holder import Holder
from storage.place import reaching
from storage.slot import Text, slot

logger = logging.getLogger(__name__)


class LeaseError(RuntimeError):
    """Somebody else writes to the store, or took it over from us."""


class Lease:
    """The right to write to a store; give it back with `release`."""

    def __init__(self, store: str, job: str) -> None:
        """Take the lease of a store.

        Raises
        ------
        LeaseError
            When a living process, or one of which nothing is known, holds it.
        StoreError
            When it cannot be written.
        """
        self._slot = slot(store)
        self.name = self._slot.name
        self.holder = Holder.me(job)
        with reaching(store):
            while not self._slot.create(_dump(self.holder)):
                if self._evict():
                    break

    def check(self) -> None:
        """Raise LeaseError when the lease is no longer ours."""
        self._mine("nothing is committed")

    def renew(self) -> None:
        """Say that we live: rewrites the lease, whole or not at all.

        Raises
        ------
        LeaseError
            When it is no longer ours.
        """
        renewed = self.holder.renew()
        while not self._slot.renew(self._mine("no more is committed"), _dump(renewed)):
            pass
        self.holder = renewed

    def release(self) -> None:
        """Give the lease back, if it is ours."""
        try:
            found = self._slot.read()
            if found is not None and self._is_mine(found):
                self._slot.remove(found)
        except OSError as error:
            # What was to be said has been said: this must not hide it.
            logger.warning("%s: not removed (%s); the next run takes it over", self.name, error)

    def _mine(self, so: str) -> Text:
        found = self._slot.read()
        if found is None or not self._is_mine(found):
            by = "nobody" if found is None else str(_parse(found.text, self.name))
            raise LeaseError(f"{self.name}: the lease was taken over by {by}; {so}")
        return found

    def _is_mine(self, found: Text) -> bool:
        return self.holder.nonce in found.text and (
            _parse(found.text, self.name).nonce == self.holder.nonce
        )

    def _evict(self) -> bool:
        """Take over from a dead process; False when it is worth another try."""
        found = self._slot.read()
        if found is None:
            return False
        holder = _parse(found.text, self.name)
        if not holder.is_dead():
            raise LeaseError(
                f"{self.name}: {holder} writes to this store; wait for it, or, if that process is "
                "certainly gone, remove the file"
            )
        if not self._slot.take(found, _dump(self.holder)):
            return False
        logger.warning("%s: took over from dead process %d", self.name, holder.pid)
        return True


def held(store: str) -> Holder | None:
    """Who holds the lease of a store; None when nobody does.

    Raises
    ------
    LeaseError
        When what lies there is no lease.
    """
    place = slot(store)
    with reaching(store):
        found = place.read()
    return None if found is None else _parse(found.text, place.name)


def _dump(holder: Holder) -> str:
    return json.dumps(asdict(holder))


def _parse(text: str, name: str) -> Holder:
    try:
        return Holder.parse(json.loads(text))
    except (TypeError, ValueError) as error:
        raise LeaseError(f"{name}: not a lease ({error}); remove it if nobody writes") from error
