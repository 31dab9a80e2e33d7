"""Files of SDSS-V, written to their published data model: no real one is at hand."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage.readers import sdss
from storage.schema import ObjectType, Reason, Status
from storage.sdss.names import FILE
from tests.storage.sdss_mock import FIFTH, fifth, mock, one


def test_a_file_of_sdss_v_is_read(tmp_path: Path) -> None:
    row, expected = one(fifth(tmp_path)), mock().isel(spectrum=0)
    assert row["status"] == Status.DONE, row["reason"].item()
    np.testing.assert_array_equal(row["flux"], expected["flux"])
    assert row["observation"] == "015143-59205-4544940698"
    assert (row["ra"], row["dec"], row["z"], row["mjd"]) == (213.5, 52.25, 1.5, 59205)
    assert (row["class"], row["subclass"], row["survey"]) == ("QSO", "BROADLINE", "bhm")
    assert row["target_id"] == "54398204"
    assert row["ebv"].item() == pytest.approx(0.02)
    assert row["ebv_known"] == 1
    assert row["object_type"] == ObjectType.SCIENCE


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *((kind, ObjectType.SKY) for kind in ("SKY", "sky_boss", "ops_sky_boss")),
        *((kind, ObjectType.STANDARD) for kind in ("SPECTROPHOTO_STD", "standard_boss")),
        *((kind, ObjectType.SCIENCE) for kind in ("science", "QSO", "SKYLINE")),
    ],
)
def test_sky_and_standards_of_robots_are_known(
    tmp_path: Path, kind: str, expected: ObjectType
) -> None:
    assert one(fifth(tmp_path, OBJTYPE=kind))["object_type"] == expected


@pytest.mark.parametrize("none", [np.nan, -999.0, None])
def test_a_drilled_hole_stands_in_for_a_catalogue_position(
    tmp_path: Path, none: float | None
) -> None:
    path = fifth(tmp_path, RACAT=none, DECCAT=none, PLUG_RA=11.0, PLUG_DEC=-12.0)
    assert (one(path)["ra"], one(path)["dec"]) == (11, -12)


@pytest.mark.parametrize(("unified", "expected"), [(-999, "4544940698"), (7, "7")])
def test_the_unified_id_goes_before_the_catalogue_s(
    tmp_path: Path, unified: int, expected: str
) -> None:
    assert one(fifth(tmp_path, SDSS_ID=unified))["target_id"] == expected


def test_a_fibre_without_a_target_is_named_as_its_file(tmp_path: Path) -> None:
    row = one(fifth(tmp_path, CATALOGID=-999))
    assert (row["status"], row["observation"]) == (Status.DONE, "015143-59205-4544940698")


def test_the_field_of_a_boss_image_is_no_field_of_a_spectrum(survey_data: Path) -> None:
    path = survey_data / "sdss/spec-7102-56666-0082.fits"
    assert "FIELD" in fits.getdata(path, 2).columns.names
    assert one(path)["observation"] == "7102-56666-0082"


def test_leading_zeros_and_gzip_make_no_other_observation(tmp_path: Path) -> None:
    path = fifth(tmp_path)
    bare = path.with_name("spec-015143-59205-4544940698.fits.gz")
    bare.write_bytes(gzip.compress(path.read_bytes()))
    assert one(bare)["observation"] == one(path)["observation"]
    for file in (path, bare):
        file.write_bytes(b"")
        assert one(file)["observation"] == "015143-59205-4544940698"


@pytest.mark.parametrize(
    "name",
    [
        *("spec-0266-51602-0013.fits", "spec-15000-59146-0500.fits.gz", FIFTH),
        *("spec-015000-59146-4375786564.fits", "spec-3606-55182-27021598109009995.fits"),
    ],
)
def test_names_of_all_releases_are_known(name: str) -> None:
    assert FILE.fullmatch(name)


@pytest.mark.parametrize(
    "name",
    [f".{FIFTH}.4711", f"{FIFTH}.tmp", "spec-266-51602-0013.fits", "spAll-015143-59205.fits"],
)
def test_drafts_and_tables_are_no_spectra(name: str) -> None:
    assert not FILE.fullmatch(name)


@pytest.mark.parametrize("place", [-3000, 9000])
def test_a_wrong_checksum_of_sdss_v_is_found(tmp_path: Path, place: int) -> None:
    path = fifth(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    row = one(path)
    assert row["reason_code"] == Reason.UNREADABLE
    assert "verification failed" in row["reason"].item()


def test_spectra_of_sdss_v_are_not_written_as_plates(tmp_path: Path) -> None:
    ds = mock()
    ds["observation"][:] = "015143-59205-4544940698"
    with pytest.raises(ValueError, match=r"is not plate-mjd-fiber"):
        sdss.build().write(ds, str(tmp_path), "sdss")
