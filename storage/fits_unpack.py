"""Files in gzip: unpacked copies beside the temporary files."""

import gzip
import io
import os
import shutil
import tempfile
import weakref
import zlib
from functools import lru_cache
from pathlib import Path
from typing import IO

from storage import files
from storage.fits_blocks import FitsError

_GZIP = b"\x1f\x8b"
_MOST_UNPACKED = 1 << 30


def unpacked(content: bytes) -> bytes:
    """What is in the bytes of a small file in gzip.

    Raises
    ------
    FitsError
        When they are truncated or damaged, or hold too much.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            found = file.read(_MOST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FitsError(f"truncated or damaged gzip: {error}") from error
    if len(found) > _MOST_UNPACKED:
        raise FitsError(f"gzip of more than {_MOST_UNPACKED} bytes; unpack it first")
    return found


def open_file(path: str) -> IO[bytes]:
    """The bytes of a file, unpacked while they are read where it is in gzip.

    Raises
    ------
    OSError
        As `storage.files.regular`, or when it cannot be opened.
    """
    files.regular(path)
    with Path(path).open("rb") as file:
        packed = file.read(2) == _GZIP
    # A GzipFile reads, seeks and tells as any file does, but is not typed as one.
    return gzip.open(path) if packed else Path(path).open("rb")  # type: ignore[return-value]


class Plain:
    """A file that is not in gzip: the file itself, or an unpacked copy.

    The copy lives in the folder of temporary files (TMPDIR) as long as somebody holds this.

    Raises
    ------
    FitsError
        When its gzip is truncated or damaged.
    OSError
        As `storage.files.regular`, or when it cannot be read.
    """

    path: str
    "Where it is."

    def __init__(self, path: str):
        self.path = path
        files.regular(path)
        with Path(path).open("rb") as file:
            if file.read(2) != _GZIP:
                return
        handle, self.path = tempfile.mkstemp(prefix="specmill-", suffix=".fits")
        weakref.finalize(self, Path(self.path).unlink, missing_ok=True)
        try:
            with gzip.open(path) as packed, os.fdopen(handle, "wb") as whole:
                shutil.copyfileobj(packed, whole, 1 << 20)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FitsError(f"truncated or damaged gzip: {error}") from error


def plain(path: str) -> Plain:
    """The file without gzip; the last two are kept for who asks next."""
    state = files.regular(path)
    return _kept(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _kept(path: str, size: int, time_ns: int) -> Plain:
    return Plain(path)
