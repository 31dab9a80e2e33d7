"""Kept: what a run has read and put on its frame, in files beside it, for the epochs that follow.

Reading and framing a spectrum again costs twenty times what reading it from such a file does. The
files are mapped, so that the system holds as many in memory as nobody else has a use for.
"""

import hashlib
import logging
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

FOLDER = "kept"
"Of a run, while it learns."


@contextmanager
def room(run: Path) -> Iterator[None]:
    """The files of a run may lie in its folder inside; older ones are removed, these at the end."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(run / FOLDER, ignore_errors=True)


@dataclass
class Kept:
    """Arrays of rows, by the rows; several processes may share a folder.

    They are of one source, frame and way to read: the folder is of one run.
    """

    folder: Path
    "Where the files are; made when there is something to keep."
    limit: int
    "Bytes that this process may write; it leaves as many free."
    written: int = 0
    "Bytes that it has."

    def get(self, rows: NDArray[np.int64]) -> dict[str, Tensor] | None:
        """What was kept of these rows; None when nothing was, or it cannot be read."""
        try:
            return load_file(self._path(rows))
        except (OSError, SafetensorError):
            return None

    def put(self, rows: NDArray[np.int64], found: dict[str, Tensor]) -> None:
        """Keep what was found for these rows, where there is room."""
        size = sum(value.nbytes for value in found.values())
        if self.written + size > self.limit:
            return
        path = self._path(rows)
        # Where their shares meet, two ranks may be at the same chunk.
        part = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            self.folder.mkdir(exist_ok=True)
            if shutil.disk_usage(self.folder).free < self.written + 2 * size:
                return
            save_file({name: value.contiguous() for name, value in found.items()}, part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            logger.warning("%s: no more is kept for the next epoch: %s", self.folder, error)
            self.limit = 0
            with suppress(OSError):
                part.unlink()
        self.written += size

    def _path(self, rows: NDArray[np.int64]) -> Path:
        which = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
        return self.folder / f"{rows[0]}-{which}.safetensors"
