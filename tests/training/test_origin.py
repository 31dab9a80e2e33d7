"""An origin says when, where and by what a model was taught, and nothing depends on it."""

import json
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from storage.provenance import code_version
from training import origin
from training.origin import Origin


def taught(code: str = "1", **said: object) -> Origin:
    return Origin(code=(code,), workers=1, **said)


def test_here_is_this_code_on_this_machine_now() -> None:
    found = origin.here("12345678", 2, 3, torch.device("cpu"))
    assert found.code == (code_version(),)
    assert (found.task, found.workers, found.threads) == ("12345678", 2, 3)
    assert found.device == "cpu"
    assert found.packages["torch"] == version("torch")
    assert set(found.packages) == {"specmill", "numpy", "ray", "torch"}
    when = datetime.fromisoformat(found.date)
    assert when.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    said = taught(seconds=12.5, snapshot="ABC", packages={"torch": "2"})
    origin.write(tmp_path, said)
    assert origin.read(tmp_path) == said
    assert [file.name for file in tmp_path.iterdir()] == [origin.FILE]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert origin.read(tmp_path) is None


def test_one_of_a_later_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    (tmp_path / origin.FILE).write_text(json.dumps({"workers": 4, "weather": "fair"}))
    assert origin.read(tmp_path) == Origin(workers=4)


def test_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / origin.FILE).write_text('{"workers": "many"}')
    with pytest.raises(ValueError, match=r"(?s)origin\.json: .*workers.* nothing depends on it"):
        origin.read(tmp_path)


def test_all_code_that_taught_a_run_is_known(tmp_path: Path) -> None:
    for code in ("1", "1", "2", "2"):
        origin.note(tmp_path, taught(code), goes_on=True)
    found = origin.read(tmp_path)
    assert found is not None
    assert found.code == ("1", "2")


def test_a_run_that_begins_anew_forgets_who_taught_it(tmp_path: Path) -> None:
    origin.note(tmp_path, taught("1"), goes_on=False)
    origin.note(tmp_path, taught("2"), goes_on=False)
    assert origin.read(tmp_path) == taught("2")


def test_it_is_a_few_words() -> None:
    said = taught(date="2026-11-22T04:05:06+00:00", seconds=31.4, device="cpu")
    assert said.words == "2026-11-22, 31 s on cpu"
    four = said.model_copy(update={"workers": 4, "device": "NVIDIA H100"})
    assert four.words == "2026-11-22, 31 s on 4 x NVIDIA H100"
