"""What the reader of tables refuses, and that it never raises for a bad file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from storage import schema
from storage.schema import Reason, Status
from tests.storage.table_mock import (
    HOUSE,
    axis,
    columns,
    density,
    read,
    reader,
    write_image,
    write_table,
)


def refused(root: Path, **options: Any) -> tuple[Reason, str]:
    """Why the one row below a folder is quarantined."""
    ds = schema.check(read(root, **options))
    assert ds["status"].to_numpy().tolist() == [Status.QUARANTINED]
    assert not ds["ivar"].any()
    return Reason(int(ds["reason_code"][0])), str(ds["reason"].to_numpy()[0])


def changed(name: str, where: Any, value: float) -> dict[str, Any]:
    """Columns with some pixels of one set to a value."""
    made = columns()
    made[name] = made[name].copy()
    made[name][where] = value * made[name].unit
    return made


@pytest.mark.parametrize(
    ("name", "where", "value", "words"),
    [
        ("wavelength", 5, np.nan, "not finite and above 0 in 1 of 858 pixels"),
        ("wavelength", 5, -1.0, "not finite and above 0 in 1 of 858 pixels"),
        ("wavelength", 5, 5701.0, "do not ascend: 1 steps are 0 or back, the first after 5702.8"),
        ("wavelength", 5, 5999.0, "do not ascend: 1 steps are 0 or back, the first after 5999.0"),
    ],
)
def test_wavelengths_that_are_no_axis(
    tmp_path: Path, name: str, where: int, value: float, words: str
) -> None:
    write_table(tmp_path / "a.fits", changed(name, where, value))
    code, reason = refused(tmp_path)
    assert code == Reason.BAD_GRID
    assert words in reason


def test_too_few_pixels(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", {name: x[:9] for name, x in columns().items()})
    assert refused(tmp_path) == (
        Reason.BAD_GRID,
        "a.fits: 9 pixels, expected 10 or more; leave it out",
    )


def test_wavelengths_beyond_the_grid_name_the_options(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", columns())
    code, reason = refused(tmp_path, wavelength_unit="nm")
    assert code == Reason.BAD_GRID
    assert "survey.options.wavelength_unit" in reason
    assert "survey.options.grid" in reason


@pytest.mark.parametrize(
    ("missing", "option"), [("wavelength", "wavelength_unit"), ("flux", "flux_unit")]
)
def test_a_missing_unit_names_its_option(tmp_path: Path, missing: str, option: str) -> None:
    made = columns()
    made[missing] = made[missing].value
    write_table(tmp_path / "a.fits", made)
    code, reason = refused(tmp_path)
    assert code == Reason.BAD_UNITS
    assert f"the file has no unit; set survey.options.{option}" in reason


@pytest.mark.parametrize(
    ("more", "options", "words"),
    [
        ({}, {"wavelength_unit": "furlongs"}, r"'furlongs' is none that astropy reads"),
        ({}, {"wavelength_unit": "kg"}, "wavelengths are in kg, which is no length"),
        ({}, {"flux_unit": "mag(AB)"}, "or is logarithmic"),
        ({}, {"flux_unit": "adu"}, "flux is in adu, which is no flux density"),
        ({}, {"flux_unit": "Jy / sr"}, "which is no flux density"),
        ({}, {"uncertainty_unit": "Jy"}, "uncertainty (ivar) is in Jy"),
        ({"ivar": None}, {}, "no uncertainty; name it in survey.options.uncertainty"),
        ({"ivar": None}, {}, "or set survey.options.error to 'estimate'"),
        ({"n": np.ones(858)}, {"uncertainty": "n"}, "set survey.options.uncertainty_kind"),
    ],
)
def test_units_that_do_not_fit(
    tmp_path: Path, more: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    write_table(tmp_path / "a.fits", columns(**more))
    code, reason = refused(tmp_path, **options)
    assert code == Reason.BAD_UNITS
    assert words in reason


@pytest.mark.parametrize(
    ("cards", "options", "option"),
    [
        ({"VACUUM": None}, {}, "medium"),
        ({"SPECSYS": None}, {}, "frame"),
        ({"SPECSYS": "CMBDIPOL"}, {}, "frame"),
        ({"SPECSYS": "TOPOCENT"}, {}, "site"),
        ({"SPECSYS": "TOPOCENT", "LONG_OBS": 10.0, "LAT_OBS": 20.0}, {}, "time"),
        ({"SPECSYS": "TOPOCENT"}, {"velocity": "VHELIO"}, "velocity"),
    ],
)
def test_medium_and_frame_are_never_guessed(
    tmp_path: Path, cards: dict[str, Any], options: dict[str, Any], option: str
) -> None:
    write_table(tmp_path / "a.fits", columns(), **cards)
    code, reason = refused(tmp_path, **options)
    assert code == Reason.BAD_UNITS
    assert reason.endswith(f"set survey.options.{option}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flux": "F_LAM"}, "no flux 'F_LAM' (there: wavelength, flux, ivar)"),
        ({"uncertainty": "E"}, "no uncertainty 'E'"),
        ({"mask": "M"}, "no mask 'M'"),
        ({"hdu": 3}, "no extension 3 (there: 0 PRIMARY, 1)"),
        ({"hdu": "SPEC"}, "set survey.options.hdu"),
    ],
)
def test_a_part_that_is_not_there_is_named(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    write_table(tmp_path / "a.fits", columns())
    code, reason = refused(tmp_path, **options)
    assert code == Reason.MISSING_HDU
    assert words in reason


def test_an_image_without_an_axis_or_a_row(tmp_path: Path) -> None:
    write_image(tmp_path / "a.fits", density(axis()[1]), BUNIT=str(HOUSE))
    code, reason = refused(tmp_path)
    assert code == Reason.BAD_GRID
    assert "no CRVAL1 with CDELT1 or CD1_1" in reason
    code, reason = refused(tmp_path, rows={"flux": 4})
    assert code == Reason.MISSING_HDU
    assert "no row 4 (flux) in an image of 1 rows" in reason


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    flux = density(axis()[1])
    cards = {"CRVAL1": 5700.0, "CDELT1": 0.7, "CUNIT1": "Angstrom", "BUNIT": str(HOUSE)}
    write_image(tmp_path / "a.fits", flux, ("IVAR", np.ones(20)), **cards)
    code, reason = refused(tmp_path)
    assert code == Reason.BAD_GRID
    assert "uncertainty is (1, 20), flux (1, 858)" in reason


def test_a_table_of_positions_of_another_length(tmp_path: Path) -> None:
    flux = np.tile(density(axis()[1]), (3, 1))
    axis_cards = {"CRVAL1": 5700.0, "CDELT1": 0.7}
    path = write_image(tmp_path / "a.fits", flux, ("IVAR", 0 * flux + 1), **axis_cards)
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.BinTableHDU(Table({"RA": [1.0, 2.0]}), name="FIBRES"))
    options = {"flux_unit": "relative", "wavelength_unit": "Angstrom", "rows_hdu": "FIBRES"}
    ds = read(tmp_path, **options)
    assert (ds["reason_code"] == Reason.BAD_GRID).all()
    assert "column 'RA' has 2 rows, flux 3" in str(ds["reason"].to_numpy()[0])


def test_absurd_numbers_in_a_header_do_not_raise(tmp_path: Path) -> None:
    cards = {"ZWARN": 1e30, "Z_ERR": "x", "EBV": -1e300, "VDISP": 1e300, "MJD": 1e300, "CLASS": 3}
    more = {"SPECSYS": "TOPOCENT", "LONG_OBS": 1e9, "LAT_OBS": 1e9, "DATE-OBS": "2020-99-99"}
    write_table(tmp_path / "a.fits", columns(), **cards, **more)
    refused(tmp_path)
    assert read(tmp_path, frame="barycentric")["status"].to_numpy().tolist() == [Status.DONE]


def test_a_negative_variance_is_damage_unless_it_means_no_data(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", changed("ivar", 400, -1))
    code, reason = refused(tmp_path)
    assert code == Reason.NEGATIVE_IVAR
    assert "negative in 1 pixels" in reason
    ds = read(tmp_path, negative="no-data")
    assert ds["status"].to_numpy().tolist() == [Status.DONE]


def test_positions_of_1950_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", columns(), EQUINOX=1950.0)
    assert refused(tmp_path)[0] == Reason.BAD_POSITION


def test_no_position_and_no_data(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", columns(), RA=None)
    assert refused(tmp_path)[0] == Reason.BAD_POSITION
    write_table(tmp_path / "a.fits", columns(mask=np.ones(858, dtype="i4")))
    assert refused(tmp_path)[0] == Reason.NO_DATA


def test_a_file_that_grew_more_spectra_is_refused(tmp_path: Path) -> None:
    cards = {"CRVAL1": 5700.0, "CDELT1": 0.7, "CUNIT1": "Angstrom", "BUNIT": str(HOUSE)}
    flux = np.tile(density(axis()[1]), (3, 1))
    path = write_image(tmp_path / "a.fits", flux, ("IVAR", 0 * flux + 1), **cards)
    made = reader()
    (source,) = made.find(str(tmp_path), "table")
    write_image(path, flux[:2], ("IVAR", 0 * flux[:2] + 1), **cards)
    ds = made.read(source, str(tmp_path), "table")
    assert (ds["reason_code"] == Reason.BAD_GRID).all()
    assert "holds 2 spectra where 3 were found" in str(ds["reason"].to_numpy()[0])


def test_an_unknown_config_is_named() -> None:
    with pytest.raises(ValueError, match=r"config 'x' is not of reader table"):
        reader().read(None, "", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "parquet", "image"])
def test_no_bytes_make_it_raise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({k: v.value for k, v in columns().items()}), path)
    elif suffix == "image":
        path = write_image(tmp_path / "a.fits", density(axis()[1]), CRVAL1=5700.0, CDELT1=0.7)
    else:
        write_table(path, columns())
    content = path.read_bytes()
    random = np.random.default_rng(2)
    options = {"flux_unit": "relative", "wavelength_unit": "Angstrom", "error": "estimate"}
    for trial in range(40):
        damaged = bytearray(
            content[: random.integers(1, len(content))] if trial % 4 == 0 else content
        )
        for at in random.integers(0, min(len(damaged), 6000), 3):
            damaged[at] = random.integers(0, 256)
        path.write_bytes(bytes(damaged))
        schema.check(read(tmp_path, **options, medium="vacuum", frame="heliocentric"))


def test_a_header_that_lies_of_its_size_costs_no_memory(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits", np.ones(100), CRVAL1=5700.0, CDELT1=0.7)
    content = path.read_bytes().replace(
        b"NAXIS1  =                  100", b"NAXIS1  =         999999999999"
    )
    path.write_bytes(content)
    code, reason = refused(tmp_path)
    assert code == Reason.UNREADABLE
    assert "truncated" in reason


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_table_whose_columns_do_not_fill_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("storage.table.fits._SMALL", small)
    path = write_table(tmp_path / "a.fits", columns())
    with fits.open(path, mode="update", checksum=True):
        pass
    assert read(tmp_path)["status"].to_numpy().tolist() == [Status.DONE]
    path.write_bytes(path.read_bytes().replace(b"TFORM2  = 'D       '", b"TFORM2  = '9999999D'"))
    code, reason = refused(tmp_path)
    assert code == Reason.UNREADABLE
    assert "fetch the file again" in reason


def test_absurd_numbers_are_refused_unless_flux_is_relative(tmp_path: Path) -> None:
    made = columns()
    flux = made["flux"].value.copy()
    flux[300] = 1e25
    write_table(tmp_path / "a.fits", columns(flux=flux * HOUSE))
    ds = read(tmp_path)
    assert ds["reason_code"].item(0) == Reason.ABSURD
    assert "flux is beyond 1e+10 in house units" in ds["reason"].item(0)
    assert read(tmp_path, flux_unit="relative")["status"].item(0) == Status.DONE


def test_one_absurd_ivar_does_not_vanish_in_the_rebinning(tmp_path: Path) -> None:
    wave, _ = axis()
    ivar = np.full(wave.size, 4.0)
    ivar[300] = 1e30
    write_table(tmp_path / "a.fits", columns(ivar=ivar / HOUSE**2))
    ds = read(tmp_path)
    assert ds["reason_code"].item(0) == Reason.ABSURD
    assert "ivar is beyond 1e+16 in house units" in ds["reason"].item(0)
    assert "in 1 pixels" in ds["reason"].item(0)
