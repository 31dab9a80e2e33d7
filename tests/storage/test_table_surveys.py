"""Real spectra through the reader of tables: AAOmega in eight guises, LAMOST, MIUSCAT."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from storage.grid import air_to_vacuum
from storage.readers import table
from storage.schema import Status
from storage.velocity import C_KMS
from tests.conftest import ROOT


def rows(reader: Any, root: Path) -> xr.Dataset:
    """All rows of a folder."""
    parts = [reader.read(source, str(root), "table") for source in reader.find(str(root), "table")]
    return xr.concat(parts, "spectrum", data_vars="minimal", join="exact")


@pytest.fixture(scope="module")
def aaomega(survey_data: Path) -> xr.Dataset:
    """Every spectrum of the folder."""
    return rows(table.build(preset="aaomega"), survey_data / "aaomega")


def peak(ds: xr.Dataset, row: int, wavelength: float) -> float:
    """Where a line is, A: its centroid above the level beside it."""
    wave, flux = ds["wavelength"].to_numpy(), ds["flux"].to_numpy()[row].astype("f8")
    level = np.median(flux[np.abs(wave - wavelength) < 60])
    near = np.abs(wave - wavelength) < 8
    line = np.clip(flux[near] - level, 0, None)
    return float((line * wave[near]).sum() / line.sum())


def test_all_ten_spectra_are_read(aaomega: xr.Dataset) -> None:
    assert (aaomega["status"] == Status.DONE).all(), aaomega["reason"].to_numpy()
    names = aaomega["target_id"].to_numpy().tolist()
    assert names.count("D0221394-2854323") == 7
    assert aaomega["observation"].to_numpy().tolist()[5:8] == [
        f"emlLogVacuumHelioMultiple:{row}" for row in range(3)
    ]


def test_one_object_in_seven_guises_is_one_spectrum(aaomega: xr.Dataset) -> None:
    # Air or vacuum, linear or log; the flags DO_HELIO and DO_CMB ask for a shift that none of
    # these files had: their pixels are the same numbers. So must be what is read.
    same = np.flatnonzero(aaomega["target_id"].to_numpy() == "D0221394-2854323")
    assert len(same) == 7
    flux = aaomega["flux"].to_numpy()[same].astype("f8")
    ivar = aaomega["ivar"].to_numpy()[same].astype("f8")
    slope = np.gradient(flux[0])
    for row in range(1, 7):
        np.testing.assert_array_equal(ivar[row] > 0, ivar[0] > 0)
        shift = (ivar[0] * slope * (flux[row] - flux[0])).sum() / (ivar[0] * slope**2).sum()
        assert abs(shift) < 1e-4, f"{shift} pixels"
        assert (np.abs(flux[row] - flux[0]) * np.sqrt(ivar[0])).max() < 1e-3
        for line in (7301.3, 7323.8, 7472.1, 7489.2):
            apart = peak(aaomega, same[row], line) - peak(aaomega, same[0], line)
            assert abs(apart) < 1e-3


def test_lines_of_one_object_agree_on_its_redshift(aaomega: xr.Dataset) -> None:
    row = int(np.flatnonzero(aaomega["target_id"].to_numpy() == "D0221394-2854323")[0])
    lines = {"H alpha": 6564.614, "[N II]": 6585.268, "[S II]a": 6718.294, "[S II]b": 6732.678}
    guess = 0.1122
    found = [peak(aaomega, row, rest * (1 + guess)) / rest - 1 for rest in lines.values()]
    assert np.ptp(found) * C_KMS < 30


def test_they_were_shifted_to_the_sun(aaomega: xr.Dataset, survey_data: Path) -> None:
    # Independently: the peak of H alpha in the file, in air, seen from the observatory.
    with fits.open(survey_data / "aaomega" / "emlLinearSkyAirNoHelio.fits") as hdus:
        cards, flux = hdus[0].header, hdus[0].data.astype("f8")
    air = cards["CRVAL1"] + (np.arange(flux.size) + 1 - cards["CRPIX1"]) * cards["CDELT1"]
    near = np.abs(air - 7299.8) < 8
    line = np.clip(flux[near] - np.nanmedian(flux[np.abs(air - 7299.8) < 60]), 0, None)
    seen = float(air_to_vacuum((line * air[near]).sum() / line.sum()))
    row = int(np.flatnonzero(aaomega["target_id"].to_numpy() == "D0221394-2854323")[0])
    # -21.1 km/s is what astropy gives for the AAT at that time (see test_velocity).
    shift = (peak(aaomega, row, seen) / seen - 1) * C_KMS
    assert shift == pytest.approx(-21.1, abs=1.5)


def test_sky_lines_of_the_file_stand_still_in_air(survey_data: Path) -> None:
    # So their wavelengths are the observatory's, whatever DO_HELIO is: a correction would be 21.
    with fits.open(survey_data / "aaomega" / "emlLinearSkyAirHelio.fits") as hdus:
        cards, sky = hdus[0].header, hdus["SKY"].data.astype("f8")
    air = cards["CRVAL1"] + (np.arange(sky.size) + 1 - cards["CRPIX1"]) * cards["CDELT1"]
    assert cards["DO_HELIO"]
    # 5577, at the end of the blue arm, is 0.4 A to the red: the other way than the correction.
    for line in (6300.304, 6363.776, 7913.708):
        near = np.abs(air - line) < 6
        above = np.clip(sky[near] - np.nanmedian(sky[near]) - 0.1 * np.nanmax(sky[near]), 0, None)
        apart = (above * air[near]).sum() / above.sum() - line
        assert abs(apart / line * C_KMS) < 5


def test_lamost_is_copied_pixel_by_pixel(survey_data: Path) -> None:
    ds = rows(table.build(preset="lamost"), survey_data / "lamost")
    assert ds.sizes["spectrum"] == 44
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
    assert ds["flux_relative"].to_numpy().all()
    assert set(ds["class"].to_numpy()) == {"STAR"}
    assert (np.abs(ds["z"]) < 0.002).all()
    path = sorted((survey_data / "lamost").glob("*.fits"))[0]
    cards, (flux, ivar, _, bad, _) = fits.getheader(path), fits.getdata(path)
    first = round((cards["CRVAL1"] - 3.55) / 1e-4)
    inside = slice(first, first + flux.size)
    good = (ivar > 0) & (bad == 0)
    np.testing.assert_array_equal(ds["ivar"].to_numpy()[0, inside] > 0, good)
    np.testing.assert_allclose(ds["flux"].to_numpy()[0, inside][good], flux[good], rtol=1e-6)
    assert (float(ds["ra"][0]), float(ds["z"][0])) == (cards["RA"], cards["Z"])
    assert ds["mjd"].to_numpy()[0] == pytest.approx(55861.83512, abs=1e-5)


@pytest.mark.parametrize("line", [4862.683, 6564.614, 8664.52])
def test_stars_of_lamost_have_lines_where_their_redshift_says(
    survey_data: Path, line: float
) -> None:
    ds = rows(table.build(preset="lamost"), survey_data / "lamost")
    wave = ds["wavelength"].to_numpy()
    near = np.abs(wave - line) < 10
    found = []
    for row in np.flatnonzero(ds["snr"].to_numpy() > 15):
        flux = ds["flux"].to_numpy()[row, near].astype("f8")
        depth = np.clip(np.percentile(flux, 85) - flux, 0, None)
        core = np.clip(depth - depth.max() / 2, 0, None)
        found.append((core * wave[near]).sum() / core.sum() / line - 1 - float(ds["z"][row]))
    assert len(found) > 10
    # A pixel is 69 km/s, air would be 83 km/s away.
    assert abs(np.median(found)) * C_KMS < 20


def test_models_in_air_with_a_catalogue_of_places(survey_data: Path, tmp_path: Path) -> None:
    paths = sorted((survey_data / "ssp_miuscat").glob("*.fits"))[:2]
    for path in paths:
        (tmp_path / path.name).symlink_to(path)
    names = [path.name for path in paths]
    Table({"file": names, "RA": [1.0, 2.0], "DEC": [3.0, 4.0], "Z": [0.0, 0.0]}).write(
        tmp_path / "places.csv"
    )
    options = {"wavelength_unit": "Angstrom", "flux_unit": "relative", "medium": "air"}
    options |= {"frame": "heliocentric", "error": "estimate", "catalog": "places.csv"}
    ds = rows(table.build(**options), tmp_path)
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
    assert ds["ra"].to_numpy().tolist() == [1.0, 2.0]
    wave, flux = ds["wavelength"].to_numpy(), ds["flux"].to_numpy()[1]
    near = np.abs(wave - 4862.7) < 6
    assert wave[near][np.argmin(flux[near])] == pytest.approx(4862.7, abs=1.2)


def test_the_cards_of_the_documentation_are_good() -> None:
    text = (ROOT / "docs" / "table.md").read_text()
    cards = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.S)]
    made = [table.build(**card["survey"]["options"]) for card in cards]
    preset, spelt = (made[number].model_dump(exclude={"preset"}) for number in (0, 1))
    assert preset == spelt
    assert made[2].preset == "aaomega"
    assert len(made) == 4
