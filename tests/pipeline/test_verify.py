"""Verify: a whole store has no findings; whatever is wrong is found, named, and no crash."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from pipeline import ingest, simulate
from pipeline.verify import Finding, verify
from storage import schema
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import Writer, writing
from tests.pipeline import surveys
from tests.pipeline.runs import specmill
from tests.pipeline.surveys import ROWS

pytestmark = pytest.mark.cluster

CHUNK = 8
GROUP, TRUTH = "spectra/sdss", "truth/sdss"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Path:
    """A whole store, in chunks of eight rows; not to be changed."""
    folder = tmp_path_factory.mktemp("verify")
    card = surveys.mock_card(folder)
    simulate.simulate(card)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stage.CHUNK_ROWS", CHUNK)
        patch.setattr(Writer.create_group, "__defaults__", (CHUNK,))
        ingest.ingest(card, client)
    return Path(card.store)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> str:
    """A copy of it, to do anything with."""
    return str(shutil.copytree(made, tmp_path / "survey.icechunk"))


def chunks(store: str) -> list[Path]:
    """Files of chunks, the largest (of pixels) first."""
    files = (file for file in Path(store, "chunks").rglob("*") if file.is_file())
    return sorted(files, key=lambda file: (-file.stat().st_size, file.name))


def change(store: str, edit: Callable[[Writer], object]) -> None:
    with writing(store, "test") as writer:
        edit(writer)
        writer.commit("changed")


def test_a_whole_store_has_no_findings(store: str) -> None:
    assert list(verify(store)) == []


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_a_damaged_chunk_is_found_with_its_group_and_rows(
    store: str, damage: Callable[[Path], None]
) -> None:
    damage(chunks(store)[0])
    (found,) = verify(store)
    first = int(found.what.partition("in rows ")[2].partition(":")[0])
    assert found.group in (GROUP, TRUTH)
    assert f"cannot be read in rows {first}:{min(first + CHUNK, ROWS)}" in found.what
    assert first % CHUNK == 0
    assert "put the store back from a copy, or make it again" in found.what
    name = found.what.split("'")[1]
    with pytest.raises(Exception, match=r"\S"):
        Survey.open(store).dataset(found.group)[name][first : first + CHUNK].load()


def test_a_damaged_column_is_found_in_all_its_rows(store: str) -> None:
    before = set(chunks(store))
    # Incompressible: a small chunk would be kept in the manifest.
    noise = np.random.default_rng(1).normal(size=(ROWS, 8))
    words = np.array(["".join(map(repr, row)) for row in noise], np.dtypes.StringDType())
    change(store, lambda writer: writer.write_columns(GROUP, 0, {"reason": words}))
    (file,) = set(chunks(store)) - before
    flip(file)
    (found,) = verify(store)
    assert found.what.startswith(f"'reason' cannot be read in rows 0:{ROWS} (")


def code(group: str, name: str, row: int, value: int) -> Callable[[Writer], None]:
    dtype = "u1" if name == "status" else "u2"
    return lambda writer: writer.write_columns(group, row, {name: np.array([value], dtype)})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (code(GROUP, "status", 5, Status.PENDING), "1 rows pending; run the stage again: rows 5"),
        (code(TRUTH, "status", 9, Status.PENDING), "1 rows pending; run the stage again: rows 9"),
        (code(GROUP, "status", 5, Status.NOT_APPLICABLE), "not done, and no reason why: rows 5"),
        (code(GROUP, "status", 5, 77), "'status' is unknown: 1 values in rows 5;"),
        (code(GROUP, "reason_code", 5, Reason.NO_DATA), "done, but with a reason: rows 5"),
        (code(GROUP, "reason_code", 5, 77), "a reason of no meaning: rows 5"),
    ],
)
def test_a_ledger_that_is_wrong_is_found(
    store: str, edit: Callable[[Writer], None], words: str
) -> None:
    change(store, edit)
    assert words in "; ".join(found.what for found in verify(store))


def pixels(name: str, value: float) -> Callable[[Writer], None]:
    """Rows 8 to 16 of a pixel array, all of one value."""

    def edit(writer: Writer) -> None:
        fork = writer.fork()
        values = np.full((CHUNK, surveys.GRID.size), value, "f4")
        fork.write_block(GROUP, CHUNK, {name: values})
        writer.absorb([fork])

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            pixels("ivar", 0),
            "8 rows done, but without data in 'ivar': rows 8, 9, 10, 11, 12 and 3 more",
        ),
        (pixels("ivar", 0), "'flux' is not 0 where ivar is 0"),
        (pixels("ivar", -1), "'ivar' is negative or not finite"),
        (pixels("flux", np.nan), "'flux' is not finite"),
    ],
)
def test_data_that_a_survey_cannot_have_are_found(
    store: str, edit: Callable[[Writer], None], words: str
) -> None:
    change(store, edit)
    said = list(verify(store))
    assert {found.group for found in said} == {GROUP}
    assert words in "; ".join(found.what for found in said)


def test_missing_provenance_and_an_unfinished_ingest_are_found(store: str) -> None:
    def forget(writer: Writer) -> None:
        attrs = writer._root[GROUP].attrs
        attrs.put({k: v for k, v in attrs.items() if k not in ("code_version", "complete")})

    change(store, forget)
    assert list(verify(store)) == [
        Finding(group=GROUP, what="no provenance: code_version"),
        Finding(group=GROUP, what="ingest is not finished; run `specmill ingest` again"),
    ]


def test_rows_that_are_not_aligned_are_found(store: str) -> None:
    change(store, lambda writer: writer.resize(TRUTH, ROWS + 3))
    expected = Finding(group=TRUTH, what=f"{ROWS + 3} rows, {GROUP} has {ROWS}")
    assert expected in list(verify(store))


def test_a_product_without_its_spectra_is_found(store: str) -> None:
    change(store, lambda writer: writer.delete_group(GROUP))
    said = [(found.group, found.what) for found in verify(store)]
    assert said == [(TRUTH, f"no {GROUP} beside it; ingest them again")]


def test_a_variable_without_a_unit_is_found(store: str) -> None:
    def add(writer: Writer) -> None:
        fields = {"flux": schema.PIXELS["flux"], **schema.LEDGER}
        shape = schema.template(0, surveys.GRID, fields)
        del shape["flux"].attrs["units"]
        writer.create_group("denoised/sdss/x", shape, {})

    change(store, add)
    assert "no units on flux" in [f.what for f in verify(store) if f.group == "denoised/sdss/x"]


@pytest.mark.parametrize(("damage", "status"), [(None, 0), (flip, 3)])
def test_the_command_exits_with_what_it_found(
    store: str, damage: Callable[[Path], None] | None, status: int
) -> None:
    if damage:
        damage(chunks(store)[0])
    done = specmill(Path(store).parent, "verify", "survey.icechunk")
    assert done.returncode == status
    assert f"survey.icechunk: 2 groups, {bool(damage):d} findings" in done.stdout
    assert ("cannot be read in rows" in done.stdout) == bool(damage)
