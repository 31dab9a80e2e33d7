"""One line at a known vacuum wavelength, written in every way, comes out at one place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from storage import velocity
from storage.grid import Grid
from storage.readers import table
from storage.schema import ObjectType, Status
from tests.storage.table_mock import (
    CONTINUUM,
    FLUX,
    GRID,
    HOUSE,
    LINE,
    axis,
    centre,
    columns,
    density,
    read,
    total,
    write_image,
    write_table,
)

SITE = {"LONG_OBS": 149.0661, "LAT_OBS": -31.27704, "ALT_OBS": 1164.0}


def same(ds: Any) -> None:
    """The line is where it belongs, with its flux and the errors of its pixels."""
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
    assert centre(ds) == pytest.approx(LINE, abs=0.005)
    assert total(ds) == pytest.approx(FLUX, rel=1e-4)
    assert float(ds["flux"][0, 0]) == pytest.approx(CONTINUUM, rel=1e-5)


@pytest.mark.parametrize("unit", ["Angstrom", "nm", "um", "m", "GHz", "eV"])
@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_units_of_wavelength(tmp_path: Path, unit: str, suffix: str) -> None:
    wave = (axis()[0] * u.AA).to(unit, u.spectral())
    write_table(tmp_path / f"a.{suffix}", columns(wavelength=wave))
    same(read(tmp_path))


@pytest.mark.parametrize(
    "unit", ["erg / (s cm2 AA)", "W / (m2 um)", "Jy", "mJy", "erg / (s cm2 Hz)", "ph / (s cm2 AA)"]
)
def test_units_of_flux(tmp_path: Path, unit: str) -> None:
    wave = GRID.wavelength * u.AA
    flux = (density(GRID.wavelength) * HOUSE).to(unit, u.spectral_density(wave))
    # An error of one tenth everywhere.
    made = columns(wavelength=wave, flux=flux, ivar=None, error=flux / 10)
    ds = read(write_table(tmp_path / "a.ecsv", made).parent)
    same(ds)
    assert float(ds["snr"][0]) == pytest.approx(10, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "power", "unit"),
    [("ivar", -2, 1 / HOUSE**2), ("invvar", -2, 1 / HOUSE**2), ("variance", 2, HOUSE**2)]
    + [(name, 1, HOUSE) for name in ("error", "err", "sigma", "uncertainty")],
)
def test_an_uncertainty_is_what_its_name_says(
    tmp_path: Path, name: str, power: int, unit: Any
) -> None:
    wave = np.asarray(GRID.wavelength)
    values = np.full(wave.size, 0.5**power) * unit
    made = {"WAVE": wave * u.AA, "Flux": density(wave) * HOUSE, name.upper(): values}
    ds = read(write_table(tmp_path / "a.fits", made).parent)
    # On the grid already: nothing is rebinned.
    np.testing.assert_allclose(ds["ivar"][0], 4.0, rtol=1e-6)
    np.testing.assert_allclose(ds["flux"][0], density(wave), rtol=1e-6)


def test_an_uncertainty_in_another_unit_of_its_kind(tmp_path: Path) -> None:
    error = (np.full(axis()[0].size, 0.5) * HOUSE).to("W / (m2 um)")
    made = columns(ivar=None, error=error)
    expected = read(write_table(tmp_path / "a" / "a.fits", columns()).parent)
    actual = read(write_table(tmp_path / "b" / "b.fits", made).parent)
    np.testing.assert_allclose(actual["ivar"], expected["ivar"], rtol=1e-5)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("medium", ["air", "vacuum"])
@pytest.mark.parametrize("way", ["column", "image", "extension"])
def test_air_and_vacuum_linear_and_log(tmp_path: Path, way: str, medium: str, log: bool) -> None:
    wave, vacuum = axis(medium, log)
    flux, ivar = density(vacuum), np.full(wave.size, 4.0)
    scaled, said = (np.log10(wave) if log else wave), medium == "vacuum"
    options: dict[str, Any] = {"flux_unit": str(HOUSE), "wavelength_unit": "Angstrom"}
    if way == "column":
        name = "loglam" if log else "lambda"
        made = {name: scaled, "flux": flux, "ivar": ivar}
        write_table(tmp_path / "a.fits", made, VACUUM=said)
    elif way == "image":
        cards = {"CRVAL1": scaled[2], "CD1_1": scaled[1] - scaled[0], "CRPIX1": 3.0}
        more = {"DC-FLAG": 1 if log else 0, "VACUUM": said}
        write_image(tmp_path / "a.fits", flux, ("IVAR", ivar), **cards, **more)
    else:
        write_image(
            *(tmp_path / "a.fits", flux, ("VARIANCE", 1 / ivar)),
            *[("LOGLAM" if log else "WAVELENGTH", scaled)],
            VACUUM=said,
        )
    same(read(tmp_path, **options))


def test_the_standard_log_axis_of_fits_is_natural(tmp_path: Path) -> None:
    wave, vacuum = axis("air", log=True)
    step = wave[0] * np.log(wave[1] / wave[0])
    cards = {"CRVAL1": wave[0], "CDELT1": step, "CTYPE1": "AWAV-LOG", "CUNIT1": "Angstrom"}
    more = {"VACUUM": None, "BUNIT": "10^-17 erg/s/cm^2/Angstrom"}
    write_image(tmp_path / "a.fits", density(vacuum), ("IVAR", 0 * wave + 4), **cards, **more)
    same(read(tmp_path))


def test_descending_wavelengths_are_turned(tmp_path: Path) -> None:
    made = {name: values[::-1] for name, values in columns().items()}
    same(read(write_table(tmp_path / "a.fits", made).parent))


@pytest.mark.parametrize("way", ["computed", "keyword", "minus"])
def test_topocentric_wavelengths_are_made_heliocentric(tmp_path: Path, way: str) -> None:
    time = 57373.56
    place = (SITE["LONG_OBS"], SITE["LAT_OBS"], SITE["ALT_OBS"])
    shift = velocity.computed([150.0], [2.0], time, place)[0]
    assert abs(shift) > 20
    wave = axis()[0] / (1 + shift / velocity.C_KMS)
    cards = {
        "SPECSYS": "TOPOCENT",
        "MJD-OBS": time - 450 / 86400,
        "EXPTIME": 900.0,
        "VHELIO": shift,
    }
    cards["VOBS"] = -shift
    option = {"computed": "", "keyword": "VHELIO", "minus": "-VOBS"}[way]
    write_table(tmp_path / "a.fits", columns(wavelength=wave * u.AA), **cards, **SITE)
    same(read(tmp_path, velocity=option))
    wrong = read(tmp_path, frame="heliocentric")
    assert centre(wrong) == pytest.approx(LINE * (1 - shift / velocity.C_KMS), abs=0.01)


def test_site_and_time_may_be_options(tmp_path: Path) -> None:
    place = (SITE["LONG_OBS"], SITE["LAT_OBS"], SITE["ALT_OBS"])
    shift = velocity.computed([150.0], [2.0], 57373.5, place)[0]
    wave = axis()[0] / (1 + shift / velocity.C_KMS)
    write_table(
        tmp_path / "a.fits",
        columns(wavelength=wave * u.AA),
        SPECSYS=None,
        MIDDLE="2015-12-17T12:00:00",
    )
    same(read(tmp_path, frame="topocentric", site=place, time="MIDDLE"))


def test_relative_flux_keeps_its_numbers_and_says_so(tmp_path: Path) -> None:
    made = columns(flux=density(axis()[1]) * u.ct, ivar=None, variance=0.25 + 0 * axis()[0])
    ds = read(write_table(tmp_path / "a.ecsv", made).parent, flux_unit="relative")
    same(ds)
    assert ds["flux_relative"].to_numpy().tolist() == [1]
    ds = read(write_table(tmp_path / "a.ecsv", columns()).parent)
    assert ds["flux_relative"].to_numpy().tolist() == [0]


def test_masked_pixels_are_no_data_and_do_not_bleed(tmp_path: Path) -> None:
    vacuum = axis()[1]
    bad = np.abs(vacuum - 5900) < 3
    made = columns(
        flux=np.where(bad, 1e6, density(vacuum)) * HOUSE, mask=np.where(bad, 6, 0).astype("i4")
    )
    ds = read(write_table(tmp_path / "a.fits", made).parent)
    lost = ds["ivar"].to_numpy()[0] == 0
    kept = ds["flux"].to_numpy()[0, ~lost]
    np.testing.assert_allclose(kept, density(GRID.wavelength[~lost]), rtol=1e-2)
    assert {5898.0, 5899.0, 5900.0, 5901.0, 5902.0} <= set(GRID.wavelength[lost])
    assert lost.sum() <= 7
    assert set(ds["mask"].to_numpy()[0, lost]) == {6}
    bright = read(tmp_path, bad_bits=8)
    assert float(bright["flux"][0, 100]) == pytest.approx(1e6)


def test_pixels_that_are_not_covered_have_no_data(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", {name: x[:700] for name, x in columns().items()})
    ds = read(tmp_path)
    beyond = GRID.wavelength > axis()[0][699] + 0.5
    assert beyond.sum() > 5
    assert not ds["ivar"].to_numpy()[0, beyond].any()
    assert ds["ivar"].to_numpy()[0, ~beyond].all()


def test_noise_is_estimated_where_it_is_asked_for(tmp_path: Path) -> None:
    wave, vacuum = axis()
    noisy = density(vacuum) + np.random.default_rng(1).normal(0, 0.2, wave.size)
    write_table(tmp_path / "a.fits", columns(flux=noisy * HOUSE, ivar=None))
    ds = read(tmp_path, error="estimate", grid=Grid(kind="linear", start=5700, step=0.7, size=850))
    assert float(ds["ivar"].median()) == pytest.approx(1 / 0.2**2, rel=0.15)
    assert ds["ivar_estimated"].to_numpy().tolist() == [1]
    # The file's own wins.
    write_table(tmp_path / "a.fits", columns())
    assert read(tmp_path, error="estimate")["ivar_estimated"].to_numpy().tolist() == [0]


def test_resolving_power_fills_the_line_spread(tmp_path: Path) -> None:
    ds = read(write_table(tmp_path / "a.fits", columns()).parent, resolution=2000)
    assert float(ds["lsf"][0, 200]) == pytest.approx(6000 / 2000 / 2.3548, rel=1e-3)


def test_a_row_is_what_header_and_options_say(tmp_path: Path) -> None:
    cards = {"RA": "10:00:00.0", "DEC": "-02:30:00", "Z": -9999.0, "ZPIPE": 0.2, "CLASS": "GALAXY"}
    more = {"OBJECT": 39627, "OBJTYPE": "sky", "DATE-OBS": "2015-12-17T12:00:00", "EBV": 0.05}
    write_table(tmp_path / "sub" / "a.fits", columns(), **cards, **more)
    ds = read(tmp_path, columns={"z": "zpipe"}, survey="mine").isel(spectrum=0)
    assert (float(ds["ra"]), float(ds["dec"]), float(ds["z"])) == (150.0, -2.5, 0.2)
    assert (str(ds["class"].values), str(ds["survey"].values)) == ("GALAXY", "mine")
    assert (str(ds["target_id"].values), str(ds["observation"].values)) == ("39627", "a")
    assert (int(ds["object_type"]), float(ds["mjd"])) == (ObjectType.SKY, 57373.5)
    assert (float(ds["ebv"]), int(ds["ebv_known"])) == (pytest.approx(0.05), 1)
    assert str(ds["source"].values) == "sub/a.fits"


@pytest.mark.parametrize("said", [{}, {"EBV": -999.0}, {"EBV": "unknown"}])
def test_dust_that_nobody_stated_is_none_and_said_to_be_unknown(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    write_table(tmp_path / "a.fits", columns(), **said)
    ds = read(tmp_path).isel(spectrum=0)
    assert (float(ds["ebv"]), int(ds["ebv_known"])) == (0.0, 0)


def test_the_grid_of_the_store_is_an_option() -> None:
    grid = {"kind": "linear", "start": 4000, "step": 1, "size": 5000}
    assert table.build(grid=grid).configs == {"table": Grid(**grid)}


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wavelenght"):
        table.build(wavelenght="WAVE")
    with pytest.raises(ValueError, match=r"preset 'lamos' is not known; one of aaomega, lamost"):
        table.build(preset="lamos")


def test_what_a_card_says_goes_above_a_preset() -> None:
    made = table.build(preset="lamost", survey="dr9", columns={"z": "Z_LASP"})
    assert (made.survey, made.hdu, made.flux_unit) == ("dr9", 0, "relative")
    assert made.columns["z"] == "Z_LASP"
    assert made.columns["target_id"] == ("OBJNAME",)


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    import gzip

    path = write_table(tmp_path / "a.fits", columns())
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    same(read(tmp_path))
    assert fits.getdata(tmp_path / "b.fits.gz", 1) is not None
