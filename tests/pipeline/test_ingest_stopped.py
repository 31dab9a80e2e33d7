"""What stops an ingest from outside: a file that may not grow, a read-only disk, a second one."""

import re
import subprocess
from pathlib import Path

import pytest

from pipeline.query import open_survey
from pipeline.verify import verify
from storage.schema import Status
from storage.store import Survey
from tests.pipeline import surveys
from tests.pipeline.runs import SPECMILL, contents, specmill
from tests.storage.test_disk import disk

pytestmark = pytest.mark.cluster

CARD = "[run]\ndir = 'run'\n[survey]\nroot = 'files'\nstore = '{store}'\n[cluster]\nworkers = 2\n"
WHOLE = r"what was committed is whole: the same command goes on from there"


def survey(folder: Path, store: str = "run/survey.icechunk", n: int = 30) -> Path:
    """A folder with a card and files."""
    surveys.write(folder / "files", n)
    (folder / "card.toml").write_text(CARD.format(store=store))
    return folder


def limited(blocks: int) -> str:
    """The command, in files of so many kB at most."""
    return f'ulimit -f {blocks}; exec "$0" ingest card.toml'


@pytest.mark.slow
def test_an_ingest_whose_workers_cannot_write_exits_3_in_words_and_goes_on(
    tmp_path: Path,
) -> None:
    folder = survey(tmp_path)
    command = ["bash", "-c", limited(64), str(SPECMILL)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.match(rf"specmill: .*survey\.icechunk: a file grew over the limit.*{WHOLE}", last)
    store = str(folder / "run" / "survey.icechunk")
    assert not Path(f"{store}.lease").exists()
    pending = Survey.open(store).dataset("spectra/sdss")["status"] == Status.PENDING
    assert pending.all()
    again = specmill(folder, "ingest", "card.toml")
    assert again.returncode == 0, again.stderr
    assert list(verify(store)) == []


@pytest.mark.slow
def test_of_two_ingests_at_once_one_does_all_and_the_other_nothing(tmp_path: Path) -> None:
    folder = survey(tmp_path)
    two = [
        subprocess.Popen(
            [str(SPECMILL), "ingest", "card.toml", "--set", f"run.dir=run-{name}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    said = [process.communicate(timeout=120) for process in two]
    statuses = [process.returncode for process in two]
    assert 0 in statuses, said
    for status, (out, err) in zip(statuses, said, strict=True):
        # A late one finds the other at work, or its work done.
        refused = status == 3 and "writes to this store; wait for it" in err
        assert refused or (status == 0 and "30 done" in out) or "nothing to do" in out, (out, err)
        assert "Traceback" not in err
    store = str(folder / "run" / "survey.icechunk")
    assert list(verify(store)) == []
    alone = survey(tmp_path / "alone")
    assert specmill(alone, "ingest", "card.toml").returncode == 0
    other = str(alone / "run" / "survey.icechunk")
    assert contents(store, "spectra/sdss") == contents(other, "spectra/sdss")


@pytest.mark.slow
def test_a_store_on_a_read_only_disk_is_read_and_no_verb_writes_to_it(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "20m") as mount:
        store = str(mount / "survey.icechunk")
        folder = survey(tmp_path, store, n=6)
        assert specmill(folder, "ingest", "card.toml").returncode == 0
        surveys.write(folder / "files", 7)
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        assert open_survey(store).sizes["spectrum"] == 6
        assert list(verify(store)) == []
        reads: list[tuple[str, ...]] = [
            ("status", store),
            ("history", store),
            ("export", store, "out.fits"),
        ]
        for words in reads:
            assert specmill(folder, *words).returncode == 0, words
        writes: list[tuple[str, ...]] = [
            ("ingest", "card.toml"),
            ("tag", store, "dr1"),
            ("expire", store),
        ]
        for words in writes:
            done = specmill(folder, *words)
            assert done.returncode == 3, (words, done.stderr)
            assert "the file system is read-only; mount it writable" in done.stderr
            assert "Traceback" not in done.stderr
