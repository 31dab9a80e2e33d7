"""SDSS spec files are found in the order of their paths, lazily, through links."""

from pathlib import Path

import pytest

from storage.readers import sdss
from storage.schema import Reason
from tests.storage.sdss_mock import mock

SDSS = sdss.build()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return Path(SDSS.write(mock(), str(tmp_path), "sdss")[0])


def test_files_are_found_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = [
        "spec-0266-51602-0013.fits",
        "0300/spec-0300-51602-0001.fits",
        "lite/0299/spec-0299-51602-0001.fits.gz",
        "a/spec-15000-59146-4544940698.fits",
        "spec-0266-51602-0002.fits",
    ]
    for name in (*names, "a/spec-1-2-3.fits", "a/spec-0266-51602-0013.fits.tmp", "a.fits"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (source,) = SDSS.find(str(tmp_path), "sdss")
    assert [str(Path(file).relative_to(tmp_path)) for file in source.files] == sorted(names)
    assert source.rows == 5


def test_sources_hold_at_most_512_files_and_are_found_lazily(tmp_path: Path) -> None:
    for fiber in range(1, 601):
        (tmp_path / f"spec-0266-51602-{fiber:04d}.fits").touch()
    sources = SDSS.find(str(tmp_path), "sdss")
    assert next(sources).rows == 512
    assert [source.rows for source in sources] == [88]


def test_a_folder_linked_into_itself_is_entered_once(tmp_path: Path) -> None:
    (tmp_path / "spec-0266-51602-0013.fits").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "spec-0266-51602-0014.fits").symlink_to(tmp_path / "gone")
    (source,) = SDSS.find(str(tmp_path), "sdss")
    assert [Path(file).name[16:20] for file in source.files] == ["0013", "0014"]
    row = SDSS.read(source, str(tmp_path), "sdss").isel(spectrum=1)
    assert row["reason_code"] == Reason.UNREADABLE
    assert "No such file" in row["reason"].item()
    assert row["observation"] == "0266-51602-0014"
