"""Disk: what a file system can do that a store asks of it, tried in a folder of its own."""

import errno
import fcntl
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROBE = ".specmill-doctor-"
"How the folder begins in which things are tried; it is removed."
RATE_BYTES = 64 << 20
SPACE_BYTES = 10 << 30
"Free space below which a survey is likely not to fit."
_MIB = 1 << 20
_NETWORK = {
    "nfs": "NFS: several machines may write; locks and times of files are not to be trusted",
    "nfs4": "NFS: several machines may write; locks and times of files are not to be trusted",
    "lustre": "Lustre: made for large files; many small ones are slow",
    "gpfs": "GPFS: made for large files; many small ones are slow",
    "beegfs": "BeeGFS: locks may not reach other machines, and hard links may be switched off",
    "ceph": "CephFS: shared by machines",
    "cifs": "a Windows share: hard links and exclusive files may be missing",
    "smb3": "a Windows share: hard links and exclusive files may be missing",
    "9p": "shared with a virtual machine's host: slow for small files",
    "glusterfs": "GlusterFS: shared by machines",
}
_LOST = {
    "tmpfs": "in memory: gone after a reboot; put stores on a disk",
    "ramfs": "in memory: gone after a reboot; put stores on a disk",
    "overlay": "a container's own layer: gone with the container; mount a folder for stores",
}
_FUSE = "through a program (FUSE): it may lack hard links or exclusive files, and is slow"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    "What."
    level: Literal["ok", "warn", "fail"]
    "Whether it is as it should be."
    found: str
    "What was found."
    cure: str = ""
    "What to do, where it is not."


def folder_checks(folder: Path) -> Iterator[Check]:
    """What the file system of a folder is and can do; tries it, and leaves nothing behind."""
    yield _kind(folder)
    yield from _room(folder)
    yield _file_size()
    try:
        probe = Path(tempfile.mkdtemp(prefix=PROBE, dir=folder))
    except OSError as error:
        cure = "give a folder that you may write to"
        yield Check(name="writable", level="fail", found=f"{folder}: {error.strerror}", cure=cure)
        return
    try:
        for name, (trial, cure) in _TRIALS.items():
            yield _tried(name, trial, cure, probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _tried(name: str, trial: Callable[[Path], Check | str], cure: str, probe: Path) -> Check:
    """A trial's own verdict; a text is good, an OSError is not."""
    place = Path(tempfile.mkdtemp(dir=probe))
    try:
        found = trial(place)
    except OSError as error:
        said = error.strerror or str(error)
        return Check(name=name, level="fail", found=f"not possible: {said}", cure=cure)
    if isinstance(found, Check):
        return found
    return Check(name=name, level="ok", found=found)


def _rename(place: Path) -> str:
    (place / "new").write_text("new")
    (place / "old").write_text("old")
    (place / "new").replace(place / "old")
    if (place / "old").read_text() != "new" or (place / "new").exists():
        raise OSError(errno.EIO, "the old file is still there after a rename over it")
    return "replaces a file in one step"


def _link(place: Path) -> str:
    (place / "draft").write_text("lease")
    os.link(place / "draft", place / "lease")
    try:
        os.link(place / "draft", place / "lease")
    except FileExistsError:
        return "a second one of the same name is refused"
    raise OSError(errno.EIO, "a second one of the same name was made")


def _exclusive(place: Path) -> str:
    for again in (False, True):
        try:
            os.close(os.open(place / "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            if again:
                return "a second file of the same name is refused"
            raise
    raise OSError(errno.EIO, "a second file of the same name was made")


def _lock(place: Path) -> Check | str:
    folder = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Check(
            name="lock",
            level="warn",
            found=f"no locks: {error.strerror}",
            cure="never start two writers of one store here; the lease refuses all but a rare case",
        )
    finally:
        os.close(folder)
    return "a folder can be locked"


def _fsync(place: Path) -> Check:
    seconds = []
    for number in range(5):
        with (place / str(number)).open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            begin = time.monotonic()
            os.fsync(file.fileno())
        seconds.append(time.monotonic() - begin)
    middle = 1000 * statistics.median(seconds)
    slow = middle > 500
    return Check(
        name="fsync",
        level="warn" if slow else "ok",
        found=f"{middle:.1f} ms for a small file",
        cure="commit less often: a larger run.commit_blocks" if slow else "",
    )


def _case(place: Path) -> Check | str:
    (place / "name").touch()
    if not (place / "NAME").exists():
        return "NAME and name are two files"
    cure = "files of a survey whose names differ in case only are one here"
    return Check(name="case", level="warn", found="NAME and name are one file", cure=cure)


def _rate(place: Path) -> Check | str:
    """Of one file; what is read back may come from memory."""
    if shutil.disk_usage(place).free < 4 * RATE_BYTES:
        return Check(name="rate", level="warn", found="not tried: no space", cure="free some")
    block = os.urandom(4 * _MIB)
    begin = time.monotonic()
    with (place / "file").open("wb") as file:
        for _ in range(RATE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    wrote = RATE_BYTES / _MIB / max(time.monotonic() - begin, 1e-9)
    begin = time.monotonic()
    with (place / "file").open("rb", buffering=0) as file:
        while file.read(len(block)):
            pass
    read = RATE_BYTES / _MIB / max(time.monotonic() - begin, 1e-9)
    size = RATE_BYTES // _MIB
    return f"writes {wrote:.0f} MB/s, reads {read:.0f} MB/s (quick: one file of {size} MB, cached)"


_TRIALS: dict[str, tuple[Callable[[Path], Check | str], str]] = {
    "rename": (_rename, "put stores on another file system: versions are made by renaming"),
    "hard link": (_link, "put stores on another file system: the lease is made by a hard link"),
    "exclusive file": (_exclusive, "put stores on another file system: writers exclude each other"),
    "lock": (_lock, ""),
    "fsync": (_fsync, "put stores on another file system: what is written may be lost"),
    "case": (_case, "give a folder that can be written to"),
    "rate": (_rate, "free space, raise the quota or ulimit -f"),
}


def _kind(folder: Path) -> Check:
    found = file_system(folder)
    if found is None:
        return Check(name="file system", level="ok", found="unknown: no /proc/mounts here")
    kind, mount = found
    said = f"{kind} at {mount}"
    if kind in _LOST:
        return Check(name="file system", level="warn", found=said, cure=_LOST[kind])
    # FUSE programs say their own name behind a dot.
    told = _NETWORK.get(kind) or _NETWORK.get(kind.partition("fuse.")[2])
    if told is None and kind.startswith("fuse"):
        told = _FUSE
    if told:
        return Check(name="file system", level="warn", found=f"{said}; {told}", cure=_SHARED)
    return Check(name="file system", level="ok", found=f"{said}, of this machine")


_SHARED = "see that the checks below are ok on every machine that writes to the store"


def file_system(folder: Path, mounts: str = "/proc/mounts") -> tuple[str, str] | None:
    """Type and mount point of the file system that a folder is on; None where none can be told."""
    try:
        lines = Path(mounts).read_text().splitlines()
    except OSError:
        return None
    path, best = folder.resolve(), None
    for line in lines:
        _, point, kind, *_ = line.split()
        where = Path(point.encode().decode("unicode_escape"))
        # The last of two mounts at one place hides the first.
        if path.is_relative_to(where) and (best is None or len(str(where)) >= len(best[1])):
            best = (kind, str(where))
    return best


def _room(folder: Path) -> Iterator[Check]:
    free = shutil.disk_usage(folder).free
    little = free < SPACE_BYTES
    yield Check(
        name="space",
        level="warn" if little else "ok",
        found=f"{free / 1e9:.1f} GB free (a quota may be less)",
        cure="a survey needs about 60 kB a spectrum, and as much for a product" if little else "",
    )
    state = os.statvfs(folder)
    if not state.f_files:
        yield Check(name="inodes", level="ok", found="no limit told")
        return
    few = state.f_favail < 100_000
    yield Check(
        name="inodes",
        level="warn" if few else "ok",
        found=f"{state.f_favail} files more",
        cure="a store makes about one file for 100 spectra; ask for a larger quota" if few else "",
    )


def _file_size() -> Check:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return Check(name="file size", level="ok", found="no limit for this process")
    level: Literal["warn", "fail"] = "fail" if limit < RATE_BYTES else "warn"
    found = f"at most {limit / 1e6:.0f} MB for this process"
    return Check(name="file size", level=level, found=found, cure="ulimit -f unlimited")
