"""Spectrographs of the mocks: the same objects through several of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from pydantic import ValidationError

from storage import schema
from storage.grid import Grid
from storage.mocks.galaxy import Galaxy, build
from storage.simulation.instrument import Instrument, load
from storage.simulation.noise import variance

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
DESI = Grid(kind="linear", start=3600.0, step=0.8, size=7781)
BLUE = Grid(kind="linear", start=3660.0, step=0.25, size=9601)
RED = Grid(kind="linear", start=5790.0, step=0.25, size=15201)
CLEAN = {"calibration": 0.0, "bad_blue": 0.0, "cosmics": 0.0, "gaps": 0.0, "wrong_z": 0.0}
EACH = {"sdss": (SDSS,), "desi": (DESI,), "weave-lr": (BLUE, RED)}
RANGE = (3600.0, 9824.1)


def through(instrument: str, **options: Any) -> Galaxy:
    return build(instrument=instrument, coverage=RANGE, **CLEAN, **options)


def mean_over(grid: Grid, flux: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    widths = np.clip(np.minimum(grid.edges[1:], high) - np.maximum(grid.edges[:-1], low), 0, None)
    return np.asarray(flux.astype(float) @ widths / (high - low))


@pytest.fixture(scope="module")
def seen() -> dict[tuple[str, Grid], tuple[xr.Dataset, xr.Dataset]]:
    """Truth and exposure of the same 40 galaxies, through every spectrograph."""
    both = {}
    for name, grids in EACH.items():
        for grid in grids:
            truth = through(name).truth(40, grid, 1, "same")
            both[name, grid] = truth, through(name).observe(truth, grid, 1, "same", (7.0, 7.0))
    return both


def test_objects_are_the_same_through_every_spectrograph(seen: dict[Any, Any]) -> None:
    first, _ = seen["sdss", SDSS]
    parameters = [n for n in first if n != "flux" and not str(n).startswith("flux_")]

    for truth, _ in seen.values():
        for name in parameters:
            np.testing.assert_array_equal(truth[name], first[name])


def test_spectra_agree_where_two_spectrographs_see(seen: dict[Any, Any]) -> None:
    for (_, grid), (truth, _) in seen.items():
        for band in ((4000, 4500), (5800, 6050), (6500, 7500), (8000, 8800)):
            if grid.edges[0] < band[0] and grid.edges[-1] > band[1]:
                expected = mean_over(SDSS, seen["sdss", SDSS][0]["flux"].to_numpy(), *band)
                actual = mean_over(grid, truth["flux"].to_numpy(), *band)
                np.testing.assert_allclose(actual, expected, rtol=2e-3)


def test_noise_is_what_ivar_says_through_each(seen: dict[Any, Any]) -> None:
    for (name, _), (truth, observed) in seen.items():
        good = (schema.check(observed)["ivar"] > 0).to_numpy()
        noise = ((observed["flux"] - truth["flux"]) * np.sqrt(observed["ivar"])).to_numpy()[good]
        assert noise.std() == pytest.approx(1, abs=0.01), name


@pytest.mark.parametrize(("name", "grid"), [("desi", DESI), ("weave-lr", BLUE)])
def test_signal_to_noise_in_g_is_as_asked(seen: dict[Any, Any], name: str, grid: Grid) -> None:
    _, observed = seen[name, grid]

    np.testing.assert_allclose(observed["snr_g"], 7.0, rtol=0.03)


def test_a_red_arm_has_no_snr_in_g(seen: dict[Any, Any]) -> None:
    _, observed = seen["weave-lr", RED]

    assert np.isnan(observed["snr_g"]).all()
    assert (observed["snr_r"] > 3).all()


def test_arms_in_files_of_their_own_share_one_exposure(seen: dict[Any, Any]) -> None:
    """Photons alone: with no sky and no read-out, ivar x flux is electrons per unit and flux."""
    arms = load("weave-lr").model_dump()
    for arm in arms["arms"]:
        arm["read_variance"] = 0.0
    arms["sky"] = {"continuum": ((3000, 0), (11000, 0)), "lines": ((5578.9, 0),)}
    dark = build(instrument=arms, coverage=RANGE, **CLEAN)
    electrons = []
    for grid, number in ((BLUE, 0), (RED, 1)):
        truth = dark.truth(10, grid, 1, "same")
        observed = dark.observe(truth, grid, 1, "same", (7.0, 7.0))
        arm = load("weave-lr").arms[number]
        inside = (grid.wavelength > 5850) & (grid.wavelength < 6000)
        seen_here = arm.detected(grid.wavelength) * grid.wavelength
        kept = (observed["ivar"] * truth["flux"]).to_numpy() / seen_here
        electrons.append(kept[:, inside].mean(axis=1))

    np.testing.assert_allclose(electrons[0], electrons[1], rtol=2e-3)


def test_arms_in_files_of_their_own_share_no_noise_but_the_catalogue(seen: dict[Any, Any]) -> None:
    part = (BLUE.wavelength >= RED.wavelength[0], RED.wavelength <= BLUE.wavelength[-1])
    noise = []
    for grid, overlap in zip((BLUE, RED), part, strict=True):
        truth, observed = seen["weave-lr", grid]
        deviation = (observed["flux"] - truth["flux"]) * np.sqrt(observed["ivar"])
        noise.append(deviation.to_numpy()[:, overlap].ravel())

    assert abs(np.corrcoef(noise)[0, 1]) < 0.02
    for name in ("z", "z_err", "vdisp", "observation", "target_id"):
        np.testing.assert_array_equal(
            *(seen["weave-lr", grid][1][name].to_numpy() for grid in (BLUE, RED))
        )


def test_overlapping_arms_are_joined_by_inverse_variance() -> None:
    flux, k = np.full((1, DESI.size), 5.0, np.float32), np.array([20.0])
    desi = load("desi")
    blue, red = (
        variance(flux, DESI, desi.model_copy(update={"arms": (arm,)}), k) for arm in desi.arms[:2]
    )

    whole = variance(flux, DESI, desi, k)

    # Lines of the sky are as wide as the joined spread, not as either arm sees them.
    both = (DESI.wavelength >= 5760) & (DESI.wavelength <= 5800)
    np.testing.assert_allclose(1 / whole[:, both], (1 / blue + 1 / red)[:, both], rtol=5e-3)
    np.testing.assert_allclose(whole[:, DESI.wavelength < 5750], blue[:, DESI.wavelength < 5750])


def test_a_row_depends_neither_on_how_many_there_are_nor_on_the_other_arm() -> None:
    part = Grid(kind="linear", start=5000.0, step=0.8, size=300)
    few, many = (
        through("desi").observe(through("desi").truth(n, part, 1, "rows"), part, 1, "night")
        for n in (3, 300)
    )

    for name in ("flux", "ivar", "z", "snr_g"):
        np.testing.assert_array_equal(few[name], many[name][:3])


def test_the_line_spread_of_a_file_is_that_of_its_arm() -> None:
    desi, weave = load("desi"), load("weave-lr")

    np.testing.assert_allclose(
        desi.lsf_pixels(DESI)[[1250, 4000, 6000]], [0.9, 0.81, 0.94], atol=0.01
    )
    blue = weave.on(BLUE).lsf_kms(np.array([5000.0]))
    np.testing.assert_allclose(blue, 299792.458 / 5000 / 2.35482, rtol=1e-5)
    assert [arm.name for arm in weave.on(RED).arms] == ["red"]


def test_narrow_lines_show_the_resolution() -> None:
    widths = []
    for name, grid in (("sdss", SDSS), ("desi", DESI), ("weave-lr", RED)):
        still = {"gas_scatter": 0.0, "z": (0.1, 0.1), "outliers": 0.0, "sigma_v": (60.0, 60.0)}
        on, off = (
            through(name, **still, emission=e).truth(32, grid, 1, "line")["flux"] for e in (1, 0)
        )
        row = int(np.argmax((on - off).max("wavelength").to_numpy()))
        line = (on - off)[row].to_numpy().astype(float)
        near = np.abs(grid.wavelength - 6564.6 * 1.1) < 12
        flux, where = (line * grid.widths)[near], grid.wavelength[near]
        mean = (flux * where).sum() / flux.sum()
        widths.append(float(np.sqrt((flux * (where - mean) ** 2).sum() / flux.sum())))

    assert widths[0] > widths[1] > widths[2]


def test_a_users_file_is_an_instrument(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    preset = Path(__file__).parents[2] / "storage" / "simulation" / "instruments" / "desi.toml"
    path.write_text(preset.read_text().replace('name = "desi"', 'name = "mine"'))

    assert load(str(path)).name == "mine"
    assert load(str(path)).arms == load("desi").arms
    assert build(instrument=str(path)).spectrograph.name == "mine"


@pytest.mark.parametrize("name", ["desi", "sdss", "sdss-legacy", "weave-hr", "weave-lr"])
def test_a_preset_is_named_like_its_file_and_sees_g(name: str) -> None:
    preset = load(name)

    assert preset.name == name
    assert preset.covers(np.arange(4100.0, 4600.0)).all()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.toml': there is no such file"):
        load(str(tmp_path / "mine.toml"))


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("name = ")

    with pytest.raises(ValueError, match=r"mine\.toml': not TOML"):
        load(str(tmp_path / "mine.toml"))


def test_a_curve_must_ascend() -> None:
    table = load("desi").model_dump()
    table["arms"][0]["lsf"] = ((5000.0, 1.0), (4000.0, 1.0))

    with pytest.raises(ValidationError, match="arm b: the wavelengths of lsf must ascend"):
        Instrument(**table)


def test_an_arm_must_detect_something() -> None:
    table = load("desi").model_dump()
    table["arms"][0]["throughput"] = ((4000.0, 0.0), (5000.0, 0.1))

    with pytest.raises(ValidationError, match="arm b: throughput must be above 0"):
        Instrument(**table)


def test_a_grid_that_no_arm_sees_is_refused() -> None:
    infrared = Grid(kind="linear", start=10000.0, step=1.0, size=500)

    with pytest.raises(ValueError, match="desi: its arms see nothing of the grid"):
        build(instrument="desi").truth(1, infrared, 1, "far")


def test_a_truth_of_another_instrument_is_refused() -> None:
    truth = build().truth(1, DESI, 1, "x")

    with pytest.raises(ValueError, match="truth lacks 'flux_g_blue'"):
        through("desi").observe(truth, DESI, 1, "x")


def test_an_instrument_that_never_sees_g_is_refused() -> None:
    table = load("desi").model_dump()
    table["arms"] = table["arms"][1:]
    red = build(instrument=table, coverage=RANGE)
    grid = Grid(kind="linear", start=6000.0, step=0.8, size=1000)

    with pytest.raises(ValueError, match="no arm sees 4000-5400 A"):
        red.observe(red.truth(1, grid, 1, "x"), grid, 1, "x")
