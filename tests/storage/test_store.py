"""The store: what is committed is there, in every version; what would lose rows is refused."""

import pickle
from pathlib import Path

import icechunk
import numpy as np
import pytest
import xarray as xr

from storage import schema
from storage.grid import Grid
from storage.schema import SchemaError
from storage.store import Survey
from storage.writer import WriteError, Writer, writing

GRID = Grid(kind="log", start=3.55, step=1e-4, size=20)
ROWS, CHUNK = 10, 4


@pytest.fixture
def path(tmp_path: Path) -> str:
    found = str(tmp_path / "survey.icechunk")
    Survey.create(found)
    with writing(found, "test") as writer:
        writer.create_group(
            "spectra/sdss", schema.template(ROWS, GRID), {"colour": "red"}, chunk_rows=CHUNK
        )
        writer.commit("room", {"group": "spectra/sdss"})
    return found


def pixels(first: int, last: int) -> np.ndarray:
    return np.arange(first, last, dtype="f4")[:, None] + np.zeros(GRID.size, "f4")


def test_blocks_of_two_workers_and_columns_come_back_in_one_version(path: str) -> None:
    with writing(path, "test") as writer:
        fork = writer.fork()
        forks = [pickle.loads(pickle.dumps(fork)) for _ in range(2)]
        forks[0].write_block("spectra/sdss", 0, {"flux": pixels(0, 8)})
        forks[1].write_block("spectra/sdss", 8, {"flux": pixels(8, 10)})
        writer.absorb(forks)
        writer.write_columns("spectra/sdss", 0, {"z": np.linspace(0, 1, ROWS)})
        snapshot = writer.commit("all", {"group": "spectra/sdss"})
    survey = Survey.open(path)
    ds = survey.dataset("spectra/sdss")
    np.testing.assert_array_equal(ds["flux"], pixels(0, ROWS))
    np.testing.assert_array_equal(ds["z"], np.linspace(0, 1, ROWS))
    assert survey.snapshot == snapshot
    assert survey.attrs("spectra/sdss")["colour"] == "red"


def test_forks_of_one_round_may_be_absorbed_over_several_commits(path: str) -> None:
    with writing(path, "test") as writer:
        fork = writer.fork()
        forks = [pickle.loads(pickle.dumps(fork)) for _ in range(2)]
        for number, (part, first) in enumerate(zip(forks, (0, 4), strict=True)):
            part.write_block("spectra/sdss", first, {"flux": pixels(first, first + 4)})
            writer.absorb([part])
            writer.commit(f"part {number}")
    flux = Survey.open(path).dataset("spectra/sdss")["flux"]
    np.testing.assert_array_equal(flux[:8], pixels(0, 8))


def test_two_forks_in_one_chunk_are_refused_before_a_commit(path: str) -> None:
    with writing(path, "test") as writer:
        fork = writer.fork()
        forks = [pickle.loads(pickle.dumps(fork)) for _ in range(2)]
        for part in forks:
            part.write_block("spectra/sdss", 0, {"flux": pixels(0, 4)})
        with pytest.raises(WriteError, match="spectra/sdss/flux: chunk 0 is written twice"):
            writer.absorb(forks)
    assert not Survey.open(path).dataset("spectra/sdss")["flux"].any()


def test_a_fork_of_an_earlier_round_is_refused(path: str) -> None:
    with writing(path, "test") as writer:
        old = pickle.loads(pickle.dumps(first := writer.fork()))
        first.write_block("spectra/sdss", 0, {"flux": pixels(0, 4)})
        writer.absorb([first])
        writer.commit("first round")
        writer.fork()
        with pytest.raises(WriteError, match="run its block again"):
            writer.absorb([old])


@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 6), (4, 9)])
def test_a_block_that_is_not_whole_chunks_is_refused(path: str, first: int, last: int) -> None:
    with writing(path, "test") as writer:
        fork = writer.fork()
        with pytest.raises(WriteError, match=f"rows {first}:{last} are not whole chunks of 4"):
            fork.write_block("spectra/sdss", first, {"flux": pixels(first, last)})


def test_resized_rows_are_pending_and_old_versions_keep_their_length(path: str) -> None:
    before = Survey.open(path).snapshot
    with writing(path, "test") as writer:
        writer.write_columns("spectra/sdss", 0, {"status": np.ones(ROWS, "u1")})
        writer.commit("done")
        writer.resize("spectra/sdss", ROWS + 5)
        writer.commit("more room")
    ds = Survey.open(path).dataset("spectra/sdss")
    assert ds["status"].to_numpy().tolist() == [1] * ROWS + [0] * 5
    assert ds.sizes["spectrum"] == ds["flux"].shape[0] == ROWS + 5
    assert Survey.open(path, snapshot=before).rows("spectra/sdss") == ROWS


def test_the_dataset_is_lazy_and_every_variable_has_units(path: str) -> None:
    ds = Survey.open(path).dataset("spectra/sdss", dask=True)
    assert ds["flux"].chunks is not None
    assert all("units" in variable.attrs for variable in ds.variables.values())
    assert isinstance(ds, xr.Dataset)


def test_a_number_that_was_never_written_is_none(path: str) -> None:
    table = {
        "value": schema.Field(dtype="f8", units="1", dims=("spectrum", "index"), description="")
    }
    with writing(path, "test") as writer:
        writer.create_group(
            "indices/sdss/raw", schema.template(ROWS, None, table, {"index": 2}), {}
        )
        writer.commit("room")
    assert np.isnan(Survey.open(path).dataset("indices/sdss/raw")["value"]).all()


def test_history_names_what_was_done(path: str) -> None:
    versions = Survey.open(path).history()
    assert [version.message for version in versions][:2] == ["room", "create"]
    assert versions[0].metadata == {"group": "spectra/sdss"}


def test_another_schema_version_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.store.SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with pytest.raises(SchemaError, match="written with schema version 2, this specmill reads 3"):
        Survey.open(path)


def test_a_missing_store_group_or_snapshot_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no survey store here"):
        Survey.open(str(tmp_path / "other.icechunk"))
    with (
        pytest.raises(FileNotFoundError, match=r"no survey store here"),
        writing(str(tmp_path / "other.icechunk"), "test"),
    ):
        pass
    assert not (tmp_path / "other.icechunk.lease").exists()
    with pytest.raises(KeyError, match="there: spectra/sdss"):
        Survey.open(path).dataset("spectra/desi")
    with pytest.raises(ValueError, match="no snapshot or tag 'ZZZZ'"):
        Survey.open(path, snapshot="ZZZZ")
    with pytest.raises(ValueError, match=r"ends in \.icechunk"):
        Survey.create(str(tmp_path / "survey.zarr"))


def test_a_store_whose_making_was_killed_is_made_whole(tmp_path: Path) -> None:
    found = str(tmp_path / "survey.icechunk")
    icechunk.Repository.create(icechunk.local_filesystem_storage(found))
    with pytest.raises(SchemaError, match="a store whose making was broken off"):
        Survey.open(found)
    assert Survey.create(found).groups() == []
    assert len(Survey.create(found).history()) == 2


def test_a_commit_by_another_writer_stops_ours(path: str) -> None:
    with writing(path, "test") as writer:
        rival = Writer(path, writer._repository, writer.lease)
        rival.set_attrs("spectra/sdss", {"colour": "blue"})
        rival.commit("theirs")
        writer.set_attrs("spectra/sdss", {"colour": "green"})
        with pytest.raises(WriteError, match="committed by another writer"):
            writer.commit("ours")
    assert Survey.open(path).attrs("spectra/sdss")["colour"] == "blue"


def test_a_flipped_byte_in_a_chunk_is_an_error_when_read(path: str) -> None:
    # Noise that does not compress: a small chunk would lie in the manifest, not in a file.
    wide = Grid(kind="log", start=3.55, step=1e-4, size=1000)
    flux = np.random.default_rng(3).normal(size=(CHUNK, wide.size)).astype("f4")
    with writing(path, "test") as writer:
        shape = schema.template(CHUNK, wide, {"flux": schema.PIXELS["flux"]})
        writer.create_group("spectra/wide", shape, {}, chunk_rows=CHUNK)
        writer.commit("room")
        fork = writer.fork()
        fork.write_block("spectra/wide", 0, {"flux": flux})
        writer.absorb([fork])
        writer.commit("data")
    np.testing.assert_array_equal(Survey.open(path).dataset("spectra/wide")["flux"], flux)
    files = [file for file in (Path(path) / "chunks").rglob("*") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    with pytest.raises(ValueError, match="checksum"):
        Survey.open(path).dataset("spectra/wide")["flux"].load()


def test_variables_come_in_the_order_of_their_names(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = xr.open_zarr

    def any_order(*given: object, **more: object) -> xr.Dataset:
        ds = opened(*given, **more)
        return ds[list(ds.data_vars)[::-1]]

    expected = sorted(map(str, Survey.open(path).dataset("spectra/sdss").data_vars))
    assert list(Survey.open(path).dataset("spectra/sdss").data_vars) == expected
    monkeypatch.setattr(xr, "open_zarr", any_order)
    assert list(Survey.open(path).dataset("spectra/sdss", dask=True).data_vars) == expected
