"""Doctor: what it says of good and bad places; it leaves nothing behind."""

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import disk, doctor
from pipeline.doctor import Check, examine

TRIED = {"rename", "hard link", "exclusive file", "lock", "fsync", "case", "rate"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RATE_BYTES", 8 << 20)


def checks(path: Path | str) -> dict[str, Check]:
    found = examine(str(path))
    assert len({check.name for check in found}) == len(found)
    assert [check for check in found if check.level != "ok" and not check.cure] == []
    return {check.name: check for check in found}


def test_a_good_folder_is_good_and_stays_as_it_was(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert {name for name in TRIED if found[name].level == "ok"} >= TRIED - {"case"}
    assert {"cores", "memory", "python", "cuda", "space", "inodes", "file system"} <= found.keys()
    assert list(tmp_path.iterdir()) == []
    assert "numpy" in found["python"].found


def test_a_place_that_is_not_there_is_looked_at_from_above(tmp_path: Path) -> None:
    assert checks(tmp_path / "a" / "b" / "s.icechunk")["rename"].level == "ok"
    assert list(tmp_path.iterdir()) == []


def failing(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("module", "function", "number", "name"),
    [
        (os, "link", errno.EOPNOTSUPP, "hard link"),
        (os, "fsync", errno.EINVAL, "fsync"),
        (Path, "replace", errno.EXDEV, "rename"),
    ],
)
def test_what_a_file_system_cannot_do_fails_and_the_rest_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    function: str,
    number: int,
    name: str,
) -> None:
    monkeypatch.setattr(module, function, failing(number))
    found = checks(tmp_path)
    assert found[name].level == "fail"
    assert os.strerror(number) in found[name].found
    assert "another file system" in found[name].cure
    assert found["exclusive file"].level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_link_over_a_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", shutil.copyfile)
    found = checks(tmp_path)["hard link"]
    assert found.level == "fail"
    assert "a second one of the same name was made" in found.found


def test_files_that_are_not_exclusive_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = os.open

    def lax(path: Any, flags: int, *more: Any, **others: Any) -> int:
        return true(path, flags & ~os.O_EXCL, *more, **others)

    monkeypatch.setattr(os, "open", lax)
    assert "a second file of the same name was made" in checks(tmp_path)["exclusive file"].found


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))
    assert checks(tmp_path)["lock"].level == "warn"


def test_a_folder_that_cannot_be_written_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.tempfile, "mkdtemp", failing(errno.EROFS))
    found = checks(tmp_path)
    assert found["writable"].level == "fail"
    assert os.strerror(errno.EROFS) in found["writable"].found
    assert not TRIED & found.keys()


def test_little_space_and_few_inodes_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    state = SimpleNamespace(f_files=1000, f_favail=7)
    monkeypatch.setattr(disk.os, "statvfs", lambda _: state)
    found = checks(tmp_path)
    assert (found["space"].level, found["inodes"].level) == ("warn", "warn")
    assert found["rate"].found == "not tried: no space"


def test_a_limit_on_files_is_told(tmp_path: Path) -> None:
    show = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from pipeline.disk import folder_checks\n"
        "for check in folder_checks(Path(sys.argv[1])): print(check.name, check.level, sep=',')"
    )
    assert resource.RLIM_INFINITY != 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", show, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"file size,fail", "rate,fail", "rename,ok"} <= set(done.stdout.split("\n"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "level", "words"),
    [
        ("nfs4", "warn", "several machines may write"),
        ("lustre", "warn", "made for large files"),
        ("gpfs", "warn", "made for large files"),
        ("beegfs", "warn", "hard links may be switched off"),
        ("fuse.sshfs", "warn", "through a program"),
        ("fuse.glusterfs", "warn", "shared by machines"),
        ("tmpfs", "warn", "tmpfs at"),
        ("xfs", "ok", "of this machine"),
    ],
)
def test_the_kind_of_a_file_system_is_told_with_what_it_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, level: str, words: str
) -> None:
    mounts = tmp_path / "mounts"
    space = tmp_path / "with space"
    space.mkdir()
    point = str(space).replace(" ", r"\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/b {point} {kind} rw 0 0\n")
    assert disk.file_system(space / "deep", str(mounts)) == (kind, str(space))
    assert disk.file_system(tmp_path, str(mounts)) == ("ext4", "/")
    assert disk.file_system(tmp_path, str(tmp_path / "none")) is None
    monkeypatch.setattr(disk.file_system, "__defaults__", (str(mounts),))
    found = checks(space)["file system"]
    assert found.level == level
    assert words in found.found


def test_limits_of_a_container_are_read(tmp_path: Path) -> None:
    assert doctor.memory_limit(str(tmp_path)) is None
    assert doctor.cpu_share(str(tmp_path)) is None
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert doctor.memory_limit(str(tmp_path)) == 2_000_000_000
    assert doctor.cpu_share(str(tmp_path)) == 1.5
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor.memory_limit(str(tmp_path)) is None
    assert doctor.cpu_share(str(tmp_path)) is None


def test_the_environment_is_told_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://me:hidden@example.org:9000/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hidden")
    found = checks(tmp_path)
    assert found["OMP_NUM_THREADS"].level == "warn"
    assert found["AWS_ENDPOINT_URL"].found == "https://***@example.org:9000/x"
    assert not [check for check in found.values() if "hidden" in check.found]
