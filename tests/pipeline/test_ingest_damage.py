"""Ingest of what is bad: every row says why, the rest gets in, and the exit status is true."""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client

from pipeline import ingest
from pipeline.card import Card
from storage.readers import sdss
from storage.schema import Reason, Split, Status
from storage.store import Survey, location
from storage.writer import writing
from tests.pipeline import surveys
from tests.pipeline.runs import specmill
from tests.pipeline.surveys import FILES, row_of, spectra

SDSS = sdss.build()

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("small_chunks")]


@dataclass(frozen=True)
class Damage:
    do: Callable[[Path], None]
    code: Reason
    words: str
    cure: str


DAMAGES = {
    "truncated": Damage(surveys.truncate, Reason.UNREADABLE, "truncated", "fetch"),
    "no catalog": Damage(surveys.drop_catalog, Reason.MISSING_HDU, "no table SPECOBJ", "fetch"),
    "flux nan": Damage(surveys.put(1, "flux", np.nan), Reason.NOT_FINITE, "not finite", "fetch"),
    "ivar 0": Damage(surveys.put(1, "ivar", 0), Reason.NO_DATA, "no pixel has ivar > 0", "leave"),
    "ivar < 0": Damage(surveys.put(1, "ivar", -1), Reason.NEGATIVE_IVAR, "is negative", "fetch"),
    "no z": Damage(surveys.put(2, "Z", np.nan), Reason.BAD_REDSHIFT, "Z is nan", "leave"),
    "absurd z": Damage(surveys.put(2, "Z", 99), Reason.BAD_REDSHIFT, "Z is 99.0", "leave"),
}


@dataclass(frozen=True)
class Damaged:
    card: Card
    files: dict[str, Path]
    "The damaged ones, by the name of the damage."
    status: int
    said: str
    ds: xr.Dataset
    "What is in the store."


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """Every third file is bad; ingested by the command."""
    folder = tmp_path_factory.mktemp("damaged")
    files = dict(zip(DAMAGES, surveys.write(folder / "files")[1::3], strict=False))
    for name, file in files.items():
        DAMAGES[name].do(file)
    (folder / "card.toml").write_text("[run]\ndir = 'run'\n[survey]\nroot = 'files'\n")
    done = specmill(folder, "ingest", "card.toml")
    card = surveys.card(folder)
    return Damaged(card, files, done.returncode, done.stdout, spectra(card))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_file_keeps_its_row_and_says_what_and_the_cure(damaged: Damaged, name: str) -> None:
    file, expected = damaged.files[name], DAMAGES[name]
    row = row_of(damaged.ds, file, Path(damaged.card.survey.root))
    assert row["status"] == Status.QUARANTINED
    assert row["reason_code"] == expected.code
    for words in (file.name, expected.words, expected.cure):
        assert words in row["reason"].item()
    assert not row["ivar"].any()
    assert not row["flux"].any()
    assert (row["object_id"], row["split"]) == (0, Split.NONE)


def test_the_rest_of_a_damaged_survey_is_in_the_store(damaged: Damaged) -> None:
    bad = {str(file.relative_to(damaged.card.survey.root)) for file in damaged.files.values()}
    good = damaged.ds["status"].to_numpy() == Status.DONE
    assert good.sum() == FILES - len(DAMAGES)
    assert bad.isdisjoint(damaged.ds["source"].to_numpy()[good].tolist())
    assert (damaged.ds["ivar"].to_numpy()[good] > 0).any(axis=1).all()
    assert (damaged.ds["object_id"].to_numpy()[good] > 0).all()


def test_the_command_prints_what_is_quarantined_and_exits_1(damaged: Damaged) -> None:
    assert damaged.status == 1
    assert f"{len(DAMAGES)} quarantined" in damaged.said
    for file in damaged.files.values():
        assert f"quarantined: {file.relative_to(damaged.card.survey.root)}: " in damaged.said


@pytest.mark.parametrize(
    ("change", "key"),
    [(lambda file: None, "digest"), (surveys.put(2, "VDISP", 99), "observation")],
    ids=["the same bytes", "the same observation"],
)
@pytest.mark.parametrize(("folder", "kept"), [("zz", 0), ("00", 1)], ids=["later", "earlier"])
def test_a_spectrum_that_is_there_twice_is_kept_once(
    tmp_path: Path,
    client: Client,
    change: Callable[[Path], None],
    key: str,
    folder: str,
    kept: int,
) -> None:
    card, files = surveys.card(tmp_path), surveys.write(tmp_path / "files")
    root = Path(card.survey.root)
    copy = root / folder / "spec-9999-59999-0001.fits"
    copy.parent.mkdir()
    shutil.copy(files[10], copy)
    change(copy)
    tally = ingest.ingest(card, client)
    pair = [row_of(spectra(card), file, root) for file in (files[10], copy)]
    first, again = pair[kept], pair[1 - kept]
    assert tally.rows == {Status.DONE: FILES, Status.QUARANTINED: 1}
    assert first["status"] == Status.DONE
    assert again["reason_code"] == Reason.DUPLICATE
    assert again["reason"] == (
        f"{again['source'].item()}: the same {key} as {first['source'].item()}; "
        "remove one of the two files"
    )


def test_a_file_that_vanishes_while_it_is_read_is_quarantined(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, files = surveys.card(tmp_path), surveys.write(tmp_path / "files", 4)
    make_room = ingest._extend

    def lose(*given: Any) -> None:
        make_room(*given)
        files[1].unlink(missing_ok=True)

    monkeypatch.setattr(ingest, "_extend", lose)
    ingest.ingest(card, client)
    ds = spectra(card)
    assert ds["status"].to_numpy().tolist() == [1, 2, 1, 1]
    assert f"{files[1].name}: No such file" in ds["reason"][1].item()
    assert ds["source"][1].item().endswith(files[1].name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card of a survey of two files."""
    (tmp_path / "card.toml").write_text("[run]\ndir = 'run'\n[survey]\nroot = 'files'\n")
    surveys.write(tmp_path / "files", 2)
    return tmp_path


def test_a_good_survey_that_is_in_the_store_exits_0(folder: Path, client: Client) -> None:
    ingest.ingest(surveys.card(folder), client)
    done = specmill(folder, "ingest", "card.toml")
    assert done.returncode == 0
    assert done.stdout == "ingest: nothing to do\n"


def make_empty(folder: Path) -> None:
    shutil.rmtree(folder / "files")
    (folder / "files").mkdir()


def make_missing(folder: Path) -> None:
    shutil.rmtree(folder / "files")


def make_misspelt(folder: Path) -> None:
    with (folder / "card.toml").open("a") as card:
        card.write("raeder = 'sdss'\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_empty, ["files: no file here or below is named like spec-", "set survey.root"]),
        (make_missing, ["files: no such folder; set survey.root"]),
        (make_misspelt, ["card.toml: unknown key 'raeder' in [survey]; did you mean 'reader'?"]),
    ],
)
def test_wrong_usage_exits_2_and_makes_no_store(
    folder: Path, make: Callable[[Path], None], words: list[str]
) -> None:
    make(folder)
    done = specmill(folder, "ingest", "card.toml")
    assert done.returncode == 2
    for each in words:
        assert each in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.rglob("*.icechunk*")) == []


def test_a_store_of_another_schema_version_exits_2_and_stays(folder: Path) -> None:
    store = str(folder / "run" / "survey.icechunk")
    Survey.create(store)
    repository = icechunk.Repository.open(location(store))
    session = repository.writable_session("main")
    zarr.open_group(session.store).attrs["specmill_schema"] = 99
    before = session.commit("from the future")
    done = specmill(folder, "ingest", "card.toml")
    assert done.returncode == 2
    assert "survey.icechunk: written with schema version 99, this specmill reads" in done.stderr
    assert "use the specmill that wrote it, or ingest again" in done.stderr
    assert repository.lookup_branch("main") == before


def test_a_second_coordinator_exits_3_and_names_the_first(folder: Path) -> None:
    store = str(folder / "run" / "survey.icechunk")
    before = Survey.create(store).snapshot
    with writing(store, "the first"):
        done = specmill(folder, "ingest", "card.toml")
    assert done.returncode == 3
    assert f"the first (pid {os.getpid()} on {socket.gethostname()}" in done.stderr
    assert "wait for it, or, if that process is certainly gone, remove the file" in done.stderr
    assert "Traceback" not in done.stderr
    assert Survey.open(store).snapshot == before
