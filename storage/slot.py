"""The place of a lease: one small text beside the store, which one process owns at a time.

A folder and a bucket differ in what they do in one step; these five steps are all a lease needs.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from storage.place import alone, bucket, is_bucket, objects, refusal


class Text(NamedTuple):
    """What was found in a slot."""

    text: str
    "Its content."
    tag: str
    "What the store calls this version of it."


class Slot(Protocol):
    """One text beside a store."""

    name: str
    "Path or URL, for messages."

    def create(self, text: str) -> bool:
        """Make it; False when it is there already."""
        ...

    def read(self) -> Text | None:
        """What it holds; None when it is not there."""
        ...

    def renew(self, found: Text, text: str) -> bool:
        """Replace what is ours, without a moment in which it is not there; False if it is not."""
        ...

    def take(self, found: Text, text: str) -> bool:
        """Replace what several may want to replace: at most one of them gets True."""
        ...

    def remove(self, found: Text) -> bool:
        """Remove what is ours; False, and it stays, when it is not."""
        ...


def slot(store: str) -> Slot:
    """The lease's place of a store: `<store>.lease`."""
    name = f"{store.rstrip('/')}.lease"
    return BucketSlot(name) if is_bucket(store) else FolderSlot(name)


class FolderSlot:
    """A file, made with a hard link: exclusive and whole, on cluster file systems too."""

    def __init__(self, name: str) -> None:
        """A file of that path; it is not made yet."""
        self.name = name
        self._file = Path(name)

    def create(self, text: str) -> bool:
        """Make it; False when it is there already."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._draft(text) as draft:
            try:
                os.link(draft, self._file)
            except FileExistsError:
                # A network file system may say so of the link that it has just made.
                return self.read() == Text(text, text)
        return True

    def read(self) -> Text | None:
        """What it holds; None when it is not there."""
        try:
            text = self._file.read_text(errors="replace")
        except FileNotFoundError:
            return None
        return Text(text, text)

    def renew(self, found: Text, text: str) -> bool:
        """Replace what is ours, without a moment in which it is not there; False if it is not."""
        if self.read() != found:
            return False
        with self._draft(text) as draft:
            draft.replace(self._file)
        return True

    def take(self, found: Text, text: str) -> bool:
        """Replace what several may want to replace: at most one of them gets True."""
        # Who may take it runs on the machine of the dead, where locks hold. Without them, two that
        # rename at once can only lose a lease, which is noticed, not have it both.
        with alone(str(self._file.parent)):
            return self.read() == found and self.remove(found) and self.create(text)

    def remove(self, found: Text) -> bool:
        """Remove what is ours; False, and it stays, when it is not."""
        aside = self._aside()
        try:
            # Renamed first and looked at then: of two who do so, one finds nothing to rename.
            self._file.rename(aside)
        except FileNotFoundError:
            return False
        mine = aside.read_text(errors="replace") == found.text
        if not mine:
            with suppress(FileExistsError):
                os.link(aside, self._file)
        aside.unlink()
        return mine

    @contextmanager
    def _draft(self, text: str) -> Iterator[Path]:
        draft = self._aside()
        try:
            draft.write_text(text)
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _aside(self) -> Path:
        return self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")


class BucketSlot:
    """An object, made and replaced by conditional puts."""

    def __init__(self, name: str) -> None:
        """An object of that URL; it is not made yet.

        Raises
        ------
        ImportError
            When obstore is not installed.
        """
        self.name, self._key = name, bucket(name).prefix
        self._store = objects(name)
        import obstore

        self._obstore = obstore

    def create(self, text: str) -> bool:
        """Make it; False when it is there already."""
        if self._put(text, "create"):
            return True
        # A put that was sent again, after its answer was lost, finds its own.
        found = self.read()
        return found is not None and found.text == text

    def read(self) -> Text | None:
        """What it holds; None when it is not there."""
        with self._refused():
            try:
                found = self._obstore.get(self._store, self._key)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            text = bytes(found.bytes()).decode(errors="replace")
            return Text(text, str(found.meta["e_tag"]))

    def renew(self, found: Text, text: str) -> bool:
        """Replace what is ours, without a moment in which it is not there; False if it is not."""
        return self._put(text, {"e_tag": found.tag})

    def take(self, found: Text, text: str) -> bool:
        """Replace what several may want to replace: at most one of them gets True."""
        return self._put(text, {"e_tag": found.tag})

    def remove(self, found: Text) -> bool:
        """Remove what is ours; False, and it stays, when it is not."""
        # Objects cannot be deleted conditionally; only its owner removes one, or a person.
        if self.read() != found:
            return False
        with self._refused():
            self._obstore.delete(self._store, self._key)
        return True

    def _put(self, text: str, mode: Any) -> bool:
        failed = self._obstore.exceptions
        with self._refused():
            try:
                self._obstore.put(self._store, self._key, text.encode(), mode=mode)
            except (failed.AlreadyExistsError, failed.PreconditionError):
                return False
        return True

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except (self._obstore.exceptions.BaseError, OSError) as error:
            raise refusal(self.name, error) from error
