"""A store's shadow: its metadata, with an empty file of the right size for every chunk.

On it Icechunk itself can count what it would delete, and nothing is deleted.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from storage.place import bucket, is_bucket, objects

_CHUNKS = "chunks"


def cast(path: str, folder: str) -> None:
    """Write the shadow of a store into a folder; chunks take no space there."""
    for name, size, seconds in _list(path):
        target = Path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(name).parts[0] == _CHUNKS:
            with target.open("wb") as file:
                file.truncate(size)
        else:
            _fetch(path, name, target)
        # Garbage is told from what is being written by its age.
        os.utime(target, (seconds, seconds))


def _list(path: str) -> Iterator[tuple[str, int, float]]:
    """Name below the store, size in byte and time of writing of every object of it."""
    if not is_bucket(path):
        for file in sorted(Path(path).rglob("*")):
            if file.is_file():
                stat = file.stat()
                yield file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime
        return
    prefix = f"{bucket(path).prefix}/"
    for batch in objects(path).list(prefix):
        for found in batch:
            written: datetime = found["last_modified"]
            yield found["path"].removeprefix(prefix), found["size"], written.timestamp()


def _fetch(path: str, name: str, target: Path) -> None:
    if is_bucket(path):
        found = objects(path).get(f"{bucket(path).prefix}/{name}")
        target.write_bytes(bytes(found.bytes()))
    else:
        shutil.copyfile(Path(path, name), target)
