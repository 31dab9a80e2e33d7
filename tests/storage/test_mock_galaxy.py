"""The galaxy mock against analysis, published relations and other packages."""

import tomllib
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import xarray as xr
from dust_extinction.parameter_averages import F99
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from storage.grid import Grid, air_to_vacuum
from storage.mock import generator
from storage.mocks.galaxy import Galaxy, build
from storage.simulation import nebula, synthesis, templates
from storage.simulation.instrument import load
from storage.simulation.population import Population

Array = NDArray[np.float64]
SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
CARD = Path(__file__).parents[2] / "deploy" / "cards" / "mocks" / "mock-v1.toml"
SEEN = (load("sdss"), templates.analytic())
EVEN = {"outliers": 0.0, "galactic": 0.0}


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return build().truth(1024, SDSS, seed=1, stream="survey")


def mean_over(edges: Array, flux: Array, low: float, high: float) -> Array:
    """Mean over low-high A, pixels cut exactly where the band ends; the slow, obvious way."""
    widths = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
    return np.asarray(flux @ widths / (high - low))


def dn4000(grid: Grid, flux: Array, z: float) -> float:
    bands = [air_to_vacuum(band) * (1 + z) for band in ((3850, 3950), (4000, 4100))]
    blue, red = (mean_over(grid.edges, flux * grid.wavelength**2, *band) for band in bands)
    return float(red / blue)


def mgb(grid: Grid, flux: Array, z: float) -> float:
    bands = ((5142.625, 5161.375), (5160.125, 5192.625), (5191.375, 5206.375))
    blue, feature, red = (air_to_vacuum(band) * (1 + z) for band in bands)
    ends = [mean_over(grid.edges, flux, *band) for band in (blue, red)]
    continuum = np.interp(grid.wavelength, [blue.mean(), red.mean()], ends)
    depth = mean_over(grid.edges, 1 - flux / continuum, *feature)
    return float(depth * np.diff(feature)[0] / (1 + z))


def test_indices_cover_the_range_of_real_galaxies(truth: xr.Dataset) -> None:
    rows = truth.isel(spectrum=slice(400))
    flux, z = rows["flux"].to_numpy().astype(float), rows["z"].to_numpy()

    breaks = np.percentile(list(map(dn4000, [SDSS] * 400, flux, z)), [5, 50, 95])
    magnesium = np.percentile(list(map(mgb, [SDSS] * 400, flux, z)), [5, 50, 95])

    np.testing.assert_allclose(breaks, [1.18, 1.64, 1.98], atol=0.08)
    np.testing.assert_allclose(magnesium, [1.29, 3.06, 4.73], atol=0.6)


def test_old_templates_have_a_large_break_and_young_ones_none() -> None:
    solar = templates.analytic().flux.reshape(9, 6, -1)[:, 3].astype(float)

    course = [dn4000(templates.REST, flux, 0.0) for flux in solar]

    assert np.all(np.diff(course) > 0)
    np.testing.assert_allclose([course[0], course[-1]], [0.97, 1.98], atol=0.03)


def test_template_weights_share_all_the_light() -> None:
    age, metal = np.array([0.001, 0.5, 14.0, 20.0]), np.array([-3.0, 0.0, 0.1, 1.0])

    shares = templates.analytic().weights(age, metal)

    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares[3, -1] == 1


def test_broad_band_flux_is_the_same_on_two_grids(truth: xr.Dataset) -> None:
    linear = Grid(kind="linear", start=3600.0, step=1.3, size=4600)
    other = build().truth(50, linear, seed=1, stream="survey")["flux"].to_numpy()
    log = truth["flux"].to_numpy()[:50]

    for band in ((4000, 5400), (5600, 6900), (7000, 8000)):
        expected = mean_over(SDSS.edges, log.astype(float), *band)
        np.testing.assert_allclose(mean_over(linear.edges, other, *band), expected, rtol=1e-3)


def test_a_line_holds_its_flux_and_sits_where_the_gas_is() -> None:
    shining, dark = (
        build(**EVEN, emission=on).truth(64, SDSS, seed=2, stream="line") for on in (True, False)
    )
    lines = (shining["flux"] - dark["flux"]).to_numpy().astype(float)

    for row in range(64):
        here = shining.isel(spectrum=row)
        centre = nebula.LINES["oiii5007"] * (1 + float(here["z"]))
        near = np.abs(SDSS.wavelength / centre - 1) < 0.0045
        flux, wavelength = (lines[row] * SDSS.widths)[near], SDSS.wavelength[near]
        mean = (flux * wavelength).sum() / flux.sum()
        width = np.sqrt((flux * (wavelength - mean) ** 2).sum() / flux.sum()) / mean * 299792.458
        expected = np.hypot(float(here["sigma_gas"]), load("sdss").lsf_kms(np.array(mean)))
        assert flux.sum() == pytest.approx(float(here["flux_oiii5007"]), rel=5e-3, abs=0.02)
        if flux.sum() > 5 and expected < 250:
            velocity = (mean / centre - 1) * 299792.458
            assert velocity == pytest.approx(float(here["velocity_gas"]), abs=3)
            # A pixel of 69 km/s adds its own 69 / sqrt(12) to the width.
            assert width == pytest.approx(np.hypot(expected, 69.03 / 12**0.5), rel=0.02)


def test_halpha_has_its_equivalent_width() -> None:
    still = {"gas_scatter": 0.0, "velocity": 0.0, "wiggle": 0.0}
    made = build(**EVEN, **still).truth(64, SDSS, seed=2, stream="line")
    strong = made.isel(spectrum=np.flatnonzero(made["ew_halpha"] > 20))

    side = [
        np.interp(6625 * (1 + z), SDSS.wavelength, flux)
        for z, flux in zip(strong["z"].to_numpy(), strong["flux"].to_numpy(), strict=True)
    ]

    width = strong["flux_halpha"] / np.array(side) / (1 + strong["z"])
    np.testing.assert_allclose(width, strong["ew_halpha"], rtol=0.04)


def test_balmer_decrement_is_case_b_without_dust_and_larger_with_it(truth: xr.Dataset) -> None:
    bare = build(dust=0.0, outliers=0.0).truth(300, SDSS, seed=1, stream="survey")

    np.testing.assert_allclose(bare["flux_halpha"] / bare["flux_hbeta"], 2.86, rtol=1e-5)
    assert (truth["flux_halpha"] / truth["flux_hbeta"] >= 2.86 * (1 - 1e-5)).all()


def test_star_forming_galaxies_give_their_metallicity_back() -> None:
    bare = build(dust=0.0, outliers=0.0).truth(512, SDSS, seed=1, stream="survey")
    forming = bare.isel(spectrum=np.flatnonzero(bare["population"] == 1))
    oiii, nii = forming["flux_oiii5007"], forming["flux_nii6584"]
    o3n2 = np.log10((oiii / forming["flux_hbeta"]) / (nii / forming["flux_halpha"]))

    # Pettini & Pagel (2004), equation 3.
    departure = 8.73 - 0.32 * np.asarray(o3n2) - forming["oh"].to_numpy()

    assert abs(departure.mean()) < 0.01
    assert 0.02 < departure.std() < 0.05


def test_dispersion_is_a_gaussian_in_log_wavelength() -> None:
    draw = Population(emission=False).draw(generator(1, "dispersion"))
    sharp, wide = (
        synthesis.flux({**draw, "sigma_v": np.full(256, kms)}, SDSS, *SEEN)[0]
        for kms in (60.0, 300.0)
    )

    pixels = np.sqrt(300.0**2 - 60.0**2) / (np.log(10) * 1e-4 * 299792.458)
    expected = gaussian_filter1d(sharp.astype(float), pixels, axis=1, truncate=6)

    inner = slice(100, -100)
    np.testing.assert_allclose(wide[:, inner], expected[:, inner], rtol=4e-3)


def test_stars_move_with_redshift() -> None:
    draw = Population(emission=False, wiggle=0.0, galactic=0.0).draw(generator(1, "redshift"))
    # 30 pixels of the survey exactly; the line spread in pixels is the same to 1 %.
    z = 1.1 * 10 ** (30e-4) - 1
    near, far = (synthesis.flux({**draw, "z": np.full(256, v)}, SDSS, *SEEN)[0] for v in (0.1, z))

    np.testing.assert_allclose(far[:, 2530:3530], near[:, 2500:3500], rtol=5e-3)


def test_galactic_dust_is_that_of_fitzpatrick() -> None:
    clear, dusty = (
        build(galactic=g, outliers=0.0).truth(8, SDSS, seed=1, stream="dust") for g in (0.0, 0.03)
    )
    curve = F99(Rv=3.1)

    for row in range(8):
        ebv = float(dusty["ebv"][row])
        expected = curve.extinguish(SDSS.wavelength * u.AA, Ebv=ebv)
        actual = (dusty["flux"][row] / clear["flux"][row]).to_numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_objects_are_far_apart(truth: xr.Dataset) -> None:
    ra, dec = np.radians(truth["ra"]), np.radians(truth["dec"])
    where = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)

    nearest = np.degrees(cKDTree(where).query(where, k=2)[0][:, 1]) * 3600

    assert nearest.min() > 600


def test_kinds_come_in_their_shares_and_differ(truth: xr.Dataset) -> None:
    kind = truth["population"].to_numpy()
    age = [np.median(truth["age"].to_numpy()[kind == k]) for k in range(3)]

    np.testing.assert_allclose(np.bincount(kind) / kind.size, [0.42, 0.43, 0.15], atol=0.05)
    assert age[0] > age[2] > age[1]
    assert np.corrcoef(truth["logmass"], truth["oh"])[0, 1] > 0.5
    assert np.corrcoef(truth["logmass"], truth["z"])[0, 1] > 0.5


def test_outliers_are_broad_or_red() -> None:
    odd = build(outliers=1.0).truth(256, SDSS, seed=1, stream="odd")
    broad, red = (odd["outlier"] == 1).to_numpy(), (odd["outlier"] == 2).to_numpy()

    assert (broad | red).all()
    assert (odd["sigma_broad"].to_numpy()[broad] > 1000).all()
    assert (odd["ebv_internal"].to_numpy()[red] > 0.5).all()


def components(percent: float, **options: Any) -> int:
    """Linear components that hold a share of the noiseless variance, at rest, normalised."""
    z = 0.05
    grid = Grid(kind="linear", start=3700 * (1 + z), step=2 * (1 + z), size=1900)
    flux = build(z=(z, z), galactic=0.0, **options).truth(768, grid, 1, "rank")["flux"].to_numpy()
    rest = grid.wavelength / (1 + z)
    flux = flux / flux[:, (rest > 6000) & (rest < 6500)].mean(axis=1, keepdims=True)
    power = np.linalg.svd(flux - flux.mean(axis=0), compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(power) / power.sum(), percent / 100)) + 1


@pytest.mark.slow
def test_it_takes_more_than_a_handful_of_linear_components() -> None:
    still = {"sigma_v": (180.0, 180.0), "gas_scatter": 0.0, "velocity": 0.0, "outliers": 0.0}

    assert components(99) > 7
    assert components(99.9) > 18
    assert components(99.9, **still) < 0.7 * components(99.9)


def test_the_frozen_card_is_what_an_option_left_out_means() -> None:
    card = tomllib.loads(CARD.read_text())

    assert card.pop("mock") == "galaxy"
    assert set(card) <= set(Galaxy.model_fields)
    assert build(**card) == build()


@pytest.mark.parametrize("path", sorted(CARD.parent.glob("*.toml")), ids=lambda path: path.stem)
def test_the_other_cards_write_out_every_option(path: Path) -> None:
    card = tomllib.loads(path.read_text())

    if card.pop("mock") == "galaxy" and path != CARD:
        assert set(card) == set(Galaxy.model_fields)
        build(**card)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 3}, "Extra inputs are not permitted"),
        ({"z": (0.2, 0.1)}, "the first is the lower end"),
        ({"z": (0.1, 0.6)}, "the mock reaches z = 0.25"),
        ({"shares": (0, 0, 0)}, "at least one kind"),
        ({"outliers": 1.5}, "less than or equal to 1"),
        (
            {"instrument": "desy"},
            "'desy': there are desi, sdss, sdss-legacy, weave",
        ),
        ({"noise": "poisson"}, "'gaussian' or 'laplace'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build(**options)


def test_a_grid_beyond_the_templates_is_refused() -> None:
    infrared = Grid(kind="linear", start=9000.0, step=1.0, size=4000)

    with pytest.raises(ValueError, match="take a grid within it"):
        build().truth(1, infrared, seed=1, stream="far")


def test_grids_made_twice_are_one_grid(truth: xr.Dataset) -> None:
    again = Grid(kind="log", start=3.55, step=1e-4, size=4700)
    np.testing.assert_array_equal(again.wavelength, SDSS.wavelength)

    assert again == SDSS
    assert len({again, SDSS}) == 1
    assert again != Grid(kind="log", start=3.56, step=1e-4, size=4700)
