"""Verify holds the rows of a survey against one another, and against the files they came from."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.verify import verify
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline import sound
from tests.pipeline.sound import GROUP, PRODUCT

ROWS = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store without a fault; not to be changed."""
    return sound.build(tmp_path_factory.mktemp("made") / "s.icechunk", ROWS, 20)


@pytest.fixture
def store(made: str, tmp_path: Path) -> str:
    """A copy of it, to damage."""
    return str(shutil.copytree(made, tmp_path / "s.icechunk"))


@pytest.mark.parametrize(
    ("first", "columns", "words"),
    [
        (5, {"observation": "0000002"}, "several done rows of one observation: rows 2, 5;"),
        (5, {"source": ""}, "1 rows done, without a source: rows 5"),
        (5, {"digest": ["", ""]}, "2 rows done, without a digest: rows 5, 6"),
        (5, {"object_id": 0}, "1 rows done and on the sky, without an object: rows 5"),
        (5, {"object_id": 1}, "object 1 is on two sides: train in spectra/sdss row 0 and val in"),
        (5, {"split": 9, "object_id": 1}, "and split 9 in spectra/sdss row 5; ingest again"),
    ],
)
def test_rows_that_contradict_are_found(
    store: str, first: int, columns: dict[str, Any], words: str
) -> None:
    sound.put(store, GROUP, first, **columns)
    (found,) = verify(store)
    assert words in found.what
    assert found.group == GROUP


def test_what_is_no_contradiction_is_not_found(store: str) -> None:
    """A quarantined duplicate, a repeat on the same side, an object without a place."""
    sound.put(store, GROUP, 5, observation="0000002", status=2, reason_code=Reason.DUPLICATE)
    sound.put(store, PRODUCT, 5, status=3, reason_code=Reason.UPSTREAM_QUARANTINED)
    sound.put(store, GROUP, 8, object_id=1)
    sound.put(store, GROUP, 9, object_id=0, ra=np.nan)
    assert list(verify(store)) == []


def test_a_row_named_by_its_survey_needs_a_name_to_have_an_object(store: str) -> None:
    with writing(store, "test") as writer:
        writer.set_attrs(GROUP, {"identity": "target_id"})
        writer.commit("identity")
    sound.put(store, GROUP, 5, object_id=0)
    assert list(verify(store)) == []
    sound.put(store, GROUP, 5, target_id="17")
    (found,) = verify(store)
    assert "without an object: rows 5" in found.what


def test_a_product_of_a_spectrum_that_is_not_done_is_found(store: str) -> None:
    sound.put(store, GROUP, 3, status=Status.QUARANTINED, reason_code=Reason.NO_DATA)
    (found,) = verify(store)
    assert found.group == PRODUCT
    assert "1 rows done, and their spectra are not; run the stage again: rows 3" in found.what


def test_an_array_of_other_rows_than_its_group_is_found(store: str) -> None:
    with writing(store, "test") as writer:
        array = writer._root[f"{GROUP}/mask"]
        assert isinstance(array, zarr.Array)
        array.resize((ROWS - 4, array.shape[1]))
        writer.commit("torn")
    said = "; ".join(one.what for one in verify(store))
    assert f"'mask' has {ROWS - 4} rows, its group has {ROWS}" in said


def test_a_variable_that_is_missing_is_found_once(store: str) -> None:
    with writing(store, "test") as writer:
        del writer._root[GROUP]["lsf"]
        writer.commit("torn")
    (found,) = verify(store)
    assert "no variable 'lsf'" in found.what


def test_groups_of_another_kind_are_let_be(store: str) -> None:
    with writing(store, "test") as writer:
        sky = writer._root.create_group("sky/sdss")
        sky.create_array("healpix", data=np.arange(5))
        other = writer._root.create_group("mylab/sdss")
        other.attrs["rows"] = 5
        writer.commit("an index of the sky")
    assert list(verify(store)) == []


def test_damage_in_a_group_of_another_kind_is_found(store: str) -> None:
    with writing(store, "test") as writer:
        sky = writer._root.create_group("sky/sdss")
        sky.create_array("healpix", data=np.random.default_rng(1).normal(size=5000))
        writer.commit("an index of the sky")
    (file,) = (f for f in Path(store, "chunks").iterdir() if f.stat().st_size > 30_000)
    file.unlink()
    (found,) = verify(store)
    assert (found.group, found.array, found.rows) == ("sky/sdss", "healpix", (0, 5000))


def test_a_group_that_does_not_say_its_rows_is_found(store: str) -> None:
    with writing(store, "test") as writer:
        del writer._root[PRODUCT].attrs["rows"]
        writer.commit("torn")
    (found,) = verify(store)
    assert found.group == PRODUCT
    assert "does not say its rows" in found.what


@pytest.fixture
def files(store: str, tmp_path: Path) -> Path:
    """The folder of the files that the store was made from."""
    folder = tmp_path / "files"
    folder.mkdir()
    digests = []
    for row in range(ROWS):
        content = f"spectrum {row}".encode()
        (folder / f"{row:07d}.fits").write_bytes(content)
        digests.append(hashlib.blake2b(content, digest_size=16).hexdigest())
    sound.put(store, GROUP, 0, digest=digests)
    return folder


def test_files_that_are_as_they_were_have_no_findings(store: str, files: Path) -> None:
    assert list(verify(store, root=str(files))) == []


def test_files_that_changed_or_vanished_are_named(store: str, files: Path) -> None:
    (files / "0000003.fits").write_bytes(b"another")
    (files / "0000007.fits").unlink()
    said = [(one.group, one.what) for one in verify(store, root=str(files))]
    assert said == [
        (GROUP, "0000003.fits (row 3) has changed since it was read; ingest again"),
        (GROUP, "0000007.fits (row 7) is gone; put it back"),
    ]


def test_a_folder_of_files_that_is_not_there_is_refused(store: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none: no such folder; give the one"):
        list(verify(store, root=str(tmp_path / "none")))
    assert Survey.open(store)
