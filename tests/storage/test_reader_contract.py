"""What holds for every reader on the shelf, ours or a stranger's."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from storage import schema
from storage.grid import Grid
from storage.names import resolve, shelf
from storage.reader import Reader, Source
from storage.schema import ObjectType, Reason, Status

N = 5


@pytest.fixture(params=shelf("storage.readers"))
def reader(request: pytest.FixtureRequest) -> Reader:
    made: Reader = resolve("storage.readers", request.param).build()
    return made


def survey(grid: Grid) -> xr.Dataset:
    """Five spectra of a sloping continuum, the fourth a sky fibre; pixels 100-200 have no data."""
    ds = schema.blank(N, grid)
    row = np.arange(N)
    ivar = np.full((N, grid.size), 4.0, dtype="f4")
    ivar[:, 100:200] = 0
    ds["ivar"][:] = ivar
    slope = (1 + row[:, None]) * grid.wavelength / 5000
    ds["flux"][:] = np.where(ivar > 0, slope, 0)
    ds["model"][:] = slope
    ds["lsf"][:] = 1.25
    ds["mask"][:] = np.where(ivar > 0, 0, 1 << 24)
    ds["z"][:], ds["z_err"][:] = 0.02 * (row + 1), 1e-5
    ds["ra"][:], ds["dec"][:] = 150 + 0.1 * row, 2 - 0.1 * row
    ds["ebv"][:], ds["ebv_known"][:] = 0.03, 1
    ds["mjd"][:], ds["vdisp"][:] = 51602, 150
    ds["class"][:], ds["survey"][:] = "GALAXY", "mock"
    ds["object_type"][:] = np.where(row == 3, ObjectType.SKY, ObjectType.SCIENCE)
    ds["target_id"][:] = [str(10**17 + number) for number in row]
    ds["observation"][:] = [f"0266-51602-{number + 1:04d}" for number in row]
    ds["status"][:] = Status.DONE
    return schema.check(ds)


def whole(reader: Reader, root: Path, config: str) -> xr.Dataset:
    parts = [reader.read(source, str(root), config) for source in reader.find(str(root), config)]
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")


def test_a_reader_says_what_it_reads(reader: Reader) -> None:
    assert reader.identity in ("target_id", "position")
    assert reader.configs
    assert all(isinstance(grid, Grid) for grid in reader.configs.values())


def test_a_missing_folder_is_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(reader.find(str(tmp_path / "nowhere"), next(iter(reader.configs))))


def test_a_folder_without_its_files_is_named(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no spectrum")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        list(reader.find(str(tmp_path), next(iter(reader.configs))))


def test_what_is_written_is_read_again(reader: Reader, tmp_path: Path) -> None:
    config, grid = next(iter(reader.configs.items()))
    expected = survey(grid)
    paths = reader.write(expected, str(tmp_path), config)
    actual = schema.check(whole(reader, tmp_path, config)).sortby("ra")
    assert paths
    assert all(Path(path).is_file() for path in paths)
    assert (actual["status"] == Status.DONE).all(), actual["reason"].to_numpy()
    for name in ("flux", "ivar", "z", "ra", "dec", "ebv", "mjd"):
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, err_msg=name)
    for name in ("object_type", "class"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def test_sources_are_sorted_and_state_their_rows(reader: Reader, tmp_path: Path) -> None:
    config, grid = next(iter(reader.configs.items()))
    reader.write(survey(grid), str(tmp_path), config)
    sources = list(reader.find(str(tmp_path), next(iter(reader.configs))))
    files = [file for source in sources for file in source.files]
    assert files == sorted(files)
    assert sum(source.rows for source in sources) == N
    for source in sources:
        assert reader.read(source, str(tmp_path), config).sizes["spectrum"] == source.rows


def test_a_row_knows_where_it_comes_from(reader: Reader, tmp_path: Path) -> None:
    config, grid = next(iter(reader.configs.items()))
    reader.write(survey(grid), str(tmp_path), config)
    ds = whole(reader, tmp_path, config)
    assert all((tmp_path / source).is_file() for source in ds["source"].to_numpy())
    assert all(len(bytes.fromhex(digest)) == 16 for digest in ds["digest"].to_numpy())


@pytest.mark.parametrize("damage", [b"", b"garbage", b"SIMPLE  =" + b"\xff" * 5000])
def test_a_damaged_file_keeps_its_rows(reader: Reader, tmp_path: Path, damage: bytes) -> None:
    config, grid = next(iter(reader.configs.items()))
    reader.write(survey(grid), str(tmp_path), config)
    for source in reader.find(str(tmp_path), config):
        for file in source.files:
            Path(file).write_bytes(damage)
        ds = schema.check(reader.read(source, str(tmp_path), config))
        assert ds.sizes["spectrum"] == source.rows
        assert (ds["status"] == Status.QUARANTINED).all()
        assert (ds["reason_code"] == Reason.UNREADABLE).all()
        assert all(Path(source.files[0]).suffix in str(reason) for reason in ds["reason"].values)
        assert not ds["flux"].any()
        assert np.isnan(ds["z"]).all()


def test_a_file_that_is_gone_keeps_its_rows(reader: Reader, tmp_path: Path) -> None:
    config, grid = next(iter(reader.configs.items()))
    reader.write(survey(grid), str(tmp_path), config)
    for source in list(reader.find(str(tmp_path), next(iter(reader.configs)))):
        for file in source.files:
            Path(file).unlink()
        ds = reader.read(source, str(tmp_path), config)
        assert (ds["status"] == Status.QUARANTINED).all()


def test_one_row_of_a_file_of_many_stays_that_row() -> None:
    last = Source(files=("big.fits",), rows=1000).part(999, 1000)
    assert (last.part(0, 1).start, last.part(0, 1).rows) == (999, 1)


def test_rows_of_many_files_are_files() -> None:
    three = Source(files=("a", "b", "c"), rows=3)
    assert three.part(1, 3).files == ("b", "c")
    with pytest.raises(ValueError, match="a: rows 2:4 of 3"):
        three.part(2, 4)
