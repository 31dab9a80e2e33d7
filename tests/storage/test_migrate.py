"""An older store is brought up to date in one version; a newer one is left alone."""

from pathlib import Path

import icechunk
import numpy as np
import pytest
import zarr

from storage import schema
from storage.migrate import migrate
from storage.schema import SCHEMA_VERSION, SchemaError
from storage.store import Survey, location
from storage.writer import writing

ROWS = 6


def stamped(path: str, version: int, lacking: tuple[str, ...] = ()) -> str:
    session = icechunk.Repository.open(location(path)).writable_session("main")
    root = zarr.open_group(session.store, mode="r+")
    root.attrs["specmill_schema"] = version
    for name in lacking:
        del root[name]
    return str(session.commit(f"as of schema {version}"))


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "survey.icechunk")
    Survey.create(found)
    with writing(found, "test") as writer:
        for config in ("sdss", "desi"):
            shape = schema.template(ROWS, None, schema.COLUMNS)
            writer.create_group(f"spectra/{config}", shape, {})
            writer.write_columns(f"spectra/{config}", 0, {"z": np.linspace(0, 1, ROWS)})
        writer.create_group("truth/sdss", schema.template(ROWS, None, schema.LEDGER), {})
        writer.commit("rooms")
    return found


@pytest.fixture
def old(path: str) -> str:
    names = ("spectra/sdss/source_size", "spectra/sdss/source_time", "spectra/desi/source_time")
    stamped(path, 1, names)
    return path


def test_a_store_of_version_1_gets_its_columns_in_one_version(old: str) -> None:
    with pytest.raises(SchemaError, match=rf"version 1, .* `specmill migrate {old}` brings it up"):
        Survey.open(old)
    done = migrate(old)
    assert done == [
        "schema 1 -> 2: spectra/desi: source_time added, 0 for every row",
        "schema 1 -> 2: spectra/sdss: source_size added, 0 for every row",
        "schema 1 -> 2: spectra/sdss: source_time added, 0 for every row",
    ]
    survey = Survey.open(old)
    versions = [version.message for version in survey.history()]
    assert versions[:2] == ["migrate: schema 1 -> 2", "as of schema 1"]
    for group in ("spectra/sdss", "spectra/desi"):
        ds = survey.dataset(group)
        assert set(ds.data_vars) == set(schema.COLUMNS)
        for name in ("source_size", "source_time"):
            assert ds[name].dtype == np.int64
            assert ds[name].attrs == schema.attrs(schema.COLUMNS[name])
            assert not ds[name].any()
        np.testing.assert_array_equal(ds["z"], np.linspace(0, 1, ROWS))
    assert set(survey.dataset("truth/sdss").data_vars) == set(schema.LEDGER)


def test_a_store_that_is_up_to_date_is_not_touched(old: str) -> None:
    migrate(old)
    before = Survey.open(old).snapshot
    assert migrate(old) == []
    assert Survey.open(old).snapshot == before


def test_a_past_version_of_an_older_schema_says_that_it_stays(old: str) -> None:
    migrate(old)
    past = Survey.open(old).history()[1].snapshot
    with pytest.raises(SchemaError, match=r"past versions stay as they are: open the newest one"):
        Survey.open(old, snapshot=past)


def test_a_store_of_a_newer_specmill_is_left_alone(path: str) -> None:
    before = stamped(path, SCHEMA_VERSION + 1)
    words = rf"schema version {SCHEMA_VERSION + 1}, this specmill \w+ {SCHEMA_VERSION}: a newer"
    with pytest.raises(SchemaError, match=words):
        Survey.open(path)
    with pytest.raises(SchemaError, match=words):
        migrate(path)
    assert icechunk.Repository.open(location(path)).lookup_branch("main") == before
    assert not Path(f"{path}.lease").exists()


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.icechunk: no survey store here"):
        migrate(str(tmp_path / "x.icechunk"))
