"""Templates from the ASCII files of GALAXEV (Bruzual & Charlot 2003), written here as it does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.grid import Grid, air_to_vacuum
from storage.mocks.galaxy import build
from storage.simulation import galaxev
from storage.simulation.template_files import library
from storage.simulation.templates import REST

Array = NDArray[np.float64]
# As in the library: 1 A in the optical, coarse and far-reaching beside it.
WAVELENGTH = np.concatenate(
    [[91.0], np.arange(1000.0, 3200, 20), np.arange(3200.0, 9501), np.geomspace(9520, 1.6e6, 300)]
)
YEARS = (0.0, 1e8, 1e9, 1e10)
METALS = {"42": 0.004, "62": 0.02, "72": 0.05}


def spectrum(years: float, metal: float) -> Array:
    """A slope by age, and one absorption line at 5175 A (air) by metallicity; Lsun/A."""
    line = (0.4 + 0.2 * np.log10(metal / 0.02)) * np.exp(-0.5 * ((WAVELENGTH - 5175) / 5) ** 2)
    slope = 0.5 * (np.log10(max(years, 1e5)) - 9)
    return np.asarray(1e-4 * (WAVELENGTH / 5500) ** slope * (1 - line))


def wrapped(values: Array) -> str:
    """A record as Fortran breaks it: the count, then numbers, some to a line."""
    words = [str(len(values)), *(f"{value:.7E}" for value in values)]
    return "\n".join("  ".join(words[k : k + 6]) for k in range(0, len(words), 6))


def ised(metal: float, years: tuple[float, ...] = YEARS, said: str = "Z=0.02") -> str:
    """A library of one metallicity; a short record follows every spectrum."""
    head = ["0.1000000E+00  0.1000000E+03  1", "F  0", *[f"Padova 1994, Chabrier IMF, {said},"] * 3]
    short = np.arange(7.0)
    spectra = [wrapped(each) for age in years for each in (spectrum(age, metal), short)]
    last = wrapped(np.ones(len(years)))
    whole = [wrapped(np.array(years)), *head, wrapped(WAVELENGTH), *spectra, last]
    return "\n".join(whole) + "\n"


def extracted(metal: str, ages: str = "# Lambda(A) ") -> str:
    """What galaxevpl takes out of one."""
    years = YEARS[1:]
    columns = np.column_stack([WAVELENGTH, *(spectrum(age, METALS[metal]) for age in years)])
    rows = ("".join(f"{value:14.6E}" for value in row) for row in columns)
    head = (
        f"# Input file name  = /models/bc2003_hr_m{metal}_chab_ssp.ised",
        "# Record           1           2           3",
        "# SED(Lo/A)       at          at          at",
        ages + "".join(f"{age:12.3E}" for age in years),
    )
    return "\n".join([*head, *rows]) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, metal in METALS.items():
        (tmp_path / f"bc2003_hr_m{name}_chab_ssp.ised_ASCII").write_text(ised(metal))
    return tmp_path


def test_libraries_of_several_metallicities_become_templates(folder: Path) -> None:
    made = library(str(folder / "*.ised_ASCII"), "air")

    assert made.ages == (0.1, 1.0, 10.0)
    np.testing.assert_allclose(made.metallicities, np.log10([0.2, 1.0, 2.5]))
    # Metallicity runs fastest: row 4 is 1 Gyr, solar, of slope 0.
    near = (REST.wavelength > 5600) & (REST.wavelength < 7000)
    np.testing.assert_allclose(made.flux[4, near], 1, atol=1e-3)
    slope = np.log(made.flux[7, near][-1] / made.flux[7, near][0])
    expected = 0.5 * np.log(REST.wavelength[near][-1] / REST.wavelength[near][0])
    assert slope == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("medium", "centre"), [("air", 5176.44), ("vacuum", 5175.0)])
def test_wavelengths_are_in_the_medium_that_is_stated(
    folder: Path, medium: str, centre: float
) -> None:
    assert float(air_to_vacuum(5175.0)) == pytest.approx(5176.44, abs=0.01)

    made = library(str(folder / "*.ised_ASCII"), medium)

    near = (REST.wavelength > 5100) & (REST.wavelength < 5250)
    depth = 1 - made.flux[4, near] / made.flux[4, near].max()
    found = (depth * REST.wavelength[near]).sum() / depth.sum()
    assert found == pytest.approx(centre, abs=0.05)


def test_what_galaxevpl_extracts_is_the_same_library(folder: Path) -> None:
    for name in METALS:
        (folder / f"solo-{name}.spec").write_text(extracted(name))

    columns = library(str(folder / "*.spec"), "air")

    whole = library(str(folder / "*.ised_ASCII"), "air")
    assert (columns.ages, columns.metallicities) == (whole.ages, whole.metallicities)
    np.testing.assert_allclose(columns.flux, whole.flux, rtol=1e-4)


def test_an_older_galaxevpl_heads_its_columns_with_age(tmp_path: Path) -> None:
    (tmp_path / "one.spec").write_text(extracted("62", "# Age (yr) "))

    assert [one[0] for one in galaxev.read(str(tmp_path / "one.spec"))] == [0.1, 1.0, 10.0]


def test_ages_may_follow_the_header(tmp_path: Path) -> None:
    records = [np.array(YEARS), WAVELENGTH, *(spectrum(age, 0.02) for age in YEARS)]
    text = "\n".join(["# The first record has ages", *map(wrapped, records)])
    (tmp_path / "x_m62_y.ised_ASCII").write_text(text)

    assert [one[0] for one in galaxev.read(str(tmp_path / "x_m62_y.ised_ASCII"))] == [0.1, 1, 10]


@pytest.mark.parametrize(
    ("name", "metal"),
    [
        ("bc2003_hr_m22_chab_ssp", 1e-4),
        ("bc2003_z0004_chab_hr_stelib_ssp", 4e-4),
        ("bc2003_z020_chab_hr_xmilesi_ssp", 0.02),
        ("mine", 0.008),
    ],
)
def test_the_metallicity_is_of_the_name_or_of_the_header(
    tmp_path: Path, name: str, metal: float
) -> None:
    (tmp_path / f"{name}.ised_ASCII").write_text(ised(0.02, said="Z=0.008"))

    found = galaxev.read(str(tmp_path / f"{name}.ised_ASCII"))

    np.testing.assert_allclose([one[1] for one in found], np.log10(metal / 0.02), atol=1e-9)


def test_of_many_ages_one_every_tenth_of_a_dex_is_kept(tmp_path: Path) -> None:
    years = (0.0, *np.geomspace(1e5, 2e10, 107))
    (tmp_path / "x_m62_y.ised_ASCII").write_text(ised(0.02, years))

    ages = np.array([one[0] for one in galaxev.read(str(tmp_path / "x_m62_y.ised_ASCII"))])

    assert len(ages) == 44
    assert ages[0] == pytest.approx(1e-3, rel=0.06)
    assert ages[-1] == pytest.approx(20.0)
    assert np.abs(np.diff(np.log10(ages)) - 0.1).max() < 0.06


def test_galaxies_are_made_of_them(folder: Path) -> None:
    grid = Grid(kind="log", start=3.7, step=1e-4, size=1500)

    truth = build(templates=str(folder / "*.ised_ASCII"), emission=False).truth(4, grid, 1, "bc")

    assert np.isfinite(truth["flux"]).all()
    assert (truth["flux"] > 0).all()


def coarse(text: str) -> str:
    keep = np.arange(91.0, 12000.0, 20.0)
    records = [np.array(YEARS), keep, *[np.ones(keep.size)] * 4]
    return "\n".join(["# low resolution", *map(wrapped, records)])


def short_of_optical(text: str) -> str:
    keep = np.arange(6000.0, 9000.0)
    records = [np.array(YEARS), keep, *[np.ones(keep.size)] * 4]
    return "\n".join(["# red", *map(wrapped, records)])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[: len(text) // 2], r"4 ages but 1 spectra of \d+ pixels; .* cut short"),
        (lambda text: text.replace("\n7  ", "\n7.5  ", 1), r"7\.5 where a count of numbers"),
        (lambda text: "1 2 3\n", r"no header beside ages and wavelengths"),
        (lambda text: "# nothing\n", r"expected ages, a header and wavelengths"),
        (lambda text: text.replace("5.1000000E+03", "5.2000000E+03"), r"wavelengths do not ascend"),
        (coarse, r"pixels of 20 A at 5000 A hold no lines; .*_hr_"),
        (short_of_optical, r"no spectrum at 4900-5600 A"),
    ],
)  # fmt: skip
def test_a_library_that_is_spoilt_says_how(
    tmp_path: Path, spoil: Callable[[str], str], words: str
) -> None:
    path = tmp_path / "bc2003_hr_m62_chab_ssp.ised_ASCII"
    path.write_text(spoil(ised(0.02)))

    with pytest.raises(ValueError, match=words):
        library(str(path), "air")


def test_a_negative_flux_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x_m62_y.spec"
    path.write_text(extracted("62").replace("  9.", " -9.", 5))

    with pytest.raises(ValueError, match=r"a flux is negative or no number"):
        galaxev.read(str(path))


def test_a_library_without_metallicity_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.ised_ASCII").write_text(ised(0.02, said="solar"))

    with pytest.raises(ValueError, match=r"neither its name \(\.\.\._m62_\.\.\. .* nor its header"):
        galaxev.read(str(tmp_path / "mine.ised_ASCII"))


def test_columns_without_ages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a_m62_.spec").write_text(extracted("62", "# nothing "))

    with pytest.raises(ValueError, match=r"no line such as .* with 3 ages \(yr\) above its 3 col"):
        galaxev.read(str(tmp_path / "a_m62_.spec"))
