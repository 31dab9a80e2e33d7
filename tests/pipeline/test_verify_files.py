"""Verify reads the files that rows came from, and those beside them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.verify import Finding, verify
from storage.readers import desi
from storage.writer import writing
from tests.pipeline import sound
from tests.pipeline.sound import GROUP
from tests.storage import desi_mock

N, COADD, REDROCK = 4, desi_mock.NAME, "redrock-main-dark-9.fits"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a DESI file that redshifts are beside, with the digests that its reader gave."""
    folder = tmp_path_factory.mktemp("made")
    desi_mock.survey(folder / "files", N)
    reader, root = desi.build(), str(folder / "files")
    (source,) = reader.find(root, "desi")
    rows = reader.read(source, root, "desi")
    assert np.isfinite(rows["z"]).all()
    store = sound.build(folder / "s.icechunk", N, 20)
    columns = {name: rows[name].to_numpy() for name in ("source", "source_row", "digest")}
    sound.put(store, GROUP, 0, **columns)
    attrs(store, reader="desi", options={"resolution": "sigma"})
    return folder


def attrs(store: str, **given: object) -> None:
    with writing(store, "test") as writer:
        writer.set_attrs(GROUP, given)
        writer.commit("attrs")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of store and files, to do anything with."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def found(copy: Path) -> list[str]:
    said = [*verify(str(copy / "s.icechunk"), root=str(copy / "files"))]
    assert {finding.group for finding in said} <= {GROUP}
    return [finding.what for finding in said]


def test_a_file_with_redshifts_beside_it_has_no_findings(copy: Path) -> None:
    assert found(copy) == []


@pytest.mark.parametrize("name", [COADD, REDROCK])
def test_one_bit_of_either_file_is_found(copy: Path, name: str) -> None:
    path = copy / "files" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    words = f"{COADD} (row 0) has changed since it was read, or {REDROCK} has; ingest again"
    assert found(copy) == [words]


def test_redshifts_that_are_gone_are_found(copy: Path) -> None:
    (copy / "files" / REDROCK).unlink()
    words = "has changed since it was read, or a file beside it is gone; ingest again"
    assert found(copy) == [f"{COADD} (row 0) {words}"]


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (fifo, "cannot be read (a pipe (FIFO), expected a regular file)"),
        (folder, "cannot be read (a folder, expected a regular file)"),
        (Path.unlink, "is gone; put it back"),
    ],
)
def test_what_is_no_file_is_said_and_never_opened(
    copy: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(copy / "files" / COADD)
    assert found(copy) == [f"{COADD} (row 0) {words}"]


@pytest.mark.timeout(30)
def test_a_pipe_in_the_place_of_redshifts_is_found(copy: Path) -> None:
    fifo(copy / "files" / REDROCK)
    assert found(copy) == [
        f"{COADD} (row 0) has changed since it was read, or {REDROCK} has; ingest again"
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reader": "sdds"}, "'sdds' is not in storage.readers"),
        ({"reader": "nobody.there"}, "'nobody.there' is not in storage.readers"),
        ({"options": {"colour": 1}}, "colour"),
    ],
)
def test_files_of_a_reader_that_is_not_there_are_said_to_be_unchecked(
    copy: Path, given: dict[str, object], words: str
) -> None:
    store = str(copy / "s.icechunk")
    attrs(store, **given)
    (said,) = verify(store, root=str(copy / "files"))
    assert said.what.startswith("its files cannot be checked: ")
    assert words in said.what
    assert list(verify(store)) == list[Finding]()
