"""Files of a survey below a folder: in the order of their paths, without listing them all first."""

import errno
import os
import re
from collections.abc import Iterator


def walk(root: str, name: re.Pattern[str], folders: dict[str, int] | None = None) -> Iterator[str]:
    """Paths below root, root included, of files whose whole name matches.

    In the order of their text, whatever the depth. Links are followed, also out of the root: a
    release is often a tree of links. A folder that contains itself through a link is entered once.
    A file link that leads nowhere is yielded: its reader says so.

    folders : is filled with the folders and when each was changed (ns), before it is listed.

    Raises
    ------
    FileNotFoundError
        When root is not a folder, or holds no such file.
    PermissionError
        When a folder cannot be listed: its files would be missing without a word.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - text in, text out: Path costs more than the walk
        raise FileNotFoundError(f"{root}: no such folder; set survey.root to the survey's files")
    empty = True
    for path in _below(root, name, (), {} if folders is None else folders):
        empty = False
        yield path
    if empty:
        raise FileNotFoundError(
            f"{root}: no file here or below is named like {name.pattern}; set survey.root to "
            "the folder that holds them, or survey.reader to their format"
        )


def _below(
    folder: str,
    name: re.Pattern[str],
    above: tuple[tuple[int, int], ...],
    folders: dict[str, int],
) -> Iterator[str]:
    try:
        state = os.stat(folder)  # noqa: PTH116
        identity = (state.st_dev, state.st_ino)
        if identity in above:
            return
        folders[folder] = state.st_mtime_ns
        with os.scandir(folder) as entries:
            # The slash makes "a/b" and "a.fits" sort as whole paths do.
            found = sorted((e.name + "/" if _is_folder(e) else e.name) for e in entries)
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename or folder}: this folder cannot be listed, and its files would be "
            "missing; give yourself the right to read and enter it, or move it out of survey.root"
        ) from error
    for entry in found:
        path = os.path.join(folder, entry)  # noqa: PTH118
        if entry.endswith("/"):
            yield from _below(path[:-1], name, (*above, identity), folders)
        elif name.fullmatch(entry):
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # A link to itself is no folder; its name decides whether a reader speaks of it.
        if error.errno == errno.ELOOP:
            return False
        raise
