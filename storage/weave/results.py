"""Which WEAVE L2 file was made from an L1 file: those below a folder, by the L1 files they name.

The tree is walked once; then its folders are asked whether they were changed, which shows a file
that comes or goes. A file is opened only when its name does not say what it was made from.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from storage.walk import walk
from storage.weave.layout import glance

_FILES = re.compile(r".*APS\.fits?(?:\.gz)?")
_PART = re.compile(r"(?:single|stack|superstack)(?:ed)?_[0-9A-Za-z]+")
_TARGET = re.compile(r"(WVE_[0-9]+[+-][0-9]+)_00_([BGR]+)_([0-9A-Z]+)")
_HOT_NS = 100_000_000
"A clock of folders may stand still as long: what was changed just before may be changed again."
_SHARE = 20
"Asking the folders again may take one part in so many of the time."
_MOST_ROOTS = 8


@dataclass
class _Results:
    """L2 files below a folder, as they were when it was walked."""

    files: dict[str, str] = field(default_factory=dict)
    "Path of the L2 file by the stem of each L1 file that it names: 'stack_1002046'."
    folders: dict[str, int] = field(default_factory=dict)
    "Folders, and when each was changed, ns."
    opened: dict[str, int] = field(default_factory=dict)
    "Files that were opened for their names, and when each was changed, ns."
    made_ns: int = 0
    "When the walk began."
    rest_until_ns: int = 0
    "Until then nothing is asked again; of a clock that never goes back."

    def is_current(self) -> bool:
        """Whether the folders are as they were."""
        begun = time.monotonic_ns()
        if begun < self.rest_until_ns:
            return True
        known = {**self.folders, **self.opened}
        if max(known.values(), default=0) > self.made_ns - _HOT_NS:
            return False
        if any(_changed(path) != then for path, then in known.items()):
            return False
        ended = time.monotonic_ns()
        self.rest_until_ns = ended + _SHARE * (ended - begun)
        return True


_known: dict[str, _Results] = {}
_lock = threading.Lock()


def made_from(path: str, root: str) -> str | None:
    """The L2 file below root that names an L1 file; the first in order, if several do."""
    with _lock:
        found = _known.get(root)
        if found is None or not found.is_current():
            _known.pop(root, None)
            while len(_known) >= _MOST_ROOTS:
                del _known[next(iter(_known))]
            found = _known[root] = _walked(root)
    return found.files.get(_stem(path))


def _walked(root: str) -> _Results:
    found, begun = _Results(made_ns=time.time_ns()), time.monotonic_ns()
    try:
        for path in walk(root, _FILES, found.folders):
            for stem in _names(path, found):
                found.files.setdefault(stem, path)
    except FileNotFoundError:
        pass
    ended = time.monotonic_ns()
    # While files are coming in, every walk may be the last one's repetition.
    found.rest_until_ns = ended + 2 * (ended - begun)
    return found


def _names(path: str, found: _Results) -> Iterator[str]:
    """Stems of the L1 files that an L2 file was made from: by its name, else by its header."""
    own = re.sub(r"_?APS$", "", _stem(path))
    if all(_PART.fullmatch(part) for part in own.split("__")):
        yield from own.split("__")
    elif target := _TARGET.fullmatch(own):
        yield from (f"{target[1]}_{arm}{target[3]}" for arm in target[2])
    else:
        found.opened[path] = _changed(path)
        for hdu in glance(path, most=1):
            yield from (_stem(hdu.value(f"L1_REF_{arm}") or "") for arm in "BGR")


def _stem(path: str) -> str:
    return re.sub(r"\.fits?(\.gz)?$", "", Path(path).name)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return -1
