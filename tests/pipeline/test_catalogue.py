"""Catalogues in files: every format gives the same columns, and says what it cannot give."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline import carry, catalogue_files
from pipeline.carry import chosen
from pipeline.catalogue_files import open_catalogue
from storage.schema import Status
from storage.store import Survey
from tests.pipeline.stores import CONFIG, Known, build

N = 50
FORMATS = ["x.fits", "x.fits.gz", "x.parquet", "x.ecsv", "x.csv"]


def table() -> Table:
    rng = np.random.default_rng(3)
    values = Table(
        {
            "flux": rng.normal(size=N),
            "count": rng.integers(-9, 9, N),
            "bit": np.arange(N) % 3 == 0,
            "name": np.array([f"NGC {n}" for n in range(N)]),
        }
    )
    values["flux"].unit = "mJy"
    return values


def put(folder: Path, values: Table, name: str) -> Path:
    values.write(folder / name, **({"format": "ascii.csv"} if name.endswith(".csv") else {}))
    return folder / name


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_columns(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_files, "BATCH_ROWS", 7)
    expected = table()
    found = open_catalogue(put(tmp_path, expected, name))
    assert found.rows == N
    assert list(found.columns) == expected.colnames
    assert len(list(found.batches(["flux"]))) > 1
    for column in expected.colnames:
        values = found.read(column)
        assert values.known.all()
        assert values.values.tolist() == expected[column].tolist()
    assert found.columns["flux"].units == ("1" if name == "x.csv" else "mJy")


@pytest.mark.parametrize("name", ["x.fits", "x.parquet", "x.ecsv"])
def test_missing_values_are_known_to_be(tmp_path: Path, name: str) -> None:
    values = Table(table(), masked=True)
    for column in values.colnames:
        values[column].mask = np.arange(N) == 4
    if name == "x.fits":
        # A FITS bit has no missing value, its integers one that the header names.
        values.remove_column("bit")
        values["count"].fill_value = -99
    found = open_catalogue(put(tmp_path, values, name))
    assert np.isnan(found.read("flux").values[4])
    assert found.read("name").values[4] == ""
    count = found.read("count")
    assert np.flatnonzero(~count.known).tolist() == [4]
    assert count.values[4] == 0


def test_columns_of_arrays_are_refused_by_name(tmp_path: Path) -> None:
    values = table()
    values["spectrum"] = np.zeros((N, 3))
    for name in ("x.fits", "x.parquet", "x.ecsv"):
        found = open_catalogue(put(tmp_path, values, name))
        with pytest.raises(ValueError, match=r"no columns of numbers or texts: 'spectrum' \("):
            chosen(found, None)
        assert chosen(found, ["FLUX", "name"]) == {"flux": "flux", "name": "name"}
        with pytest.raises(ValueError, match=r"column 'spectrum' is "):
            chosen(found, ["spectrum"])


def test_names_become_what_an_expression_can_spell(tmp_path: Path) -> None:
    names = ["2mass-J", "class", "not", "a b"]
    found = open_catalogue(put(tmp_path, Table({n: [1.0] for n in names}), "x.parquet"))
    assert list(chosen(found, None)) == ["_2mass_J", "class", "not_", "a_b"]
    both = open_catalogue(put(tmp_path, Table({"a b": [1.0], "a-b": [2.0]}), "y.parquet"))
    with pytest.raises(ValueError, match=r"column 'a-b' would be called 'a_b', as column 'a b' is"):
        chosen(both, None)
    own = open_catalogue(put(tmp_path, Table({"status": [1.0]}), "z.parquet"))
    with pytest.raises(ValueError, match=r"column 'status' .* as join itself is; rename it"):
        chosen(own, None)


def test_unsigned_integers_keep_their_digits(tmp_path: Path) -> None:
    values = Table({"id": np.array([2**64 - 1, 2**63, 5], "u8")})
    for name in ("x.fits", "x.parquet", "x.ecsv"):
        found = open_catalogue(put(tmp_path, values, name))
        assert found.read_key("id").values.astype("u8").tolist() == values["id"].tolist()
        assert found.read("id").values.tolist() == values["id"].tolist()


def test_a_key_of_a_text_file_keeps_its_zeros(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,x\n00123,1\n123,2\n")
    found = open_catalogue(tmp_path / "x.csv")
    assert found.read_key("id").values.tolist() == ["00123", "123"]


def test_a_dictionary_is_text_and_a_date_is_refused(tmp_path: Path) -> None:
    columns = {
        "kind": pa.array(["a", "b", None]).dictionary_encode(),
        "day": pa.array([0, 1, 2], pa.date32()),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    found = open_catalogue(tmp_path / "x.parquet")
    assert found.read("kind").values.tolist() == ["a", "b", ""]
    assert found.refused == {"day": "date32[day]"}


def test_files_that_hold_no_catalogue_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.fits: no such file"):
        open_catalogue(tmp_path / "none.fits")
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ValueError, match=r"unknown suffix '.txt', expected .fits, .fit, .parquet"):
        open_catalogue(tmp_path / "x.txt")
    (tmp_path / "x.parquet").write_text("a")
    with pytest.raises(ValueError, match=r"x.parquet: cannot be read as .parquet \("):
        open_catalogue(tmp_path / "x.parquet")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match=r"image.fits: holds no table, only images"):
        open_catalogue(tmp_path / "image.fits")


def test_what_is_held_at_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.join import join

    known: Known = build(tmp_path, n=20, products=())
    values = table()[:15]
    values["observation"] = known.columns["observation"].to_numpy()[4:19].tolist()
    file = put(tmp_path, values, "x.fits")
    join(known.card.store, file, "observation", "one")
    monkeypatch.setattr(carry, "HELD_BYTES", 1)
    monkeypatch.setattr(catalogue_files, "BATCH_ROWS", 4)
    join(known.card.store, file, "observation", "two")
    survey = Survey.open(known.card.store)
    one, two = (survey.dataset(f"catalog/{CONFIG}/{name}") for name in ("one", "two"))
    assert one.drop_attrs().equals(two.drop_attrs())
    assert (one["status"].to_numpy() == Status.DONE).sum() == 14


@pytest.mark.parametrize("name", FORMATS)
def test_a_catalogue_without_rows_matches_nothing(tmp_path: Path, name: str) -> None:
    from pipeline.join import join

    known: Known = build(tmp_path, n=6, products=())
    values = table()[:0]
    values["observation"] = np.array([], "U8")
    done = join(known.card.store, put(tmp_path, values, name), "observation", "gz")
    assert (done.rows, done.matched, done.unmatched) == (0, 0, 6)
