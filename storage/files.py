"""Files of a survey: that they are files at all, their size and time, and the digest of content.

Rows of a file may come from others beside it, too, as redshifts do. What stands for the content
of all of them is one digest, one size and one time: whichever is changed, the rows are read again.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from functools import lru_cache

DIGEST_BYTES = 16
"Of blake2b; the text is twice as long."
_MOST_WHOLE = 1 << 30
"Bytes of a file that is read into memory whole."
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFileError(OSError):
    """What stands in the place of a file is none: opening it may wait for ever, or never end."""


def regular(path: str) -> os.stat_result:
    """Size, time and the like of a file; links are followed. To be asked before any file is opened.

    Raises
    ------
    NotAFileError
        It is a folder, a pipe, a socket or a device.
    OSError
        It is not there, or must not be looked at.
    """
    state = os.stat(path)  # noqa: PTH116 - a path is text here
    if not stat.S_ISREG(state.st_mode):
        kind = next((words for is_it, words in _KINDS if is_it(state.st_mode)), "no file")
        link = ", through a link" if os.path.islink(path) else ""  # noqa: PTH114
        raise NotAFileError(f"{kind}{link}, expected a regular file")
    return state


def content(path: str) -> bytes:
    """The bytes of a file that is not large.

    Raises
    ------
    OSError
        As `regular`, when it is too large, or when it cannot be read.
    """
    size = regular(path).st_size
    if size > _MOST_WHOLE:
        raise NotAFileError(f"{size} bytes, at most {_MOST_WHOLE} are read at once; split it")
    with open(path, "rb") as file:  # noqa: PTH123
        # Of a size: a file of /proc has none, and may have no end.
        return file.read(size)


def facts(paths: Sequence[str]) -> tuple[int, int]:
    """Size (bytes) of a file and those beside it, and the latest time (ns) that one was changed.

    The first is the file itself: size is -1 where it is not there.
    """
    states = [_state(path) for path in paths]
    if states[0] is None:
        return -1, 0
    there = [state for state in states if state is not None]
    return sum(state.st_size for state in there), max(state.st_mtime_ns for state in there)


def digest(paths: Sequence[str]) -> str:
    """blake2b-128 of a file's bytes, hex; with files beside it, of the digests of all, in order.

    Empty when the first cannot be read.
    """
    return joined([of_bytes(path) for path in paths])


def joined(digests: Sequence[str]) -> str:
    """The digest that stands for a file and those beside it, of the digest of each."""
    if not digests[0] or len(digests) == 1:
        return digests[0]
    # One that cannot be read has an empty one, and its comma.
    return of_content(",".join(digests).encode())


def of_content(content: bytes) -> str:
    """blake2b-128 of bytes, hex."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def of_bytes(path: str) -> str:
    """blake2b-128 of the bytes of one file, hex; empty when it cannot be read."""
    try:
        state = regular(path)
        return _hashed(path, state.st_size, (state.st_mtime_ns, state.st_ctime_ns), state.st_ino)
    except OSError:
        return ""


# A file of many sources, and one that is beside many, is hashed once in a process.
@lru_cache(maxsize=1024)
def _hashed(path: str, size: int, times_ns: tuple[int, int], inode: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(
            file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)
        ).hexdigest()


def _state(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None
