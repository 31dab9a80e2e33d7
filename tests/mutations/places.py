"""What can stand in the place of a file, and is none."""

import os
from pathlib import Path

KINDS = (
    "a FIFO",
    "a folder",
    "a link to nowhere",
    "a link to itself",
    "a link to zeros",
    "a link to random numbers",
    "a link to a FIFO",
    "a socket",
    "a file without rights",
    "a folder without rights",
)
FOLDERS = ("a folder", "a folder without rights")
_TARGETS = {
    "a link to nowhere": "nowhere",
    "a link to zeros": "/dev/zero",
    "a link to random numbers": "/dev/urandom",
}


def place(path: Path, kind: str, content: bytes) -> None:
    """Put such a thing where the file was."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a folder without rights":
        path.mkdir(mode=0)
    elif kind == "a link to a FIFO":
        os.mkfifo(path.with_name("fifo"))
        path.symlink_to("fifo")
    elif kind == "a socket":
        os.mknod(path, 0o140600)
    elif kind == "a file without rights":
        path.write_bytes(content)
        path.chmod(0)
    else:
        path.symlink_to(_TARGETS.get(kind, path.name))
