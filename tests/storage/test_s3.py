"""A store in a bucket lives as one in a folder does."""

import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from storage.lease import LeaseError
from storage.place import StoreError, objects
from storage.store import Survey, exists
from storage.versions import expire, tag, tags
from storage.writer import WriteError, Writer, writing
from tests.storage import s3
from tests.storage.stores import CHUNK, GROUP, flux, made, pixels, written

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("obstore")
    return f"{s3.bucket(monkeypatch)}/dr1/survey.icechunk"


def keys(path: str) -> set[str]:
    return {found["path"] for batch in objects(path).list() for found in batch}


def python(program: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_store_in_a_bucket_is_made_written_and_read_in_another_process(path: str) -> None:
    assert not exists(path)
    made(path)
    assert exists(path)
    snapshot = written(path, 1)
    program = (
        "import sys; from storage.store import Survey; s = Survey.open(sys.argv[1]);"
        f"print(s.snapshot, float(s.dataset({GROUP!r})['flux'].sum(dtype='f8')))"
    )
    said = python(program, path).split()
    assert said[0] == snapshot
    assert float(said[1]) == pytest.approx(pixels(1).sum(dtype="f8"), rel=1e-12)
    assert [version.message for version in Survey.open(path).history()][:3] == [
        "flux 1",
        "room",
        "create",
    ]
    # The lease is gone; everything else lies below the store's own prefix.
    assert all(key.startswith("dr1/survey.icechunk/") for key in keys(path))


def test_a_fork_is_written_by_another_process_and_carries_no_secret(
    path: str, tmp_path: Path
) -> None:
    made(path)
    program = (
        "import os, pickle, sys; from pathlib import Path; import numpy as np;"
        "file = Path(sys.argv[1]); fork = pickle.loads(file.read_bytes());"
        f"fork.write_block({GROUP!r}, int(sys.argv[2]), {{'flux': np.load(sys.argv[3])}});"
        "file.write_bytes(pickle.dumps(fork));"
        # Threads of the client that outlive the interpreter abort it now and then.
        "os._exit(0)"
    )
    with writing(path, "test") as writer:
        sent, forks = pickle.dumps(writer.fork()), []
        assert b"secret-of-the-tests" not in sent
        for first, last in ((0, 2 * CHUNK), (2 * CHUNK, 10)):
            file, values = tmp_path / f"{first}", tmp_path / f"{first}.npy"
            file.write_bytes(sent)
            np.save(values, pixels(1)[first:last])
            python(program, str(file), str(first), str(values))
            forks.append(pickle.loads(file.read_bytes()))
        writer.absorb(forks)
        writer.commit("by two")
    np.testing.assert_array_equal(flux(path), pixels(1))


def test_a_second_writer_is_refused_by_the_lease(path: str) -> None:
    made(path)
    with writing(path, "the first"):
        assert "dr1/survey.icechunk.lease" in keys(path)
        with pytest.raises(LeaseError, match=r"survey.icechunk.lease: the first \(pid"):
            written(path, 1)
    written(path, 1)


def test_of_two_commits_from_one_version_the_service_refuses_the_second(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(path)
    with writing(path, "test") as writer:
        rival = Writer(path, writer._repository, writer.lease)
        rival.set_attrs(GROUP, {"colour": "blue"})
        rival.commit("theirs")
        # As if theirs came after our own look at the branch.
        monkeypatch.setattr(Writer, "_check_tip", lambda *_: None)
        writer.set_attrs(GROUP, {"colour": "green"})
        with pytest.raises(WriteError, match=r"committed by another writer"):
            writer.commit("ours")
    assert Survey.open(path).attrs(GROUP)["colour"] == "blue"


def test_versions_are_tagged_and_expired_in_a_bucket(path: str) -> None:
    made(path)
    first, second, _ = (written(path, value) for value in range(3))
    tag(path, "dr1", first)
    assert tags(path) == {"dr1": first}
    # The service tells times in whole seconds: in what is younger it sees no garbage.
    later, before = datetime.now(UTC) + timedelta(seconds=2), keys(path)
    told = expire(path, later, dry_run=True)
    assert keys(path) == before
    freed = expire(path, later)
    assert (told.chunks, told.snapshots) == (freed.chunks, freed.snapshots) == (3, 3)
    assert told.bytes == pytest.approx(freed.bytes, rel=0.02)
    np.testing.assert_array_equal(flux(path, "dr1"), pixels(0))
    np.testing.assert_array_equal(flux(path), pixels(2))
    with pytest.raises(ValueError, match=r"or it was expired"):
        Survey.open(path, snapshot=second)


def test_a_bucket_that_is_not_there_is_named_with_the_cure(path: str) -> None:
    missing = "s3://no-such-bucket-here/survey.icechunk"
    for attempt in (exists, Survey.open, Survey.create):
        with pytest.raises(StoreError, match=r"no-such-bucket-here.*no such bucket; make it"):
            attempt(missing)
