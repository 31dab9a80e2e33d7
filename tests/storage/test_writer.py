"""Rows and columns that come later: every group of a configuration keeps the same rows."""

from pathlib import Path

import numpy as np
import pytest

from storage import schema
from storage.grid import Grid
from storage.schema import Field, Status
from storage.store import Survey
from storage.writer import WriteError, writing

GRID = Grid(kind="log", start=3.55, step=1e-4, size=20)
ROWS = 10
VALUE = {
    "value": Field(dtype="f8", units="1", dims=("spectrum", "index"), description="an index"),
    **schema.LEDGER,
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "survey.icechunk")
    Survey.create(found)
    with writing(found, "test") as writer:
        for group in ("spectra/sdss", "denoised/sdss/m-1", "spectra/desi"):
            writer.create_group(group, schema.template(ROWS, GRID), {}, chunk_rows=4)
        shape = schema.template(ROWS, None, VALUE, {"index": 2})
        writer.create_group("indices/sdss/raw@fs-1", shape, {})
        for group in ("spectra/sdss", "indices/sdss/raw@fs-1"):
            writer.write_columns(group, 0, {"status": np.ones(ROWS, "u1")})
        writer.commit("rooms")
    return found


def status(path: str, group: str) -> list[int]:
    return [int(code) for code in Survey.open(path).dataset(group)["status"]]


def test_all_groups_of_a_configuration_grow_together_and_their_new_rows_are_pending(
    path: str,
) -> None:
    with writing(path, "test") as writer:
        grown = writer.resize_all("sdss", ROWS + 3)
        writer.commit("more room")
        assert writer.resize_all("sdss", ROWS + 3) == []
    assert grown == ["denoised/sdss/m-1", "indices/sdss/raw@fs-1", "spectra/sdss"]
    survey = Survey.open(path)
    assert {group: survey.rows(group) for group in survey.groups()} == {
        "denoised/sdss/m-1": 13,
        "indices/sdss/raw@fs-1": 13,
        "spectra/desi": 10,
        "spectra/sdss": 13,
    }
    for group in grown:
        assert survey.dataset(group).sizes["spectrum"] == ROWS + 3
        assert status(path, group)[ROWS:] == [Status.PENDING] * 3
    assert status(path, "spectra/sdss")[:ROWS] == [Status.DONE] * ROWS
    assert survey.dataset("indices/sdss/raw@fs-1").sizes["index"] == 2


def test_rows_are_never_taken_away(path: str) -> None:
    with writing(path, "test") as writer, pytest.raises(WriteError, match=r"10 rows, 9 are fewer"):
        writer.resize_all("sdss", 9)


@pytest.mark.parametrize("rows", [np.array([1, 4]), np.isin(np.arange(ROWS), [1, 4])])
def test_rows_that_are_reset_are_pending_without_a_reason(path: str, rows: np.ndarray) -> None:
    with writing(path, "test") as writer:
        ledger = {"status": np.full(ROWS, 2, "u1"), "reason_code": np.full(ROWS, 7, "u2")}
        writer.write_columns("spectra/sdss", 0, ledger)
        writer.reset("spectra/sdss", rows)
        writer.commit("anew")
    ds = Survey.open(path).dataset("spectra/sdss")
    expected = [0 if row in (1, 4) else 1 for row in range(ROWS)]
    assert (ds["status"] / 2).to_numpy().tolist() == expected
    assert (ds["reason_code"] / 7).to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("f8", np.linspace(0, 1, ROWS)), ("str", np.array([f"id {row}" for row in range(ROWS)]))],
)
def test_a_column_is_added_with_its_unit_and_dropped_again(
    path: str, dtype: str, values: np.ndarray
) -> None:
    field = Field(dtype=dtype, units="1", description="of a catalogue")
    with writing(path, "test") as writer:
        writer.add_column("spectra/sdss", "cat.x", field, values, {"origin": "cat.fits"})
        added = writer.commit("join")
        writer.resize("spectra/sdss", ROWS + 1)
        writer.delete_column("spectra/sdss", "cat.x")
        writer.commit("without")
    column = Survey.open(path, snapshot=added).dataset("spectra/sdss")["cat.x"]
    assert column.to_numpy().tolist() == values.tolist()
    assert column.attrs == {"units": "1", "long_name": "of a catalogue", "origin": "cat.fits"}
    assert "cat.x" not in Survey.open(path).dataset("spectra/sdss")


def test_a_column_of_another_length_or_of_a_name_in_use_is_refused(path: str) -> None:
    field = Field(dtype="f8", units="1", description="of a catalogue")
    with writing(path, "test") as writer:
        with pytest.raises(WriteError, match=r"'x' has axes .* shape \(3,\), expected .* \(10,\)"):
            writer.add_column("spectra/sdss", "x", field, np.zeros(3))
        with pytest.raises(WriteError, match=r"has a variable 'z'; delete it first"):
            writer.add_column("spectra/sdss", "z", field, np.zeros(ROWS))
        with pytest.raises(KeyError, match=r"no variable 'x'"):
            writer.delete_column("spectra/sdss", "x")
