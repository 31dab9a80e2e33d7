"""A small file is there as it was or as it is to be."""

from pathlib import Path

import pytest

from storage.whole import replace


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    for text in ("one\n", "two\n"):
        replace(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text() == text
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    replace(file, "one\n")

    def full(self: Path, text: str) -> None:
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        replace(file, "two\n")
    assert file.read_text() == "one\n"
