"""Folders of spec files that are hidden, locked, or links."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.sdss.names import FILE
from storage.walk import walk

NAME = "spec-0266-51602-0013.fits"


def locked(folder: Path) -> Callable[..., Any]:
    """A scandir that may not list a folder: tests may run as root, who may."""
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    return scandir


def test_drafts_of_a_writer_that_died_are_no_files(tmp_path: Path) -> None:
    (tmp_path / NAME).touch()
    (tmp_path / f".{NAME}.4711").touch()
    assert list(walk(str(tmp_path), FILE)) == [str(tmp_path / NAME)]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / NAME).touch()
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", locked(tmp_path / "locked"))
    paths = walk(str(tmp_path), FILE)
    assert next(paths) == str(tmp_path / "a" / NAME)
    with pytest.raises(PermissionError, match=rf"{tmp_path / 'locked'}: this folder cannot be"):
        next(paths)


def test_links_out_of_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / NAME).touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "26").symlink_to(tmp_path / "elsewhere")
    (root / "spec-0266-51602-0014.fits").symlink_to(tmp_path / "elsewhere" / NAME)
    assert list(walk(str(root), FILE)) == [
        str(root / "26" / NAME),
        str(root / "spec-0266-51602-0014.fits"),
    ]


def test_a_link_to_itself_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(NAME)
    (tmp_path / "other").symlink_to("other")
    assert list(walk(str(tmp_path), FILE)) == [str(tmp_path / NAME)]
