"""WEAVE L1 files: flux, errors, fibres and units, from files made with astropy."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from storage.readers import weave
from storage.schema import ObjectType, Reason, Status
from tests.storage.weave_mock import (
    FIBRES,
    PIXELS,
    SENSITIVITY,
    cname,
    counts,
    fibtable,
    inside,
    l1,
    load,
)

STACK = "stack_1002046.fit"


def done(ds: xr.Dataset) -> None:
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()


def test_flux_is_counts_times_sensitivity_and_ivar_goes_with_its_square(tmp_path: Path) -> None:
    l1(tmp_path / STACK)
    ds = load(tmp_path)
    done(ds)
    np.testing.assert_allclose(inside(ds), counts() * 3, rtol=1e-6)
    # 0.25 per count squared is an error of 2 counts: 6e-17, 1/36 in house units.
    np.testing.assert_allclose(inside(ds, "ivar"), 1 / 36, rtol=1e-6)


def test_signal_to_noise_is_that_of_the_counts(tmp_path: Path) -> None:
    bright = np.linspace(1e-17, 9e-17, PIXELS, dtype="f4")
    l1(tmp_path / STACK, SENSFUNC=bright)
    ds = load(tmp_path)
    done(ds)
    snr = inside(ds) * np.sqrt(inside(ds, "ivar"))
    np.testing.assert_allclose(snr, counts() * 0.5, rtol=1e-5)
    np.testing.assert_allclose(inside(ds), counts() * bright * 1e17, rtol=1e-6)


def test_pixels_beyond_the_file_have_no_data(tmp_path: Path) -> None:
    l1(tmp_path / STACK)
    ds = load(tmp_path)
    assert int((ds["ivar"] > 0).sum()) == FIBRES * PIXELS


@pytest.mark.parametrize("bad", [0.0, -3e-17, np.nan, np.inf])
def test_where_the_sensitivity_is_none_there_is_no_data(tmp_path: Path, bad: float) -> None:
    bright = np.full((FIBRES, PIXELS), SENSITIVITY, "f4")
    bright[2, 10:20] = bad
    l1(tmp_path / STACK, SENSFUNC=bright)
    ds = load(tmp_path)
    done(ds)
    assert not inside(ds, "ivar")[2, 10:20].any()
    assert (inside(ds, "ivar") > 0).sum() == FIBRES * PIXELS - 10


def test_pixels_that_are_not_finite_or_have_no_ivar_are_no_data(tmp_path: Path) -> None:
    data, ivar = counts(), np.full((FIBRES, PIXELS), 0.25, "f4")
    data[0, 5], ivar[1, 6], ivar[2, 7] = np.nan, np.nan, 0
    l1(tmp_path / STACK, DATA=data, IVAR=ivar)
    ds = load(tmp_path)
    done(ds)
    lost = inside(ds, "ivar") == 0
    assert sorted(zip(*np.nonzero(lost), strict=True)) == [(0, 5), (1, 6), (2, 7)]


def test_a_negative_ivar_refuses_its_row(tmp_path: Path) -> None:
    ivar = np.full((FIBRES, PIXELS), 0.25, "f4")
    ivar[3, 100:103] = -1
    l1(tmp_path / STACK, IVAR=ivar)
    ds = load(tmp_path)
    assert ds["reason_code"].to_numpy().tolist() == [0, 0, 0, Reason.NEGATIVE_IVAR, 0, 0]
    assert "stack_1002046.fit row 3: ivar is negative in 3 pixels" in str(ds["reason"].values[3])


def test_spectra_are_found_by_nspec_not_by_order(tmp_path: Path) -> None:
    order = np.array([4, 1, 6, 2, 5, 3])
    l1(tmp_path / STACK, table=fibtable(Nspec=order))
    ds = load(tmp_path)
    done(ds)
    np.testing.assert_allclose(inside(ds)[:, 0], 300 * order, rtol=1e-6)
    np.testing.assert_array_equal(ds["target_id"], [cname(number) for number in order])
    np.testing.assert_allclose(ds["ra"], 150 + order)


def test_absurd_nspec_refuse_their_rows_alone(tmp_path: Path) -> None:
    l1(tmp_path / STACK, table=fibtable(Nspec=np.array([1, 7, 3, 3, 0, 6])))
    ds = load(tmp_path)
    code = Reason.UNREADABLE
    assert ds["reason_code"].to_numpy().tolist() == [0, code, code, code, code, 0]
    reasons = ds["reason"].to_numpy()
    assert "row 1: NSPEC is 7, expected 1 to 6" in reasons[1]
    assert "row 2: NSPEC 3 is in 2 rows" in reasons[2]
    assert "row 4: NSPEC is 0" in reasons[4]


def test_a_parked_fibre_has_no_data(tmp_path: Path) -> None:
    status = ["A", "P", "A", "D", "A", "A"]
    l1(tmp_path / STACK, table=fibtable(Nspec=np.array([1, -1, 3, -1, 5, 6]), STATUS=status))
    ds = load(tmp_path)
    code = Reason.NO_DATA
    assert ds["reason_code"].to_numpy().tolist() == [0, code, 0, code, 0, 0]
    assert "STATUS is P" in str(ds["reason"].values[1])


def test_the_use_of_a_fibre_is_its_type(tmp_path: Path) -> None:
    l1(tmp_path / STACK, table=fibtable(TARGUSE=["T", "S", "C", "R", "G", "T"]))
    science, sky, standard = ObjectType.SCIENCE, ObjectType.SKY, ObjectType.STANDARD
    expected = [science, sky, standard, standard, standard, science]
    np.testing.assert_array_equal(load(tmp_path)["object_type"], expected)


def test_names_and_places_are_those_of_the_table(tmp_path: Path) -> None:
    ra = np.array([151.0, np.nan, 153, 154, 155, 156])
    names = [cname(1), "", cname(3), cname(3), cname(5), cname(6)]
    l1(tmp_path / STACK, table=fibtable(TARGRA=ra, CNAME=names), primary={"RUN": 1002046})
    ds = load(tmp_path)
    done(ds)
    np.testing.assert_allclose(ds["ra"], [151, 252, 153, 154, 155, 156])
    assert ds["observation"].to_numpy().tolist() == [
        f"stack-1002046-blue-{cname(1)}",
        "stack-1002046-blue-fibre102",
        f"stack-1002046-blue-{cname(3)}-fibre103",
        f"stack-1002046-blue-{cname(3)}-fibre104",
        f"stack-1002046-blue-{cname(5)}",
        f"stack-1002046-blue-{cname(6)}",
    ]
    assert (ds["survey"] == "weave").all()
    assert (ds["mjd"] == 60234.5).all()
    assert (ds["ebv_known"] == 0).all()
    assert np.isnan(ds["z"]).all()
    assert (ds["class"] == "").all()


def test_the_date_stands_in_for_the_mjd(tmp_path: Path) -> None:
    l1(tmp_path / STACK, primary={"MJD-OBS": "", "DATE-OBS": "2023-10-17"})
    assert (load(tmp_path)["mjd"] == 60234).all()


@pytest.mark.parametrize("name", ["SENSFUNC", "IVAR", "FIBTABLE"])
def test_a_missing_extension_is_named(tmp_path: Path, name: str) -> None:
    l1(tmp_path / STACK, without=(name,))
    ds = load(tmp_path)
    assert ds.sizes["spectrum"] == (1 if name == "FIBTABLE" else FIBRES)
    assert (ds["reason_code"] == Reason.MISSING_HDU).all()
    words = str(ds["reason"].values[0])
    assert f"no extension {'BLUE_' if name != 'FIBTABLE' else ''}{name}" in words
    assert "BLUE_DATA_NOSS" in words


def test_a_table_without_nspec_is_refused(tmp_path: Path) -> None:
    table = fibtable()
    table.columns.del_col("Nspec")
    l1(tmp_path / STACK, table=fits.BinTableHDU.from_columns(table.columns, name="FIBTABLE"))
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.MISSING_HDU).all()
    assert "no column NSPEC" in str(ds["reason"].values[0])


def test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    l1(tmp_path / STACK, IVAR=np.ones((FIBRES, PIXELS - 1), "f4"))
    assert "BLUE_IVAR (6, 400)" in str(load(tmp_path)["reason"].values[0])


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ({}, 1.0),
        ({"DATA": "ADU"}, 1.0),
        ({"DATA": "ADU", "SENSFUNC": "erg/s/cm2/Angstrom"}, 1.0),
        ({"DATA": "ADU", "SENSFUNC": "erg s-1 cm-2 Angstrom-1 adu-1"}, 1.0),
        ({"SENSFUNC": "W m-2 nm-1 / ADU"}, 100.0),
        ({"DATA": "1e-17 erg/(s cm2 Angstrom)", "SENSFUNC": ""}, 1e-17),
    ],
)
def test_units_are_those_of_the_headers(
    tmp_path: Path, units: dict[str, str], factor: float
) -> None:
    ivar = np.full((FIBRES, PIXELS), 0.25 * factor**2, "f4")
    l1(tmp_path / STACK, units=units, IVAR=ivar)
    ds = load(tmp_path)
    done(ds)
    np.testing.assert_allclose(inside(ds), counts() * 3 * factor, rtol=1e-6)
    np.testing.assert_allclose(inside(ds, "ivar"), 0.25 / 9, rtol=1e-6)


@pytest.mark.parametrize("unit", ["Jy", "erg/s/cm2/Angstrom/(ADU/s)", "gibberish"])
def test_other_units_are_refused_until_the_card_says(tmp_path: Path, unit: str) -> None:
    l1(tmp_path / STACK, units={"DATA": "ADU", "SENSFUNC": unit})
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.BAD_UNITS).all()
    assert "survey.options.flux_unit" in str(ds["reason"].values[0])
    stated = load(tmp_path, flux_unit="erg / (s cm2 Angstrom)")
    done(stated)
    np.testing.assert_allclose(inside(stated), counts() * 3, rtol=1e-6)


def test_a_unit_that_is_no_flux_density_is_no_option() -> None:
    with pytest.raises(ValueError, match=r"'furlong'.*not a flux density"):
        weave.build(flux_unit="furlong")


def test_the_line_spread_is_the_design_value(tmp_path: Path) -> None:
    l1(tmp_path / STACK)
    row = load(tmp_path).isel(spectrum=0)
    at = row.sel(wavelength=5000.0, method="nearest")
    # R of 5000 at 5000 A is a FWHM of 1 A: four pixels.
    assert float(at["lsf"]) == pytest.approx(4 / 2.3548, rel=1e-3)


@pytest.mark.parametrize("name", ["BLUE_DATA", "BLUE_SENSFUNC", "FIBTABLE"])
def test_a_truncated_file_is_unreadable(tmp_path: Path, name: str) -> None:
    path = l1(tmp_path / STACK)
    with fits.open(path) as hdus:
        begin = hdus[name].fileinfo()["datLoc"]
    path.write_bytes(path.read_bytes()[: begin + 100])
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert "stack_1002046.fit: truncated" in str(ds["reason"].values[0])


def test_a_packed_and_a_compressed_file_are_as_the_plain_one(tmp_path: Path) -> None:
    l1(tmp_path / "plain" / STACK)
    l1(tmp_path / "packed" / f"{STACK}.gz")
    with fits.open(tmp_path / "plain" / STACK) as hdus:
        tiled = [
            fits.CompImageHDU(hdu.data, hdu.header, compression_type="GZIP_1", quantize_level=0)
            if isinstance(hdu, fits.ImageHDU)
            else hdu
            for hdu in hdus
        ]
        (tmp_path / "tiled").mkdir()
        fits.HDUList(tiled).writeto(tmp_path / "tiled" / STACK)
    expected = load(tmp_path / "plain")
    done(expected)
    for folder in ("packed", "tiled"):
        actual = load(tmp_path / folder)
        for name in ("flux", "ivar", "target_id", "status"):
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=folder)


def test_parts_of_a_file_are_the_whole(tmp_path: Path) -> None:
    order = np.array([4, 1, 6, 2, 5, 3])
    l1(tmp_path / STACK, table=fibtable(Nspec=order), axis={"CTYPE1": "AWAV"})
    reader, config = weave.build(), "weave-lr-blue"
    (source,) = reader.find(str(tmp_path), config)
    whole = reader.read(source, str(tmp_path), config)
    done(whole)
    for first, last in ((0, 2), (2, 5), (5, 6)):
        part = reader.read(source.part(first, last), str(tmp_path), config)
        assert part.identical(whole.isel(spectrum=slice(first, last)))


def test_rows_that_went_with_a_new_file_are_refused(tmp_path: Path) -> None:
    path = l1(tmp_path / STACK)
    reader, config = weave.build(), "weave-lr-blue"
    (source,) = reader.find(str(tmp_path), config)
    path.unlink()
    l1(path, table=fibtable(Nspec=np.array([1, 2])))
    ds = reader.read(source, str(tmp_path), config)
    assert (ds["status"] == Status.QUARANTINED).all()
    assert "FIBTABLE has 2 rows, expected 6" in str(ds["reason"].values[0])


def test_a_header_that_lies_about_its_rows_costs_no_memory(tmp_path: Path) -> None:
    path = l1(tmp_path / STACK)
    begin = path.read_bytes().index(b"BINTABLE")
    content = path.read_bytes()
    row = content.index(b"NAXIS2  =", begin)
    line = b"NAXIS2  = " + b"900000000".rjust(20)
    path.write_bytes(content[:row] + line + content[row + len(line) :])
    ds = load(tmp_path)
    assert ds["reason_code"].to_numpy().tolist() == [Reason.UNREADABLE]
    assert "truncated" in str(ds["reason"].values[0])
