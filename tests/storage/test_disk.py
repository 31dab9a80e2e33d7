"""A disk that is full or read-only: said in words, and nothing is half committed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from storage.place import StoreError
from storage.store import Survey
from tests.storage.stores import flux, made, pixels, written

ROOT = Path(__file__).resolve().parents[2]
GOES_ON = r"what was committed is whole: the same command goes on from there"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own; only root may make one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root mounts a file system")
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    target = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(target, bytes(1000))
    except OSError:
        os.close(target)


def test_a_full_disk_stops_the_write_and_the_same_command_goes_on_when_there_is_space(
    tmp_path: Path,
) -> None:
    with disk(tmp_path / "disk", "400k") as folder:
        path = made(folder / "survey.icechunk")
        written(path, 1)
        ballast = folder / "ballast"
        fill(ballast)
        with pytest.raises(StoreError, match=rf"{path}: no space left on the disk.*{GOES_ON}"):
            written(path, 2)
        os.truncate(ballast, ballast.stat().st_size - 50_000)
        with pytest.raises(StoreError, match=rf"{path}: no space left on the disk.*{GOES_ON}"):
            written(path, 2)
        assert sorted(file.name for file in folder.iterdir()) == ["ballast", "survey.icechunk"]
        np.testing.assert_array_equal(flux(path), pixels(1))
        ballast.unlink()
        written(path, 2)
        np.testing.assert_array_equal(flux(path), pixels(2))


def test_a_read_only_file_system_is_read_and_refuses_writes_in_words(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "1m") as folder:
        path = made(folder / "survey.icechunk")
        written(path, 1)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        np.testing.assert_array_equal(flux(path), pixels(1))
        with pytest.raises(StoreError, match=rf"{path}: the file system is read-only; mount it"):
            written(path, 2)
        with pytest.raises(StoreError, match=r"other\.icechunk: the file system is read-only"):
            Survey.create(str(folder / "other.icechunk"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_somebody_else_refuses_writes_in_words(tmp_path: Path) -> None:
    path = made(tmp_path / "survey.icechunk")
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match=r"not permitted; ask the owner of the store"):
            written(path, 1)
    finally:
        tmp_path.chmod(0o755)


def test_a_limit_on_the_size_of_files_stops_the_write_and_nothing_is_half_committed(
    tmp_path: Path,
) -> None:
    path = made(tmp_path / "survey.icechunk")
    written(path, 1)
    program = (
        "import resource, sys; from tests.storage.stores import written;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)); written(sys.argv[1], 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"storage.place.StoreError: {path}: a file grew over the limit")
    assert not Path(f"{path}.lease").exists()
    np.testing.assert_array_equal(flux(path), pixels(1))
    written(path, 2)
    np.testing.assert_array_equal(flux(path), pixels(2))


def test_a_path_that_is_a_file_is_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "survey.icechunk").write_text("")
    with pytest.raises(StoreError, match=r"File exists"):
        Survey.create(str(tmp_path / "survey.icechunk"))
