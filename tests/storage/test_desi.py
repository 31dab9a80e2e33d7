"""DESI spectra: arms joined, redshifts matched, columns as the survey has them."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage.border import NO_REDSHIFT
from storage.reader import Source
from storage.readers import desi
from storage.schema import ObjectType, Reason, Status
from tests.storage import desi_mock as mock


def joined_by_hand(hdus: fits.HDUList, row: int) -> tuple[np.ndarray, ...]:
    """Flux, ivar and mask of a row, pixel by pixel."""
    size = desi.GRID.size
    total, ivar, mask = np.zeros(size), np.zeros(size), np.zeros(size, "u4")
    for arm in "BRZ":
        wave = hdus[f"{arm}_WAVELENGTH"].data
        parts = [hdus[f"{arm}_{part}"].data[row] for part in ("FLUX", "IVAR", "MASK")]
        for lam, flux, weight, bits in zip(wave, *parts, strict=True):
            pixel = round((lam - 3600) / 0.8)
            mask[pixel] |= np.uint32(bits)
            if bits == 0 and weight > 0:
                total[pixel] += float(flux) * float(weight)
                ivar[pixel] += weight
    flux = np.divide(total, ivar, where=ivar > 0, out=np.zeros(size))
    return flux, ivar, np.where(ivar > 0, 0, mask)


@pytest.mark.parametrize(
    ("grouping", "config", "name", "row"),
    [
        ("tile", "desi", "coadd-4-80613-thru20210324.fits", 0),
        ("healpix", "desi", "coadd-sv3-dark-26065.fits", 2),
        ("tile", "desi-exposure", "spectra-5-169-thru20210419.fits", 4),
    ],
)
def test_a_real_spectrum_is_its_arms_joined_by_hand(
    survey_data: Path, grouping: str, config: str, name: str, row: int
) -> None:
    ds = mock.read(survey_data / "desi", config, grouping=grouping)
    actual = ds.isel(spectrum=(ds["source"] == name) & (ds["source_row"] == row)).squeeze()
    with fits.open(survey_data / "desi" / name) as hdus:
        flux, ivar, mask = joined_by_hand(hdus, row)
        fiber = hdus["FIBERMAP"].data[row]
    np.testing.assert_allclose(actual["flux"], flux, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(actual["ivar"], ivar, rtol=1e-6)
    np.testing.assert_array_equal(actual["mask"], mask)
    assert actual["ra"] == fiber["TARGET_RA"]
    assert actual["ebv"] == fiber["EBV"]
    assert actual["target_id"] == str(fiber["TARGETID"])


def test_all_real_files_are_read(survey_data: Path) -> None:
    statuses = {
        (grouping, config): mock.read(survey_data / "desi", config, grouping=grouping)["status"]
        for grouping in ("tile", "healpix")
        for config in ("desi", "desi-exposure")
    }
    assert {key: (found == Status.DONE).sum().item() for key, found in statuses.items()} == {
        ("tile", "desi"): 2,
        ("tile", "desi-exposure"): 1,
        ("healpix", "desi"): 3,
        ("healpix", "desi-exposure"): 1,
    }
    assert sum(found.size for found in statuses.values()) == 6 + 5 + 6 + 5


def test_a_real_redshift_is_that_of_redrock(survey_data: Path) -> None:
    ds = mock.read(survey_data / "desi", grouping="tile")
    with fits.open(survey_data / "desi" / "redrock-4-80613-thru20210324.fits") as hdus:
        fitted = hdus["REDSHIFTS"].data[0]
    actual = ds.isel(spectrum=0)
    assert (actual["z"], actual["zwarn"]) == (fitted["Z"], fitted["ZWARN"])
    assert (actual["class"], actual["subclass"]) == (fitted["SPECTYPE"], "")
    np.testing.assert_allclose(actual["z_err"], fitted["ZERR"], rtol=1e-6)


def test_arms_are_joined_by_their_ivar(tmp_path: Path) -> None:
    images = mock.arms(1)
    images["B_FLUX"][:], images["B_IVAR"][:] = 1, 1
    images["R_FLUX"][:], images["R_IVAR"][:] = 5, 3
    mock.save(tmp_path, images, mock.fibermap(1))
    row = mock.read(tmp_path).isel(spectrum=0)
    np.testing.assert_allclose(row["flux"][[89, 90, 99, 100]], [1, 4, 4, 5], rtol=1e-6)
    np.testing.assert_allclose(row["ivar"][[89, 90, 99, 100]], [1, 4, 4, 3], rtol=1e-6)
    assert not row["ivar"][300:].any()


def test_a_pixel_with_a_mask_bit_counts_for_nothing(tmp_path: Path) -> None:
    images = mock.arms(1)
    images["B_FLUX"][:] = 100
    images["B_MASK"][0, 95] = 1 << 31
    images["B_MASK"][0, 96], images["R_MASK"][0, 6] = 1, 4
    mock.save(tmp_path, images, mock.fibermap(1))
    row = mock.read(tmp_path).isel(spectrum=0)
    assert (row["flux"][95], row["ivar"][95], row["mask"][95]) == (1, 4, 0)
    assert (row["flux"][96], row["ivar"][96], row["mask"][96]) == (0, 0, 5)


def test_a_pixel_that_is_not_finite_counts_for_nothing(tmp_path: Path) -> None:
    images = mock.arms(2)
    images["B_FLUX"][0, [5, 95]] = np.nan
    images["B_IVAR"][1, 7] = -1
    mock.save(tmp_path, images, mock.fibermap(2))
    ds = mock.read(tmp_path)
    assert (ds["ivar"][0, 5], ds["flux"][0, 5]) == (0, 0)
    assert (ds["ivar"][0, 95], ds["flux"][0, 95]) == (4, 1)
    assert ds["reason_code"][1] == Reason.NEGATIVE_IVAR


def test_masks_in_compressed_tiles_are_the_same(tmp_path: Path) -> None:
    images = mock.arms(5)
    images["R_MASK"][:] = np.random.default_rng(1).integers(0, 2, images["R_MASK"].shape) << 31
    mock.save(tmp_path / "plain", images, mock.fibermap(5))
    mock.save(tmp_path / "packed", images, mock.fibermap(5), compressed=True)
    expected, actual = mock.read(tmp_path / "plain"), mock.read(tmp_path / "packed")
    assert expected["mask"].any()
    for name in ("flux", "ivar", "mask"):
        np.testing.assert_array_equal(actual[name], expected[name])


def test_a_file_without_masks_has_none(tmp_path: Path) -> None:
    images = {key: image for key, image in mock.arms(1).items() if not key.endswith("MASK")}
    mock.save(tmp_path, images, mock.fibermap(1))
    assert not mock.read(tmp_path)["mask"].any()


def test_redshifts_are_matched_by_target(tmp_path: Path) -> None:
    mock.save(tmp_path, mock.arms(4), mock.fibermap(4))
    order = [2, 0, 3]
    mock.redrock(tmp_path, {key: column[order] for key, column in mock.redshifts(4).items()})
    ds = mock.read(tmp_path)
    np.testing.assert_allclose(ds["z"], [0.1, np.nan, 0.3, 0.4])
    assert ds["zwarn"].to_numpy().tolist() == [0, NO_REDSHIFT, 0, 1]
    assert ds["class"].to_numpy().tolist() == ["GALAXY", "", "GALAXY", "GALAXY"]


def test_without_redrock_rows_enter_without_redshift(tmp_path: Path) -> None:
    mock.save(tmp_path, mock.arms(2), mock.fibermap(2))
    ds = mock.read(tmp_path)
    assert (ds["status"] == Status.DONE).all()
    assert (ds["zwarn"] == NO_REDSHIFT).all()
    assert ds["z"].isnull().all()


def test_rows_of_zeros_are_no_data(tmp_path: Path) -> None:
    images = mock.arms(3)
    for key, image in images.items():
        if not key.endswith("WAVELENGTH"):
            image[1] = 0
    mock.save(tmp_path, images, mock.fibermap(3))
    ds = mock.read(tmp_path)
    assert ds["reason_code"].to_numpy().tolist() == [0, Reason.NO_DATA, 0]
    assert str(ds["reason"][1].item()).startswith(f"{mock.NAME} row 1: ")


def test_fibres_say_what_they_were_put_on(tmp_path: Path) -> None:
    fibers = mock.fibermap(6)
    fibers["OBJTYPE"] = np.array(["TGT", "SKY", "BAD", "TGT", "TGT", ""])
    fibers["DESI_TARGET"][3] = 1 << 33
    fibers["SV3_DESI_TARGET"] = np.array([0, 0, 0, 0, 1 << 35, 0])
    fibers["COADD_FIBERSTATUS"][5] = 1033
    fibers["TARGETID"][5] = -1695072
    fibers["EBV"][5] = 0
    mock.save(tmp_path, mock.arms(6), fibers)
    ds = mock.read(tmp_path)
    expected = [ObjectType.SCIENCE, ObjectType.SKY, 0, *[ObjectType.STANDARD] * 2, 0]
    assert ds["object_type"].to_numpy().tolist() == expected
    assert ds["reason_code"].to_numpy().tolist() == [0, 0, Reason.NO_DATA, 0, 0, 0]
    assert ds["fiberstatus"].to_numpy().tolist() == [0, 0, 0, 0, 0, 1033]
    assert ds["target_id"][5] == "-1695072"
    assert ds["ebv_known"].to_numpy().tolist() == [1, 1, 0, 1, 1, 0]


def test_the_time_of_a_coadd_is_the_mean_of_its_exposures(tmp_path: Path) -> None:
    fibers = {key: column for key, column in mock.fibermap(2).items() if "MJD" not in key}
    exposures = {"TARGETID": np.array([1001, 1000, 1001]), "MJD": np.array([59001.0, 59010, 59003])}
    mock.save(tmp_path, mock.arms(2), fibers, more=(mock.table("EXP_FIBERMAP", exposures),))
    assert mock.read(tmp_path)["mjd"].to_numpy().tolist() == [59010, 59002]


def test_exposures_of_a_target_share_its_id(tmp_path: Path) -> None:
    fibers = mock.fibermap(3)
    fibers["TARGETID"][:] = [1000, 1000, 1001]
    fibers["EXPID"][:] = [85502, 85503, 85503]
    name = "spectra-main-dark-9.fits"
    mock.save(tmp_path, mock.arms(3), fibers, name)
    mock.redrock(tmp_path, mock.redshifts(2), name)
    ds = mock.read(tmp_path, "desi-exposure")
    assert ds["target_id"].to_numpy().tolist() == ["1000", "1000", "1001"]
    np.testing.assert_allclose(ds["z"], [0.1, 0.1, 0.2])
    assert ds["observation"].to_numpy().tolist() == [
        "00085502-0000-1000",
        "00085503-0001-1000",
        "00085503-0002-1001",
    ]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Files of 150 rows: more than two blocks."""
    images = mock.arms(150)
    noise = np.random.default_rng(2)
    for key, image in images.items():
        if key.endswith(("FLUX", "IVAR")):
            image[:] = noise.uniform(0.5, 2, image.shape)
    mock.save(tmp_path, images, mock.fibermap(150), compressed=True)
    mock.redrock(tmp_path, mock.redshifts(150))
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"resolution": "diagonals"}])
def test_a_slice_is_that_part_of_the_whole(many: Path, options: dict[str, str]) -> None:
    reader = desi.build(**options)
    (source,) = reader.find(str(many), "desi")
    whole = reader.read(source, str(many), "desi")
    part = reader.read(source.part(60, 131), str(many), "desi")
    assert part["source_row"].to_numpy().tolist() == [*range(60, 131)]
    for name in ("fiberstatus", "flux", "ivar", "lsf", "z", "target_id", "digest", *reader.sizes):
        name = "resolution" if name == "diagonal" else name
        np.testing.assert_array_equal(part[name], whole[name][60:131], err_msg=name)


def test_a_source_of_several_files_has_the_first_row_of_each(tmp_path: Path) -> None:
    names = ["coadd-main-dark-7.fits", "coadd-main-dark-8.fits", mock.NAME]
    paths = [mock.survey(tmp_path, n, name) for n, name in zip((1, 3, 2), names, strict=True)]
    paths[1].write_bytes(b"garbage")
    several = Source(files=tuple(map(str, paths)), rows=3)
    ds = desi.build().read(several, str(tmp_path), "desi")
    assert ds["source"].to_numpy().tolist() == names
    assert ds["source_row"].to_numpy().tolist() == [0, 0, 0]
    assert ds["reason_code"].to_numpy().tolist() == [0, Reason.UNREADABLE, 0]
    np.testing.assert_allclose(ds["z"], [0.1, np.nan, 0.1])
    assert ds["flux"][:, 0].to_numpy().tolist() == [1, 0, 1]
