"""SDSS spec files: real ones against astropy, mocks there and back."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage import fits as ours
from storage.readers import sdss
from storage.schema import ObjectType, Reason, Status
from tests.storage.sdss_mock import EDGES, PIXELS, edit, load, mock, one, refused

SDSS = sdss.build()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return Path(SDSS.write(mock(), str(tmp_path), "sdss")[0])


def test_every_real_spectrum_is_read(survey_data: Path) -> None:
    for folder, number in (("sdss", 152), ("sdss_sky", 50), ("sdss_exposures", 7)):
        ds = load(survey_data / folder)
        assert ds.sizes["spectrum"] == number
        assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()


def test_sky_fibres_are_sky(survey_data: Path) -> None:
    assert (load(survey_data / "sdss_sky")["object_type"] == ObjectType.SKY).all()


def test_boss_targets_are_science_of_their_class(survey_data: Path) -> None:
    ds = load(survey_data / "sdss")
    classes, numbers = np.unique(ds["class"].to_numpy(), return_counts=True)
    assert (ds["object_type"] == ObjectType.SCIENCE).all()
    assert dict(zip(classes, numbers, strict=True)) == {"GALAXY": 23, "QSO": 92, "STAR": 37}


@pytest.mark.parametrize(
    "name",
    [
        "sdss/spec-0266-51602-0013.fits",
        "sdss/spec-7102-56666-0082.fits",
        "sdss_sky/spec-1942-53415-0005.fits",
        "sdss_exposures/spec-7338-57859-0739.fits",
    ],
)
def test_a_real_file_agrees_with_astropy(survey_data: Path, name: str) -> None:
    row = one(survey_data / name)
    with fits.open(survey_data / name, memmap=False) as hdus:
        coadd, table = hdus[1].data, hdus[2].data[0]
    where = np.rint((np.log10(row["wavelength"].to_numpy()) - 3.55) / 1e-4).astype(int)
    begin = round((float(coadd["loglam"][0]) - 3.55) / 1e-4)
    inside = (where >= begin) & (where < begin + len(coadd))
    bad = (coadd["and_mask"] & (1 << 18 | 1 << 23 | 1 << 24)) != 0
    np.testing.assert_array_equal(row["ivar"][inside], np.where(bad, 0, coadd["ivar"]))
    good = row["ivar"].to_numpy()[inside] > 0
    np.testing.assert_array_equal(row["flux"].to_numpy()[inside][good], coadd["flux"][good])
    np.testing.assert_array_equal(row["model"][inside], coadd["model"])
    np.testing.assert_array_equal(row["mask"].to_numpy()[inside].astype("i4"), coadd["and_mask"])
    np.testing.assert_allclose(row["lsf"][inside], coadd["wdisp"], rtol=1e-3)
    assert not row["ivar"].to_numpy()[~inside].any()
    for ours_, theirs in (("ra", "PLUG_RA"), ("dec", "PLUG_DEC"), ("z", "Z"), ("z_err", "Z_ERR")):
        assert row[ours_] == table[theirs]
    for ours_, theirs in (("zwarn", "ZWARNING"), ("class", "CLASS")):
        assert row[ours_].item() == table[theirs]
    # The pipeline's 0 means that no dispersion was measured.
    measured = table["VDISP"] if table["VDISP"] > 0 else np.nan
    np.testing.assert_equal(row["vdisp"].item(), measured)
    assert row["observation"] == name[-20:-5]
    assert row["mjd"] == table["MJD"]


def test_signal_to_noise_of_a_real_file_is_that_of_its_pixels(survey_data: Path) -> None:
    name = "sdss/spec-0266-51602-0013.fits"
    row, coadd = one(survey_data / name), fits.getdata(survey_data / name, 1)
    lam = 10.0 ** coadd["loglam"].astype(float)
    good = (coadd["ivar"] > 0) & ((coadd["and_mask"] & (1 << 18 | 1 << 23 | 1 << 24)) == 0)
    snr = coadd["flux"] * np.sqrt(coadd["ivar"])
    assert row["snr"].item() == pytest.approx(np.median(snr[good]), rel=1e-5)
    for column, low, high in (("snr_g", 4000, 5400), ("snr_r", 5600, 6900)):
        inside = good & (lam >= low) & (lam <= high)
        assert row[column].item() == pytest.approx(snr[inside].mean(dtype=float), rel=1e-4)


def test_extinction_is_read_where_the_survey_gives_it(survey_data: Path) -> None:
    boss = survey_data / "sdss/spec-7102-56666-0082.fits"
    legacy = one(survey_data / "sdss/spec-0266-51602-0013.fits")
    expected = float(fits.getdata(boss, 2)["EXTINCTION"][0][2]) / 2.751
    assert one(boss)["ebv"].item() == pytest.approx(expected, rel=1e-6)
    assert one(boss)["ebv_known"] == 1
    assert (legacy["ebv"], legacy["ebv_known"]) == (0, 0)


def test_photometric_ids_of_both_kinds_are_read(survey_data: Path) -> None:
    assert one(survey_data / "sdss/spec-0266-51602-0013.fits")["target_id"] == "1237650795146576091"
    assert one(survey_data / "sdss/spec-7102-56666-0082.fits")["target_id"] == "1237661353776840965"
    assert one(survey_data / "sdss_sky/spec-1942-53415-0005.fits")["target_id"] == ""


def test_the_lean_path_and_astropy_read_the_same(survey_data: Path) -> None:
    content = (survey_data / "sdss/spec-7102-56666-0082.fits").read_bytes()
    # A scaled column is what sends a file to astropy.
    comment = b"COMMENT Coadded spectrum".ljust(80)
    assert comment in content
    scaled = content.replace(comment, b"TZERO1  =                  0.0".ljust(80), 1)
    columns = frozenset({"FLUX", "AND_MASK", "CLASS", "EXTINCTION", "Z"})
    lean, slow = (ours.parse(c, columns) for c in (content, scaled))
    for ours_, theirs in zip(lean.extensions[:2], slow.extensions[:2], strict=True):
        assert ours_ is not None
        assert theirs is not None
        assert ours_.name == theirs.name
        for name in ours_.rows.dtype.names or ():
            left = ours_.rows[name]
            right = theirs.rows[name]
            if left.dtype.kind == "S":
                left, right = np.char.rstrip(left), np.char.rstrip(right)
            np.testing.assert_array_equal(left, right)


def test_a_mock_comes_back_as_it_was(tmp_path: Path) -> None:
    expected = mock(7)
    SDSS.write(expected, str(tmp_path), "sdss")
    actual = load(tmp_path)
    for name in (*PIXELS, "ra", "dec", "z", "z_err", "zwarn", "vdisp", "class", "subclass"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    for name in ("observation", "target_id", "survey", "mjd", "object_type", "status"):
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    # EXTINCTION is float32, and so is what comes of it.
    np.testing.assert_allclose(actual["ebv"], expected["ebv"], rtol=2e-7)


def test_sky_and_standards_keep_their_kind(tmp_path: Path) -> None:
    expected = mock(3)
    expected["object_type"][:] = [*ObjectType]
    SDSS.write(expected, str(tmp_path), "sdss")
    np.testing.assert_array_equal(load(tmp_path)["object_type"], [*ObjectType])


def test_a_written_file_is_good_fits(spec: Path) -> None:
    with fits.open(spec) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "COADD", "SPECOBJ", "SPZLINE"]
        header, lines = hdus[0].header, hdus[3].data
        assert header["VACUUM"] is True
        assert header["COEFF0"] == pytest.approx(3.55 + 1e-4 * EDGES.start)
        assert hdus[1].columns.formats == ["E", "E", "E", "J", "J", "E", "E", "E"]
        assert hdus[1].header["NAXIS2"] == EDGES.stop - EDGES.start
        assert lines["LINEWAVE"][lines["LINENAME"] == "H_alpha"] == pytest.approx(6564.61, abs=0.01)
        assert (lines["LINEAREA_ERR"] == -1).all()
        assert (lines["LINENPIXLEFT"] == 0).all()


def test_a_written_file_has_the_columns_of_a_real_one(spec: Path, survey_data: Path) -> None:
    with (
        fits.open(spec, memmap=False) as written,
        fits.open(survey_data / "sdss/spec-0266-51602-0013.fits", memmap=False) as real,
    ):
        for number in (1, 3):
            assert written[number].columns.names == real[number].columns.names
            assert written[number].columns.formats == real[number].columns.formats
        extra = {"OBJTYPE", "EXTINCTION"}
        assert set(written[2].columns.names) - set(real[2].columns.names) == extra
        assert set(written[0].header) <= set(real[0].header)
        assert list(written[3].data["LINENAME"]) == list(real[3].data["LINENAME"])
        np.testing.assert_allclose(written[3].data["LINEWAVE"], real[3].data["LINEWAVE"], rtol=1e-9)


def test_writing_twice_gives_the_same_bytes_and_no_remains(tmp_path: Path) -> None:
    first = {path: Path(path).read_bytes() for path in SDSS.write(mock(3), str(tmp_path), "sdss")}
    second = {path: Path(path).read_bytes() for path in SDSS.write(mock(3), str(tmp_path), "sdss")}
    assert first == second
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 3


def test_one_observation_is_not_written_twice(tmp_path: Path) -> None:
    ds = mock(2)
    ds["observation"][:] = "0266-51602-0001"
    with pytest.raises(ValueError, match="'0266-51602-0001' is there twice"):
        SDSS.write(ds, str(tmp_path), "sdss")
    assert not list(tmp_path.iterdir())


def test_an_observation_must_be_plate_mjd_fiber(tmp_path: Path) -> None:
    ds = mock()
    ds["observation"][:] = "galaxy 7"
    with pytest.raises(ValueError, match="'galaxy 7' is not plate-mjd-fiber"):
        SDSS.write(ds, str(tmp_path), "sdss")


def test_a_row_without_data_is_not_written(tmp_path: Path) -> None:
    ds = mock()
    for name in ("flux", "ivar", "mask"):
        ds[name][:] = 0
    with pytest.raises(ValueError, match="0266-51602-0001: no pixel has data"):
        SDSS.write(ds, str(tmp_path), "sdss")


def test_text_longer_than_its_column_is_refused(tmp_path: Path) -> None:
    ds = mock()
    ds["class"][:] = "GALAXIES"
    with pytest.raises(ValueError, match="CLASS 'GALAXIES' does not fit"):
        SDSS.write(ds, str(tmp_path), "sdss")


@pytest.mark.parametrize("column", ["PLATE", "FIBERID"])
def test_parts_of_a_name_that_are_no_whole_numbers_are_quarantined(spec: Path, column: str) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        number = hdus[2].columns.names.index(column) + 1
        assert hdus[2].header[f"TFORM{number}"] == "J"
        hdus[2].header[f"TFORM{number}"] = "E"

    refused(edit(spec, spoil), Reason.UNREADABLE, f"{column} is float32, expected a whole number")
