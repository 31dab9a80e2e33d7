"""Doctor: what it says of a store, in a folder and in a bucket; it only reads."""

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import disk, doctor
from pipeline.doctor import Check, examine
from storage.holder import Holder
from storage.place import objects
from storage.slot import Text
from storage.store import Survey
from storage.writer import writing
from tests.storage import s3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "RATE_BYTES", 8 << 20)


def checks(path: Path | str) -> dict[str, Check]:
    found = examine(str(path))
    assert len({check.name for check in found}) == len(found)
    assert [check for check in found if check.level != "ok" and not check.cure] == []
    return {check.name: check for check in found}


def tree(folder: Path) -> dict[str, tuple[int, float]]:
    return {
        str(file): (file.stat().st_size, file.stat().st_mtime)
        for file in folder.rglob("*")
        if file.is_file()
    }


def failing(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "s.icechunk")
    Survey.create(path)
    return path


def test_a_store_is_only_read(store: str, tmp_path: Path) -> None:
    before = tree(tmp_path)
    found = checks(store)
    assert tree(tmp_path) == before
    assert found["lease"].found == "nobody writes"
    assert found["versions"].found.startswith("2 of ")
    assert found["leftovers"].level == "ok"
    assert found["unused"].level == "ok"
    assert "files" in found["size"].found


def test_a_writer_and_a_dead_one_are_told_apart(store: str) -> None:
    with writing(store, "ingest"):
        found = checks(store)["lease"]
        assert found.level == "warn"
        assert f"ingest (pid {os.getpid()}" in found.found
        assert "that process is alive" in found.found
    dead = replace(Holder.me("ingest"), started="1")
    Path(f"{store}.lease").write_text(json.dumps(asdict(dead)))
    found = checks(store)["lease"]
    assert "left by a dead process: ingest" in found.found
    assert "the next run takes it over" in found.cure
    elsewhere = replace(dead, host="elsewhere")
    Path(f"{store}.lease").write_text(json.dumps(asdict(elsewhere)))
    assert "is not seen from here" in checks(store)["lease"].found
    Path(f"{store}.lease").write_text("nonsense")
    assert checks(store)["lease"].level == "fail"


def test_leftovers_beside_a_store_are_named(store: str, tmp_path: Path) -> None:
    (tmp_path / "s.icechunk.lease.0a1b2c3d").write_text("a draft")
    (tmp_path / ".partial-7-out.fits").write_text("half")
    found = checks(store)["leftovers"]
    assert found.level == "warn"
    assert found.found == ".partial-7-out.fits, s.icechunk.lease.0a1b2c3d"


def test_chunks_of_no_version_are_counted(store: str) -> None:
    chunks = Path(store, "chunks")
    chunks.mkdir(exist_ok=True)
    (chunks / "00000000000000000000").write_bytes(bytes(5_000_000))
    found = checks(store)["unused"]
    assert (found.level, found.found) == ("warn", "0.005 GB of chunks belong to no version")


def test_a_damaged_store_is_said(store: str) -> None:
    for file in Path(store, "snapshots").iterdir():
        file.write_bytes(b"")
    found = checks(store)["store"]
    assert found.level == "fail"
    assert "specmill verify" in found.cure


class Bucket:
    """A place for a lease in memory; its puts are conditional, or said to be."""

    name = "s3://here/s.icechunk"

    def __init__(self, *, honest: bool) -> None:
        self.honest, self.held = honest, None

    held: Text | None

    def create(self, text: str) -> bool:
        if self.held is not None and self.honest:
            return False
        self.held = Text(text, text)
        return True

    def read(self) -> Text | None:
        return self.held

    def renew(self, found: Text, text: str) -> bool:
        if self.held != found and self.honest:
            return False
        self.held = Text(text, text)
        return True

    def remove(self, found: Text) -> bool:
        self.held = None
        return True


@pytest.mark.parametrize("honest", [True, False])
def test_a_bucket_must_refuse_a_second_writer(
    monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    bucket = Bucket(honest=honest)
    monkeypatch.setattr(doctor, "slot", lambda _: bucket)
    monkeypatch.setattr(doctor, "exists", lambda _: False)
    found = checks("s3://here/s.icechunk")
    assert found["bucket"].level == "ok"
    assert found["conditional put"].level == ("ok" if honest else "fail")
    assert bucket.held is None


def test_a_bucket_that_does_not_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "slot", failing(errno.ECONNREFUSED))
    monkeypatch.setattr(doctor, "exists", lambda _: False)
    found = checks("s3://here/s.icechunk")["bucket"]
    assert found.level == "fail"
    assert "AWS_ENDPOINT_URL" in found.cure


def test_a_store_in_a_bucket_is_looked_at_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = f"{s3.bucket(monkeypatch)}/survey.icechunk"
    found = checks(store)
    assert (found["bucket"].level, found["conditional put"].level) == ("ok", "ok")
    assert "versions" not in found
    Survey.create(store)
    keys = sorted(name["path"] for part in objects(store).list() for name in part)
    found = checks(store)
    assert found["versions"].found.startswith("2 of ")
    assert found["lease"].found == "nobody writes"
    assert sorted(name["path"] for part in objects(store).list() for name in part) == keys
