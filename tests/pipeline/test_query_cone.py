"""Circles in expressions: answered from the sky index, as if every row were tested."""

from pathlib import Path

import dask
import icechunk
import numpy as np
import pytest

from pipeline.expression import circle, evaluate
from pipeline.query import open_survey
from storage import schema, sky
from storage.schema import COLUMNS, LEDGER
from storage.store import Survey
from storage.writer import COLUMN_ROWS, writing

N = 3 * COLUMN_ROWS
FIELDS = {**{name: COLUMNS[name] for name in ("ra", "dec", "z", "snr")}, **LEDGER}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows along a stripe of the sky, in three chunks of a column."""
    path = str(tmp_path_factory.mktemp("stripe") / "survey.icechunk")
    Survey.create(path)
    rng = np.random.default_rng(4)
    columns = {
        "ra": np.linspace(0, 120, N),
        "dec": rng.uniform(-1, 1, N),
        "z": rng.uniform(0, 0.2, N),
        "snr": rng.uniform(0, 30, N).astype("f4"),
        "status": np.ones(N, "u1"),
    }
    with writing(path, "test") as writer:
        writer.create_group("spectra/sdss", schema.template(N, None, FIELDS), {})
        writer.write_columns("spectra/sdss", 0, columns)
        writer.commit("rows")
        sky.write(writer, "sdss")
        writer.commit("index")
    return path


@pytest.mark.parametrize(
    "expression",
    [
        "cone(50, 0, 3600)",
        "cone(50, 0, 60 * 60) and z < 0.1",
        "z < 0.1 and (cone(0, 0.5, 2000) and snr > 10)",
        "cone(50, 0, 3600) and cone(50.5, 0, 3600)",
        "cone(50, 0, 3600) or z < 0.0001",
        "not cone(60, 0, 150000)",
        "cone(ra, 0, 3600) and cone(80, 0, 3600)",
        "cone(200, 0, 3600) and z < 0.1",
    ],
)
def test_a_selection_is_that_of_every_row(store: str, expression: str) -> None:
    ds = open_survey(store)
    columns = {name: ds[name].to_numpy() for name in ("ra", "dec", "z", "snr")}
    expected = np.flatnonzero(evaluate(expression, columns, N))
    np.testing.assert_array_equal(ds.spectra.select(expression)["row"], expected)


def test_a_circle_in_a_selection_keeps_its_order(store: str) -> None:
    ds = open_survey(store)
    part = ds.isel(spectrum=np.arange(N)[::-7])
    found = part.spectra.select("cone(50, 0, 3600) and z < 0.1")["row"].to_numpy()
    expected = ds.spectra.select("cone(50, 0, 3600) and z < 0.1")["row"].to_numpy()
    own = part["row"].to_numpy()
    np.testing.assert_array_equal(found, own[np.isin(own, expected)])
    assert len(found) > 10


def test_without_its_store_every_row_is_tested(store: str) -> None:
    ds = open_survey(store)
    alone = ds.drop_attrs().spectra.select("cone(50, 0, 3600)")
    assert alone["row"].equals(ds.spectra.select("cone(50, 0, 3600)")["row"])


def test_only_chunks_with_rows_of_the_circle_are_read(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = open_survey(store)
    read: list[str] = []
    plain = icechunk.IcechunkStore.get

    async def get(self: object, key: str, *args: object, **kwargs: object) -> object:
        read.append(key)
        return await plain(self, key, *args, **kwargs)

    monkeypatch.setattr(icechunk.IcechunkStore, "get", get)
    # In this process: another test's workers would read unseen.
    with dask.config.set(scheduler="synchronous"):
        assert ds.spectra.select("cone(50, 0, 1800) and z < 0.1").sizes["spectrum"] > 10
    chunks = [key for key in read if key.startswith("spectra/") and "/c/" in key]
    assert chunks == ["spectra/sdss/z/c/1"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cone(1, -2, 3)", (1.0, -2.0, 3.0)),
        ("class == 'QSO' and cone(1, -2.5, 2 * 60)", (1.0, -2.5, 120.0)),
        ("z < 1 or cone(1, -2, 3)", None),
        ("not cone(1, 2, 3)", None),
        ("cone(ra, 2, 3)", None),
        ("cone(1, 2)", None),
        ("z < 1", None),
        ("", None),
    ],
)
def test_the_circle_of_an_expression_holds_for_all_its_rows(
    expression: str, expected: tuple[float, float, float] | None
) -> None:
    assert circle(expression) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("cone(1, 2, -3)", r"the radius is -3.0, expected 0 arcsec or more"),
        ("cone(1, 92, 3) and z < 1", r"no position \(1.0, 92.0\)"),
        ("cone(200, 0, 3) and zz < 1", r"no column 'zz'; did you mean 'z'\?"),
        ("cone(1, 2) and z < 1", r"no function 'cone' of 2"),
        ("cone(50, 0, 3600) and z", r"'z' is float64|gives float64"),
        ("cone(1, 2, 3", r"not an expression"),
    ],
)
def test_what_is_wrong_is_said_with_an_index_too(store: str, expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_survey(store).spectra.select(expression)


def test_spectra_without_positions_have_no_circle(tmp_path: Path) -> None:
    path = str(tmp_path / "none.icechunk")
    Survey.create(path)
    with writing(path, "test") as writer:
        shape = {name: FIELDS[name] for name in ("z", "status")}
        writer.create_group("spectra/sdss", schema.template(3, None, shape), {})
        writer.commit("rows")
    with pytest.raises(ValueError, match=r"no column 'ra'"):
        open_survey(path).spectra.select("cone(1, 2, 3)")
