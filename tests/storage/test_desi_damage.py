"""DESI files that are damaged, or not DESI's: their rows stay, and say why."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from storage.readers import desi
from storage.schema import Reason, Status
from tests.storage import desi_mock as mock


def refused(folder: Path, code: Reason, words: str, rows: int = 4) -> None:
    """Every row below a folder is quarantined with this code, in these words."""
    ds = mock.read(folder)
    reason = str(ds["reason"][0].item())
    assert ds.sizes["spectrum"] == rows
    assert (ds["status"] == Status.QUARANTINED).all()
    assert (ds["reason_code"] == code).all(), reason
    assert re.search(words, reason), reason
    assert not ds["flux"].any()


def sound(folder: Path) -> xr.Dataset:
    ds = mock.read(folder)
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
    return ds


@pytest.mark.parametrize("unit", ["erg/(s cm2 Angstrom)", "10**-19 W/(m2 nm)"])
def test_flux_in_another_scale_is_converted(tmp_path: Path, unit: str) -> None:
    images = mock.arms(1)
    # 1 W/(m2 nm) is 100 erg/(s cm2 Angstrom); ivar has no unit and goes with flux.
    scale = 1e-17 if unit.startswith("erg") else 1
    for arm in mock.ARMS:
        images[f"{arm}_FLUX"] *= scale
        images[f"{arm}_IVAR"] /= scale**2
    mock.save(tmp_path, images, mock.fibermap(1), units=unit)
    ds = sound(tmp_path)
    np.testing.assert_allclose(ds["flux"][0, :300], 1, rtol=1e-6)
    np.testing.assert_allclose(ds["ivar"][0, 50], 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (None, r"B_FLUX has no BUNIT, expected 10\*\*-17 erg"),
        ("nanomaggy", r"B_FLUX has BUNIT 'nanomaggy', expected as"),
        ("furlong", r"B_FLUX has BUNIT 'furlong'.*; fetch the file again, or correct its header"),
    ],
)
def test_flux_of_another_unit_is_refused(tmp_path: Path, unit: str | None, words: str) -> None:
    mock.save(tmp_path, mock.arms(4), mock.fibermap(4), units=unit)
    refused(tmp_path, Reason.BAD_UNITS, words)


def test_wavelengths_of_another_unit_are_converted_or_refused(tmp_path: Path) -> None:
    path = mock.save(tmp_path, mock.arms(4), mock.fibermap(4))
    with fits.open(path, mode="update") as hdus:
        hdus["B_WAVELENGTH"].data[:] /= 10
        hdus["B_WAVELENGTH"].header["BUNIT"] = "nm"
    sound(tmp_path)
    fits.setval(path, "BUNIT", value="s", extname="B_WAVELENGTH")
    refused(tmp_path, Reason.BAD_UNITS, r"B_WAVELENGTH has BUNIT 's'")


@pytest.mark.parametrize("units", [mock.FLUX_UNIT, "erg/(s cm2 Angstrom)"])
def test_absurd_flux_is_refused_in_any_unit(tmp_path: Path, units: str) -> None:
    images = mock.arms(4)
    images["B_FLUX"][2, 5] = 1e25
    mock.save(tmp_path, images, mock.fibermap(4), units=units)
    ds = mock.read(tmp_path)
    assert ds["reason_code"][2] == Reason.ABSURD
    assert "flux is beyond 1e+10 in house units" in ds["reason"].item(2)
    if units == mock.FLUX_UNIT:
        assert ds["status"].to_numpy().tolist() == [1, 1, 2, 1]


@pytest.mark.parametrize("off", [0.02, 0.4, -0.8, 7000, np.nan])
def test_wavelengths_off_the_grid_are_refused(tmp_path: Path, off: float) -> None:
    images = mock.arms(4)
    images["B_WAVELENGTH"] += off
    mock.save(tmp_path, images, mock.fibermap(4))
    refused(tmp_path, Reason.BAD_GRID, r"B_WAVELENGTH, .* is off the grid of 3600\.0 to 9824\.0 A")


def test_wavelengths_a_hundredth_of_a_pixel_off_are_read(tmp_path: Path) -> None:
    images = mock.arms(1)
    images["B_WAVELENGTH"] += 0.007
    mock.save(tmp_path, images, mock.fibermap(1))
    sound(tmp_path)


@pytest.mark.parametrize("name", ["R_WAVELENGTH", "B_FLUX", "Z_IVAR", "R_RESOLUTION"])
def test_a_missing_extension_is_named(tmp_path: Path, name: str) -> None:
    images = mock.arms(4)
    del images[name]
    mock.save(tmp_path, images, mock.fibermap(4))
    refused(tmp_path, Reason.MISSING_HDU, f"no extension {name}; fetch the file again")


def test_a_camera_that_was_off_leaves_its_pixels_without_data(tmp_path: Path) -> None:
    images = {key: image for key, image in mock.arms(1).items() if not key.startswith("Z_")}
    mock.save(tmp_path, images, mock.fibermap(1))
    ivar = sound(tmp_path)["ivar"][0]
    assert (ivar[:200] > 0).all()
    assert not ivar[200:].any()


def test_a_file_without_arms_says_what_it_should_have(tmp_path: Path) -> None:
    mock.save(tmp_path, {}, mock.fibermap(4))
    refused(tmp_path, Reason.MISSING_HDU, r"no extension B_WAVELENGTH, B_FLUX, .* Z_RESOLUTION")


def test_a_missing_fibermap_is_named(tmp_path: Path) -> None:
    path = mock.save(tmp_path, mock.arms(4), mock.fibermap(4))
    fits.setval(path, "EXTNAME", value="SCORES", extname="FIBERMAP")
    refused(tmp_path, Reason.MISSING_HDU, r"no extension FIBERMAP \(there are: SCORES, B_WAVEL")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    fibers = mock.fibermap(4)
    del fibers["TARGET_DEC"], fibers["OBJTYPE"]
    mock.save(tmp_path, mock.arms(4), fibers)
    refused(tmp_path, Reason.MISSING_HDU, r"FIBERMAP has no column TARGET_DEC, OBJTYPE")


def test_arms_of_fewer_rows_than_the_fibermap_are_refused(tmp_path: Path) -> None:
    mock.save(tmp_path, mock.arms(3), mock.fibermap(4))
    refused(tmp_path, Reason.UNREADABLE, r"B_FLUX has 3 rows, 4 were expected as in FIBERMAP")


def test_sizes_that_disagree_are_refused(tmp_path: Path) -> None:
    images = mock.arms(4)
    images["R_IVAR"] = images["R_IVAR"][:, 1:]
    mock.save(tmp_path, images, mock.fibermap(4))
    refused(tmp_path, Reason.UNREADABLE, r"R_IVAR has axes \(4, 109\), expected \(4, 110\)")


def test_a_damaged_redrock_file_is_named(tmp_path: Path) -> None:
    path = mock.survey(tmp_path)
    beside = path.with_name("redrock-main-dark-9.fits")
    whole = beside.read_bytes()
    beside.write_bytes(whole[:3000])
    refused(tmp_path, Reason.UNREADABLE, r"redrock-main-dark-9\.fits: truncated: .* or remove it")
    columns = mock.redshifts(4)
    del columns["ZWARN"]
    mock.redrock(tmp_path, columns)
    refused(
        tmp_path, Reason.UNREADABLE, r"redrock-main-dark-9\.fits: REDSHIFTS has no column ZWARN"
    )


def test_a_file_that_became_shorter_since_it_was_found_says_so(tmp_path: Path) -> None:
    mock.survey(tmp_path)
    (source,) = desi.build().find(str(tmp_path), "desi")
    mock.survey(tmp_path, 2)
    ds = desi.build().read(source, str(tmp_path), "desi")
    assert "FIBERMAP has 2 rows, row 3 was expected" in ds["reason"][0].item()
    assert ds.sizes["spectrum"] == 4


def test_a_file_cut_anywhere_keeps_its_rows(tmp_path: Path) -> None:
    path = mock.survey(tmp_path)
    whole = path.read_bytes()
    with fits.open(path) as hdus:
        known = hdus["FIBERMAP"].fileinfo()["datLoc"] + hdus["FIBERMAP"].size
        last = hdus[-1].fileinfo()["datLoc"] + hdus[-1].size
    for size in (*range(0, last, last // 40), last - 1):
        path.write_bytes(whole[:size])
        ds = mock.read(tmp_path)
        assert ds.sizes["spectrum"] == (4 if size >= known else 1)
        # A cut between two extensions looks as if the second one had never been there.
        assert ds["reason_code"].isin([Reason.UNREADABLE, Reason.MISSING_HDU]).all()


def test_flipped_bytes_raise_nothing(tmp_path: Path) -> None:
    path = mock.save(tmp_path, mock.arms(4), mock.fibermap(4), compressed=True)
    whole = np.frombuffer(path.read_bytes(), "u1")
    (source,) = desi.build().find(str(tmp_path), "desi")
    rng = np.random.default_rng(7)
    # Headers are where damage does most: flip there, and in the first arm's tiles.
    cards = np.flatnonzero((whole != 0) & (whole != ord(" ")))
    for _ in range(80):
        flipped = whole.copy()
        flipped[rng.choice(cards, 12)] = rng.integers(0, 256, 12)
        path.write_bytes(flipped.tobytes())
        ds = desi.build().read(source, str(tmp_path), "desi")
        assert ds.sizes["spectrum"] == 4
        assert all(part.rows for part in desi.build().find(str(tmp_path), "desi"))


@pytest.mark.parametrize(
    ("extension", "key", "lie"),
    [
        ("FIBERMAP", "NAXIS2", 10**12),
        ("FIBERMAP", "TFIELDS", 998),
        ("B_FLUX", "NAXIS2", 10**15),
        ("B_RESOLUTION", "NAXIS2", 10**10),
        ("B_MASK", "ZNAXIS2", 10**11),
        ("B_MASK", "ZTILE1", 10**11),
        ("B_MASK", "PCOUNT", 10**12),
    ],
)
def test_a_header_that_lies_costs_no_memory(
    tmp_path: Path, extension: str, key: str, lie: int
) -> None:
    path = mock.save(tmp_path, mock.arms(4), mock.fibermap(4), compressed=True)
    content = path.read_bytes()
    at = content.index(b"'" + extension.encode().ljust(8) + b"'")
    # Of the header that holds this EXTNAME; astropy writes ZTILE1 behind it.
    start = content.rindex(b"XTENSION", 0, at)
    card = content.index(key.encode().ljust(8) + b"=", start)
    line = f"{key:<8}= {lie:>20}".encode().ljust(80)
    path.write_bytes(content[:card] + line + content[card + 80 :])
    tracemalloc.start()
    ds = mock.read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (ds["status"] == Status.QUARANTINED).all()
    assert peak < 64 << 20


def test_images_of_another_kind_of_number_are_refused(tmp_path: Path) -> None:
    images = mock.arms(4)
    images["Z_IVAR"], images["Z_MASK"] = images["Z_MASK"], images["Z_IVAR"]
    mock.save(tmp_path, images, mock.fibermap(4))
    refused(tmp_path, Reason.UNREADABLE, r"Z_IVAR has BITPIX 32, expected floats")


def test_two_extensions_of_one_name_are_refused(tmp_path: Path) -> None:
    path = mock.save(tmp_path, mock.arms(4), mock.fibermap(4))
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.ImageHDU(hdus["B_FLUX"].data, name="B_FLUX"))
    refused(tmp_path, Reason.UNREADABLE, r"two extensions are called B_FLUX; fetch the file again")


def test_more_spectra_than_fibres_are_refused(tmp_path: Path) -> None:
    mock.save(tmp_path, mock.arms(5), mock.fibermap(4))
    refused(tmp_path, Reason.UNREADABLE, r"B_FLUX has 5 rows, 4 were expected as in FIBERMAP")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"TARGETID": [1000, 1001, 1001, 1003]}, r"redrock-.*: TARGETID 1001 is there twice"),
        ({"ZWARN": np.array([0, 1 << 33, 0, 0])}, r"redrock-.*ZWARN of more than 31 bits"),
    ],
)
def test_redshifts_that_cannot_be_told_are_refused(
    tmp_path: Path, columns: dict[str, object], words: str
) -> None:
    mock.save(tmp_path, mock.arms(4), mock.fibermap(4))
    mock.redrock(tmp_path, mock.redshifts(4) | columns)
    refused(tmp_path, Reason.UNREADABLE, words)


def test_absurd_columns_are_empty(tmp_path: Path) -> None:
    fibers = mock.fibermap(4)
    fibers["MEAN_MJD"][1] = 1e25
    mock.save(tmp_path, mock.arms(4), fibers)
    mock.redrock(tmp_path, mock.redshifts(4) | {"ZERR": np.array([1e-5, 1e-5, 1e25, 1e-5])})
    ds = sound(tmp_path)
    assert np.isnan(ds["mjd"]).to_numpy().tolist() == [False, True, False, False]
    assert np.isnan(ds["z_err"]).to_numpy().tolist() == [False, False, True, False]


def test_flux_and_ivar_of_two_types_are_refused(tmp_path: Path) -> None:
    images = mock.arms(4)
    images["R_IVAR"] = images["R_IVAR"].astype("f8")
    mock.save(tmp_path, images, mock.fibermap(4))
    words = r"R_FLUX and R_IVAR have BITPIX -32 and -64, not the same"
    refused(tmp_path, Reason.UNREADABLE, words)
