"""One exposure of the galaxy mock: noise, lost pixels, mishaps and names."""

import re

import numpy as np
import pytest
import xarray as xr

from storage import schema
from storage.grid import Grid
from storage.mocks.galaxy import build

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
# No mishap that the test in hand is not about.
CLEAN = {"calibration": 0.0, "bad_blue": 0.0, "cosmics": 0.0, "gaps": 0.0, "wrong_z": 0.0}


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return build().truth(1024, SDSS, seed=1, stream="survey")


@pytest.fixture(scope="module")
def seen(truth: xr.Dataset) -> xr.Dataset:
    return build(**CLEAN).observe(truth, SDSS, seed=1, stream="survey")


def test_noise_is_what_ivar_says(truth: xr.Dataset, seen: xr.Dataset) -> None:
    good = (seen["ivar"] > 0).to_numpy()
    deviation = ((seen["flux"] - truth["flux"]) * np.sqrt(seen["ivar"])).to_numpy()[good]

    assert deviation.std() == pytest.approx(1, abs=0.01)
    assert deviation.mean() == pytest.approx(0, abs=0.01)
    assert np.mean(np.abs(deviation) > 3) == pytest.approx(0.0027, rel=0.1)


def test_signal_to_noise_is_as_asked(truth: xr.Dataset) -> None:
    rows = truth.isel(spectrum=slice(256))

    seen = build(**CLEAN).observe(rows, SDSS, seed=1, stream="eight", snr_g=(8.0, 8.0))

    np.testing.assert_allclose(seen["snr_g"], 8, atol=0.2)
    assert float(seen["snr_g"].mean()) == pytest.approx(8, rel=0.01)


def test_natural_signal_to_noise_is_lognormal(seen: xr.Dataset) -> None:
    snr = seen["snr_g"].to_numpy()

    assert np.median(snr) == pytest.approx(13, rel=0.06)
    assert np.log(snr).std() == pytest.approx(0.42, abs=0.04)
    assert snr.min() > 4
    assert snr.max() < 47


def test_a_grid_without_g_is_refused() -> None:
    red = Grid(kind="linear", start=7000.0, step=1.0, size=500)
    dark = build().truth(1, red, seed=1, stream="red")

    with pytest.raises(ValueError, match="no good pixel in 4000-5400 A"):
        build().observe(dark, red, seed=1, stream="red")


def test_pixels_are_lost_with_a_reason(truth: xr.Dataset) -> None:
    rows = truth.isel(spectrum=slice(256))

    seen = schema.check(build().observe(rows, SDSS, seed=1, stream="lost"))

    ivar, mask = seen["ivar"].to_numpy(), seen["mask"].to_numpy()
    covered = (SDSS.wavelength >= 3800) & (SDSS.wavelength <= 9200)
    np.testing.assert_array_equal(mask != 0, ivar == 0)
    np.testing.assert_array_equal((mask[:, ~covered] >> 24) & 1, 1)
    assert ((mask[:, covered] >> 18) & 1).mean() == pytest.approx(0.007, abs=0.001)
    assert 0.002 < ((mask[:, covered] >> 23) & 1).mean() < 0.03
    assert mask[0, np.argmin(np.abs(SDSS.wavelength - 5578.9))] == 1 << 23


def test_a_bad_blue_end_shows_below_3950_only(truth: xr.Dataset) -> None:
    rows = truth.isel(spectrum=slice(20))
    good, bad = (
        build(**{**CLEAN, "bad_blue": share}).observe(rows, SDSS, 1, "blue")["flux"].to_numpy()
        for share in (0.0, 1.0)
    )

    blue = (SDSS.wavelength < 3950) & (SDSS.wavelength >= 3800)
    assert (bad[:, blue] - good[:, blue]).mean(axis=1).min() > 0
    np.testing.assert_array_equal(bad[:, SDSS.wavelength >= 3950], good[:, SDSS.wavelength >= 3950])


def test_calibration_errors_are_smooth_and_of_the_size_asked(truth: xr.Dataset) -> None:
    rows = truth.isel(spectrum=slice(256))
    plain, waved = (
        build(**{**CLEAN, "calibration": size}).observe(rows, SDSS, 1, "waves", (40, 45))
        for size in (0.0, 0.03)
    )

    ratio = ((waved["flux"] - plain["flux"]) / rows["flux"]).to_numpy()[:, 400:4100]
    error = ratio[:, (plain["ivar"] > 0).all("spectrum").to_numpy()[400:4100]]
    assert error.std() == pytest.approx(0.03, rel=0.1)
    assert np.abs(np.diff(error, axis=1)).mean() < 1e-3


def test_a_few_redshifts_are_wrong_without_a_warning(truth: xr.Dataset) -> None:
    seen = build(wrong_z=0.1).observe(truth, SDSS, seed=1, stream="wrong")

    wrong = np.abs(seen["z"] - truth["z"]) > 10 * seen["z_err"]
    assert float(wrong.mean()) == pytest.approx(0.1, abs=0.03)
    assert (seen["zwarn"] == 0).all()


def test_good_redshifts_err_as_stated(truth: xr.Dataset, seen: xr.Dataset) -> None:
    deviation = ((seen["z"] - truth["z"]) / seen["z_err"]).to_numpy()

    assert deviation.std() == pytest.approx(1, abs=0.08)


def test_observations_are_named_by_plate_date_and_fibre(truth: xr.Dataset) -> None:
    nights = [
        build().observe(truth.isel(spectrum=slice(700)), SDSS, 1, s)["observation"].to_numpy()
        for s in ("one", "two")
    ]

    assert all(re.fullmatch(r"\d{4}-\d{5}-\d{4}", name) for name in nights[0])
    assert len({*nights[0], *nights[1]}) == 1400
    plate, mjd, fibre = np.array([name.split("-") for name in nights[0]], dtype=int).T
    assert plate[640] == plate[0] + 1
    assert fibre[640] == 1
    assert mjd[0] != int(nights[1][0].split("-")[1])


def test_a_truth_on_another_grid_is_refused(truth: xr.Dataset) -> None:
    other = Grid(kind="log", start=3.56, step=1e-4, size=4700)

    with pytest.raises(ValueError, match="truth is not on the grid given"):
        build().observe(truth.isel(spectrum=slice(1)), other, seed=1, stream="x")


def test_plates_run_out_before_names_repeat() -> None:
    grid = Grid(kind="linear", start=4500.0, step=100.0, size=3)
    one = build().truth(1, grid, seed=1, stream="x")
    many = one[["flux"]].isel(spectrum=np.zeros(6_000_000, dtype=np.int8))

    with pytest.raises(ValueError, match="plates have 4 digits"):
        build().observe(many, grid, seed=1, stream="x")
