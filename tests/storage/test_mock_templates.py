"""Stellar templates that a user brings, in place of the analytic ones."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from storage.grid import Grid, air_to_vacuum
from storage.mocks.galaxy import build
from storage.simulation.template_files import library
from storage.simulation.templates import REST, Templates, analytic

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
AIR = 3500.0 + 0.9 * np.arange(6500)
AGES, METALS = (0.1, 1.0, 10.0), (-0.4, 0.0, 0.22)


def spectrum(age: float, metal: float) -> NDArray[np.float64]:
    """A slope by age, and one absorption line at 5175 A (air) by metallicity."""
    line = (0.3 + metal / 2) * np.exp(-0.5 * ((AIR - 5175.0) / 5.0) ** 2)
    return (AIR / 5500.0) ** (0.5 * np.log10(age)) * (1 - line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine files named and made like those of MILES."""
    for age in AGES:
        for metal in METALS:
            sign = "m" if metal < 0 else "p"
            hdu = fits.PrimaryHDU(spectrum(age, metal).astype(">f4"))
            hdu.header.update(CRVAL1=3500.0, CDELT1=0.9, CRPIX1=1)
            hdu.writeto(tmp_path / f"Iun1.30Z{sign}{abs(metal):.2f}T{age:07.4f}.fits")
    return tmp_path


def test_files_named_like_miles_become_templates(folder: Path) -> None:
    made = library(str(folder / "*.fits"), "air")

    assert made.ages == AGES
    assert made.metallicities == METALS
    assert made.flux.shape == made.alpha.shape == made.iron.shape == (9, REST.size)
    # Metallicity runs fastest: row 4 is 1 Gyr, solar, of slope 0.
    near = (REST.wavelength > 5600) & (REST.wavelength < 7000)
    np.testing.assert_allclose(made.flux[4, near], 1, atol=1e-3)
    line = int(np.argmin(made.flux[4, (REST.wavelength > 5100) & (REST.wavelength < 5250)]))
    centre = REST.wavelength[REST.wavelength > 5100][line]
    assert centre == pytest.approx(float(air_to_vacuum(5175.0)), abs=0.4)


def test_the_medium_of_the_files_is_stated(folder: Path) -> None:
    air, vacuum = (library(str(folder / "*.fits"), medium) for medium in ("air", "vacuum"))

    near = (REST.wavelength > 5100) & (REST.wavelength < 5250)
    at = [REST.wavelength[near][np.argmin(one.flux[4, near])] for one in (air, vacuum)]
    assert at[0] - at[1] == pytest.approx(1.44, abs=0.6)


def test_one_table_is_the_same_library(folder: Path, tmp_path: Path) -> None:
    rows = [(age, metal, AIR, spectrum(age, metal)) for metal in METALS[::-1] for age in AGES]
    names = ("AGE", "METALLICITY", "WAVELENGTH", "FLUX")
    Table(rows=rows, names=names).write(tmp_path / "table.fit")

    table = library(str(tmp_path / "table.fit"), "air")

    files = library(str(folder / "*.fits"), "air")
    assert (table.ages, table.metallicities) == (files.ages, files.metallicities)
    np.testing.assert_allclose(table.flux, files.flux, atol=1e-5)


def test_the_analytic_templates_carry_on_beyond_the_library(folder: Path) -> None:
    made = library(str(folder / "*.fits"), "air")
    beyond = REST.wavelength < 3480

    like = analytic().weights(np.array([10.0]), np.array([0.0]))[0] @ analytic().flux
    ratio = made.flux[7, beyond] / like[beyond]
    assert np.ptp(ratio) / ratio.mean() < 1e-4
    assert np.isfinite(made.flux).all()
    assert (made.flux > 0).all()


def test_galaxies_are_made_of_them(folder: Path) -> None:
    mock = build(templates=str(folder / "*.fits"), emission=False, wiggle=0.0, galactic=0.0)
    plain = build(emission=False, wiggle=0.0, galactic=0.0)

    truth, other = (m.truth(20, SDSS, 1, "user") for m in (mock, plain))

    np.testing.assert_array_equal(truth["age"], other["age"])
    # No Balmer line, no sodium: nothing but slopes redward of the one line.
    for row in range(20):
        z = float(truth["z"][row])
        near = np.abs(SDSS.wavelength / (6564.6 * (1 + z)) - 1) < 0.004
        flux = truth["flux"][row].to_numpy()[near]
        smooth = np.polyval(np.polyfit(np.arange(near.sum()), flux, 2), np.arange(near.sum()))
        assert np.abs(flux / smooth - 1).max() < 5e-3


@pytest.mark.parametrize(
    ("name", "message"),
    [("spectrum.fits", "expected a spectrum named like MILES's"), ("none/*.fits", "no such file")],
)
def test_files_that_are_not_templates_are_refused(tmp_path: Path, name: str, message: str) -> None:
    fits.PrimaryHDU(np.ones(6500)).writeto(tmp_path / "spectrum.fits")

    with pytest.raises(ValueError, match=message):
        library(str(tmp_path / name), "air")


def test_a_table_without_ages_is_refused(tmp_path: Path) -> None:
    Table({"wavelength": AIR, "flux": AIR}).write(tmp_path / "table.fits")

    with pytest.raises(ValueError, match="the table lacks age, metallicity"):
        library(str(tmp_path / "table.fits"), "air")


def test_a_missing_template_is_named(folder: Path) -> None:
    (folder / "Iun1.30Zp0.00T01.0000.fits").unlink()

    with pytest.raises(ValueError, match=r"age 1 Gyr, \[Z/H\] 0 has 0"):
        library(str(folder / "*.fits"), "air")


def test_too_short_a_library_is_refused(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.ones(100))
    hdu.header.update(CRVAL1=4000.0, CDELT1=1.0)
    for name in ("Zm0.40T01.0000", "Zm0.40T02.0000", "Zp0.00T01.0000", "Zp0.00T02.0000"):
        hdu.writeto(tmp_path / f"{name}.fits")

    with pytest.raises(ValueError, match="at least 5000-6500 A must be there"):
        library(str(tmp_path / "*.fits"), "air")


def test_indices_of_a_real_library_rise_with_age_and_metallicity(survey_data: Path) -> None:
    made = library(str(survey_data / "ssp_miuscat" / "*.fits"), "air")

    dn4000 = (mean(made, 4000, 4100) / mean(made, 3850, 3950)).reshape(len(made.ages), -1)
    sides = (mean(made, 5142.6, 5161.4) + mean(made, 5191.4, 5206.4)) / 2
    mgb = (1 - mean(made, 5160.1, 5192.6) / sides).reshape(len(made.ages), -1)

    assert made.flux.shape[0] == 72
    old = np.array(made.ages) > 0.4
    assert (np.diff(dn4000[old][:, 2:], axis=0) > -0.01).all()
    assert (np.diff(dn4000[-1]) > 0).all()
    assert (np.diff(mgb[-1]) > 0).all()
    assert (mgb[-1] > mgb[0]).all()


def mean(made: Templates, low: float, high: float) -> NDArray[np.float64]:
    """Mean of every template over a band given in air."""
    low, high = float(air_to_vacuum(low)), float(air_to_vacuum(high))
    inside = (REST.wavelength > low) & (REST.wavelength < high)
    return np.asarray(made.flux[:, inside].mean(axis=1), dtype=float)
