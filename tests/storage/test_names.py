"""Names in cards become modules: ours from a shelf, anybody's by a dotted name."""

import sys
from pathlib import Path

import pytest

from storage.names import resolve, shelf


def test_a_bare_name_is_on_the_shelf() -> None:
    assert resolve("storage.readers", "sdss").__name__ == "storage.readers.sdss"
    assert "sdss" in shelf("storage.readers")


def test_a_dotted_name_is_anybody_s_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "muse.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("storage.readers", "mylab.muse").ANSWER == 42
    sys.modules.pop("mylab.muse")


def test_an_unknown_name_gives_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"'sdds' is not in storage.readers .* 'sdss'\?"):
        resolve("storage.readers", "sdds")


def test_a_module_that_misses_its_own_dependency_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "reader.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        resolve("storage.readers", "lab.reader")
