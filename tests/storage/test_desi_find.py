"""Which DESI files are found, and in which parts they are read."""

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from pydantic import ValidationError

from storage.readers import desi
from storage.schema import Status
from tests.storage import desi_mock as mock

TILE, NIGHT = "coadd-5-169-thru20210419.fits", "coadd-5-169-20210419.fits"


def found(root: Path, config: str = "desi", **options: str) -> list[str]:
    sources = desi.build(**options).find(str(root), config)
    return [Path(source.files[0]).name for source in sources]


def test_coadds_and_spectra_are_two_configurations(tmp_path: Path) -> None:
    for name in (mock.NAME, "spectra-main-dark-9.fits", "zcatalog-main-dark-9.fits"):
        mock.survey(tmp_path, 1, name)
    assert found(tmp_path) == [mock.NAME]
    assert found(tmp_path, "desi-exposure") == ["spectra-main-dark-9.fits"]


def test_a_configuration_that_it_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config 'sdss' is not of reader desi; expected one of"):
        found(tmp_path, "sdss")


def test_files_are_found_in_the_order_of_their_paths(tmp_path: Path) -> None:
    mock.survey(tmp_path / "1", 1, TILE)
    mock.survey(tmp_path / "0", 1, TILE.replace("169", "200"))
    assert found(tmp_path) == [TILE.replace("169", "200"), TILE]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (TILE, r"healpix pixel and of a tile through its nights .* hold the same exposures; set"),
        (NIGHT, r"healpix pixel and of a tile in one night"),
    ],
)
def test_tiles_beside_healpix_pixels_are_refused(tmp_path: Path, other: str, words: str) -> None:
    mock.survey(tmp_path, 1, other)
    mock.survey(tmp_path, 1)
    with pytest.raises(ValueError, match=words) as error:
        found(tmp_path)
    assert other in str(error.value)
    assert mock.NAME in str(error.value)
    assert found(tmp_path, grouping="tile") == [other]
    assert found(tmp_path, grouping="healpix") == [mock.NAME]


def test_coadds_of_one_night_beside_those_of_all_nights_are_refused(tmp_path: Path) -> None:
    mock.survey(tmp_path, 1, TILE)
    mock.survey(tmp_path, 1, NIGHT)
    with pytest.raises(ValueError, match=r"a tile in one night and of a tile through its nights"):
        found(tmp_path, grouping="tile")


def test_a_grouping_that_is_not_there_is_named(tmp_path: Path) -> None:
    mock.survey(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match=r"no file of tiles here or below; set survey"):
        found(tmp_path, grouping="tile")


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError, match="grouping"):
        desi.build(grouping="plate")
    with pytest.raises(ValidationError, match="petal"):
        desi.build(petal=3)


def test_the_reader_can_be_sent_to_a_worker() -> None:
    reader = desi.build(resolution="diagonals")
    assert pickle.loads(pickle.dumps(reader)) == reader


@pytest.mark.parametrize(
    ("options", "each"), [({}, 140_058), ({"resolution": "diagonals"}, 482_422)]
)
def test_a_large_file_is_read_in_parts_of_256_mib(
    tmp_path: Path, options: dict[str, str], each: int
) -> None:
    n = 5000
    fits.HDUList([fits.PrimaryHDU(), mock.table("FIBERMAP", mock.fibermap(n))]).writeto(
        tmp_path / mock.NAME
    )
    sources = [*desi.build(**options).find(str(tmp_path), "desi")]
    assert sum(source.rows for source in sources) == n
    assert all(source.rows * each <= 256 << 20 for source in sources)
    assert len(sources) == -(-n // ((256 << 20) // each))
    starts = np.cumsum([0, *(source.rows for source in sources)])[:-1]
    assert [source.start for source in sources] == starts.tolist()


def test_the_rows_stated_fit_the_variables(tmp_path: Path) -> None:
    mock.survey(tmp_path, 1)
    ds = mock.read(tmp_path, resolution="diagonals")
    pixels = sum(ds[name].nbytes for name in ("flux", "ivar", "mask", "model", "lsf", "resolution"))
    assert pixels == 482_422


def test_what_is_in_gzip_is_read_the_same(tmp_path: Path) -> None:
    path = mock.survey(tmp_path / "plain", 3)
    (tmp_path / "packed").mkdir()
    for file in (path, path.with_name("redrock-main-dark-9.fits")):
        packed = tmp_path / "packed" / f"{file.name}.gz"
        packed.write_bytes(gzip.compress(file.read_bytes()))
    expected, actual = mock.read(tmp_path / "plain"), mock.read(tmp_path / "packed")
    assert (actual["status"] == Status.DONE).all()
    for name in ("flux", "ivar", "lsf", "z", "observation"):
        np.testing.assert_array_equal(actual[name], expected[name])


def test_a_file_without_rows_is_no_source(tmp_path: Path) -> None:
    mock.survey(tmp_path, 1)
    empty = {key: column[:0] for key, column in mock.fibermap(1).items()}
    mock.save(tmp_path, {}, empty, "coadd-main-dark-10.fits")
    assert found(tmp_path) == [mock.NAME]
