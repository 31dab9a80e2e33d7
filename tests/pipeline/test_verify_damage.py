"""Verify finds damage on the disk, all of it: which group, which array, which rows."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.chunks import Opened
from pipeline.verify import Finding, verify
from storage.place import objects
from storage.store import Survey
from storage.writer import COLUMN_ROWS, writing
from tests.pipeline import sound
from tests.pipeline.sound import CHUNK, GROUP, PRODUCT
from tests.storage import s3

ROWS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store without a fault; not to be changed."""
    return sound.build(tmp_path_factory.mktemp("made") / "s.icechunk", ROWS)


@pytest.fixture
def store(made: str, tmp_path: Path) -> str:
    """A copy of it, to damage."""
    return str(shutil.copytree(made, tmp_path / "s.icechunk"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def files(store: str) -> list[Path]:
    """Files of chunks of pixels: those of columns are smaller, or kept in the manifests."""
    found = (file for file in Path(store, "chunks").rglob("*") if file.is_file())
    return sorted(file for file in found if file.stat().st_size > 5000)


def values(store: str) -> dict[tuple[str, str, int], bytes]:
    """Every chunk of every pixel array that can be read, by group, array and first row."""
    opened = Opened.open(store, Survey.open(store).snapshot)
    found = {}
    for group in (GROUP, PRODUCT):
        for name, array in opened.arrays(group).items():
            for first in range(0, ROWS, CHUNK) if array.ndim == 2 else ():
                try:
                    found[group, name, first] = np.asarray(array[first : first + CHUNK]).tobytes()
                except Exception:
                    continue
    return found


def places(found: list[Finding]) -> set[tuple[str, str, int, int]]:
    return {(one.group, one.array, *one.rows) for one in found if one.rows}


def test_a_sound_store_has_no_findings(made: str) -> None:
    assert list(verify(made)) == []


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_chunk_file_is_found_with_group_array_and_rows(
    store: str, damage: Callable[[Path], None]
) -> None:
    before = values(store)
    damage(files(store)[7])
    ((group, name, first),) = before.keys() - values(store).keys()
    (found,) = verify(store)
    assert (found.group, found.array, found.rows) == (group, name, (first, first + CHUNK))
    assert f"'{name}' cannot be read in rows {first}:{first + CHUNK}" in found.what
    assert "put the store back from a copy, or make it again" in found.what


def test_all_damage_is_found_not_only_the_first(store: str) -> None:
    before, chosen = values(store), files(store)
    for file, damage in zip(chosen[::4], [flip, truncate, Path.unlink] * 9, strict=False):
        damage(file)
    lost = before.keys() - values(store).keys()
    found = list(verify(store))
    assert len(lost) == len(chosen[::4]) >= 3
    covered = {
        (group, name, row)
        for group, name, first, last in places(found)
        for row in range(first, last, CHUNK)
    }
    assert covered == lost


def test_lost_chunks_side_by_side_are_one_finding(store: str) -> None:
    for file in files(store):
        truncate(file)
    found = list(verify(store))
    assert {(one.array, one.rows) for one in found if one.group == GROUP} == {
        ("flux", (0, ROWS)),
        ("ivar", (0, ROWS)),
    }
    assert "(5 chunks; the first: " in found[0].what


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_damaged_list_of_chunks_is_found(store: str, damage: Callable[[Path], None]) -> None:
    damage(sound.manifest(store, f"{GROUP}/flux"))
    found = [one for one in verify(store) if one.array == "flux" and one.group == GROUP]
    assert found
    assert {one.group for one in verify(store)} == {GROUP}
    assert "the list of the chunks of 'flux' cannot be read" in found[0].what
    assert found[-1].rows == (0, ROWS)


@pytest.mark.parametrize(("array", "step"), [("flux", 29), ("z", 19)])
def test_no_flipped_bit_of_a_list_passes_where_it_changes_what_is_read(
    store: str, array: str, step: int
) -> None:
    """Icechunk reads some damaged lists without a word: rows become empty."""
    file = sound.manifest(store, f"{GROUP}/{array}")
    content = file.read_bytes()
    good = Survey.open(store).dataset(GROUP)[array].to_numpy()
    for place in range(39, len(content), step):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            same = np.array_equal(Survey.open(store).dataset(GROUP)[array].to_numpy(), good)
        except Exception:
            same = False
        found = {one.group for one in verify(store, workers=1)}
        assert found == (set() if same else {GROUP}), place


def test_columns_are_named_with_their_rows(tmp_path: Path) -> None:
    """A column has chunks of 65,536 rows; a small one is in its manifest, a large one is a file."""
    rows = COLUMN_ROWS + 500
    store = sound.build(tmp_path / "s.icechunk", rows, 2, chunk=4096)
    assert list(verify(store)) == []
    biggest = max(files(store), key=lambda file: file.stat().st_size)
    flip(biggest)
    (found,) = verify(store)
    assert found.array in ("ra", "dec", "z", "digest", "source", "observation")
    assert found.rows == (0, COLUMN_ROWS)
    second = sound.manifest(store, f"{GROUP}/mjd" if found.array == "z" else f"{GROUP}/z")
    truncate(second)
    assert {one.array for one in verify(store)} >= {found.array, "z"}


def test_a_damaged_axis_is_found_and_the_rest_is_read_on(store: str) -> None:
    truncate(sound.manifest(store, f"{GROUP}/wavelength"))
    flip(files(store)[0])
    found = list(verify(store))
    assert {one.array for one in found} > {"wavelength"}
    assert len(places(found)) == 2


def test_a_damaged_version_is_said_in_words(store: str) -> None:
    file = Path(store, "snapshots", Survey.open(store).snapshot)
    truncate(file)
    (found,) = verify(store)
    assert found.group == "/"
    assert "cannot be opened" in found.what
    assert "put the store back from a copy" in found.what


def test_a_lost_older_version_is_found(store: str) -> None:
    older = Survey.open(store).history()[1].snapshot
    Path(store, "snapshots", older).unlink()
    (found,) = verify(store)
    assert found.group == "/"
    assert "its history cannot be read" in found.what


def test_an_older_version_can_be_verified(store: str) -> None:
    before = Survey.open(store).snapshot
    sound.put(store, GROUP, 3, reason_code=4)
    assert len(list(verify(store))) == 1
    assert list(verify(store, snapshot=before)) == []
    with pytest.raises(ValueError, match=r"no snapshot or tag 'v9'"):
        list(verify(store, snapshot="v9"))


def test_threads_find_the_same_in_the_same_order(store: str) -> None:
    for file in files(store)[::3]:
        flip(file)
    assert list(verify(store, workers=1)) == list(verify(store, workers=4))


def test_rows_that_were_never_written_are_holes(store: str) -> None:
    with writing(store, "test") as writer:
        for group in (GROUP, PRODUCT):
            writer.resize(group, ROWS + CHUNK)
            writer.write_columns(group, ROWS, {"status": np.ones(CHUNK, "u1")})
        writer.commit("holes")
    said = [f"{one.group}: {one.what}" for one in verify(store)]
    for group, name in ((GROUP, "ivar"), (PRODUCT, "flux")):
        assert f"{group}: 8 rows done, but without data in '{name}': rows 40, 41, 42, 43, 44" in (
            "; ".join(said)
        )


def test_flux_that_is_missing_alone_is_a_hole(store: str) -> None:
    pixels = Opened.open(store, Survey.open(store).snapshot).arrays(GROUP)["flux"].shape[1]
    with writing(store, "test") as writer:
        sound.arrays(writer, GROUP, 8, flux=np.zeros((CHUNK, pixels), "f4"))
        writer.commit("holes")
    (found,) = verify(store)
    assert "8 rows done, but without data in 'flux': rows 8, 9" in found.what
    assert found.rows == (8, 16)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_chunk_without_the_right_to_read_is_found(store: str) -> None:
    files(store)[0].chmod(0)
    (found,) = verify(store)
    assert "cannot be read" in found.what


def test_a_store_in_a_bucket_is_verified_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store = sound.build(f"{s3.bucket(monkeypatch)}/s.icechunk", ROWS)
    assert list(verify(store)) == []
    service = objects(store)
    sizes = {one["path"]: one["size"] for part in service.list("s.icechunk/chunks") for one in part}
    service.delete(max(sizes, key=lambda key: sizes[key]))
    (found,) = verify(store)
    assert "cannot be read in rows" in found.what
