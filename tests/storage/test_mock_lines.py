"""Emission lines as strong, and as strong together, as those of DESI's star-forming galaxies."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from storage.grid import Grid
from storage.mocks.galaxy import build
from storage.simulation import line_statistics

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
COARSE = Grid(kind="log", start=3.57, step=1e-2, size=40)
LINES = {
    "OII_DOUBLET": ("oii3726", "oii3729"),
    "HGAMMA": ("hgamma",),
    "HBETA": ("hbeta",),
    "OIII_5007": ("oiii5007",),
    "HALPHA": ("halpha",),
    "NII_6584": ("nii6584",),
    "SII_6716": ("sii6716",),
    "SII_6731": ("sii6731",),
}
REST = {"OII_DOUBLET": 3728.5, "HGAMMA": 4341.7, "HBETA": 4862.7, "OIII_5007": 5008.2}
REST |= {"HALPHA": 6564.6, "NII_6584": 6585.3, "SII_6716": 6718.3, "SII_6731": 6732.7}


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return build(lines="desi", outliers=0.0).truth(2048, COARSE, 1, "lines")


def forming(truth: xr.Dataset) -> xr.Dataset:
    return truth.isel(spectrum=np.flatnonzero(truth["population"] == 1))


def test_metallicity_is_what_the_lines_of_star_forming_galaxies_mean() -> None:
    bare = build(lines="desi", dust=0.0, outliers=0.0).truth(512, COARSE, 1, "oh")
    rows = forming(bare)
    o3n2 = np.log10(
        (rows["flux_oiii5007"] / rows["flux_hbeta"]) / (rows["flux_nii6584"] / rows["flux_halpha"])
    )

    # Pettini & Pagel (2004), equation 3, within the range that the mock keeps.
    expected = np.clip(8.73 - 0.32 * o3n2, 8.0, 9.0)

    np.testing.assert_allclose(rows["oh"], expected, atol=1e-4)


def test_mass_and_young_light_still_tell_of_the_gas(truth: xr.Dataset) -> None:
    rows = forming(truth)

    assert np.corrcoef(rows["logmass"], rows["oh"])[0, 1] > 0.25
    assert np.corrcoef(np.log10(rows["light_young"]), np.log10(rows["ew_halpha"]))[0, 1] > 0.7


def test_oxygen_and_nitrogen_go_against_each_other(truth: xr.Dataset) -> None:
    rows = forming(truth)
    n2 = np.log10(rows["flux_nii6584"] / rows["flux_halpha"])
    o3 = np.log10(rows["flux_oiii5007"] / rows["flux_hbeta"])

    assert np.corrcoef(n2, o3)[0, 1] == pytest.approx(-0.866, abs=0.04)
    assert np.log10(rows["ew_halpha"]).std() == pytest.approx(0.27, abs=0.02)


def test_other_kinds_of_galaxies_are_left_as_they_were(truth: xr.Dataset) -> None:
    plain = build(outliers=0.0).truth(2048, COARSE, 1, "lines")
    rest = np.flatnonzero(truth["population"] != 1)

    for name in ("logmass", "logsfr", "z", "age", "oh"):
        np.testing.assert_array_equal(truth[name][rest], plain[name][rest])


def test_joint_strengths_follow_what_they_are_given() -> None:
    rng = np.random.default_rng(1)
    young, metal = rng.standard_normal((2, 20000))

    drawn = line_statistics.draw(rng, young, metal)

    expected = [[1, -0.455, 0.462], [-0.455, 1, -0.866], [0.462, -0.866, 1]]
    np.testing.assert_allclose(np.corrcoef(np.stack(drawn)[:3]), expected, atol=0.02)
    assert np.corrcoef(young, drawn.ew_halpha)[0, 1] == pytest.approx(0.8, abs=0.02)


def equivalent_widths(**options: str) -> tuple[NDArray[np.float64], xr.Dataset]:
    """Rest EWs of `LINES` in 3000 galaxies, over the continuum on both sides of each."""
    kinds = {"galactic": 0.0, "outliers": 0.0, "z": (0.06, 0.2), **options}
    shining = build(**kinds).truth(3000, SDSS, 1, "ew")
    dark = build(**kinds, emission=False).truth(3000, SDSS, 1, "ew")["flux"].to_numpy()
    z, rows = shining["z"].to_numpy(), np.arange(3000)
    widths = []
    for name, lines in LINES.items():
        sides = (REST[name] + np.array([-25, -20, -15, 15, 20, 25])[:, None]) * (1 + z)
        continuum = dark[rows, np.rint(SDSS.pixel(sides)).astype(int)].mean(axis=0)
        flux = sum(shining[f"flux_{line}"].to_numpy() for line in lines)
        widths.append(flux / continuum / (1 + z))
    return np.stack(widths, axis=1), shining


@pytest.mark.slow
def test_equivalent_widths_are_those_of_desi(survey_data: Path) -> None:
    """The mock, with the errors of the data and through the same cuts."""
    table = np.load(survey_data / "desi_line_ew" / "ew.npz")
    real = np.stack([table[f"ew_{name}"] for name in LINES], axis=1).astype(float)
    ivar = np.stack([table[f"ivar_{name}"] for name in LINES], axis=1).astype(float)
    rng = np.random.default_rng(1)
    expected = np.log10(real[chosen(real, ivar)])

    apart = {}
    for kind in ("relations", "desi"):
        made, truth = equivalent_widths(lines=kind)
        its = ivar[rng.integers(0, len(ivar), len(made))]
        made = np.maximum(made + rng.standard_normal(made.shape) / np.sqrt(its), 1e-3)
        kept = chosen(made, its) & (truth["population"] == 1).to_numpy()
        actual = np.log10(made[kept])
        apart[kind] = np.abs(np.median(actual, axis=0) - np.median(expected, axis=0))
        if kind == "desi":
            np.testing.assert_allclose(actual.std(axis=0), expected.std(axis=0), atol=0.12)

    assert apart["desi"].max() < 0.06
    assert apart["relations"].max() > 0.2


def chosen(width: NDArray[np.float64], ivar: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Well measured, and below the line of Kauffmann et al. (2003)."""
    at = {name: k for k, name in enumerate(LINES)}
    snr = width * np.sqrt(ivar)
    good = (snr[:, at["HALPHA"]] > 5) & (snr[:, at["HBETA"]] > 5) & (snr[:, at["NII_6584"]] > 3)
    good &= (width > 2e-3).all(axis=1)
    logs = np.log10(np.maximum(width, 1e-3))
    n2 = np.minimum(logs[:, at["NII_6584"]] - logs[:, at["HALPHA"]], 0.04)
    o3 = logs[:, at["OIII_5007"]] - logs[:, at["HBETA"]]
    return np.asarray(good & (n2 < 0.04) & (o3 < 0.61 / (n2 - 0.05) + 1.3))
