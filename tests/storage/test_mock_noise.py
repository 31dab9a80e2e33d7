"""Kinds of noise of the mocks: Gaussian, Laplace, scaled, and that of real sky fibres."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from storage import schema
from storage.grid import Grid
from storage.mocks.galaxy import build
from storage.names import resolve
from storage.simulation.noise import of_sky, sky_residuals

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
CLEAN = {"calibration": 0.0, "bad_blue": 0.0, "cosmics": 0.0, "gaps": 0.0, "wrong_z": 0.0}


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return build().truth(64, SDSS, seed=1, stream="survey")


def deviation(seen: xr.Dataset, truth: xr.Dataset) -> NDArray[np.float32]:
    """Noise in units of its stated error, NaN where no data."""
    each = (seen["flux"] - truth["flux"]) * np.sqrt(seen["ivar"])
    return np.where(seen["ivar"] > 0, each, np.nan).astype(np.float32)


def test_laplace_noise_has_the_variance_stated_and_its_own_tails(truth: xr.Dataset) -> None:
    seen = build(noise="laplace", **CLEAN).observe(truth, SDSS, 1, "x")

    noise = deviation(seen, truth)
    noise = noise[np.isfinite(noise)]
    assert noise.std() == pytest.approx(1, abs=0.015)
    assert (noise**4).mean() == pytest.approx(6, rel=0.1)
    # P(|x| > 3) = exp(-3 sqrt 2).
    assert np.mean(np.abs(noise) > 3) == pytest.approx(np.exp(-3 * 2**0.5), rel=0.05)


def test_a_scaled_exposure_is_the_same_with_less_noise(truth: xr.Dataset) -> None:
    plain, better = (build(snr_scale=f, **CLEAN).observe(truth, SDSS, 1, "x") for f in (1, 4))

    np.testing.assert_allclose(better["ivar"], 16 * plain["ivar"], rtol=1e-5)
    left = (plain["flux"] - truth["flux"]) / 4
    good = (plain["ivar"] > 0).to_numpy()
    actual = (better["flux"] - truth["flux"]).to_numpy()[good]
    np.testing.assert_allclose(actual, left.to_numpy()[good], atol=1e-3)
    np.testing.assert_allclose(better["snr_g"] / plain["snr_g"], 4, rtol=0.05)


@pytest.fixture
def fibres(tmp_path: Path, truth: xr.Dataset) -> Path:
    """Three sky fibres in the survey's own files, with residuals of 1, 2 and 3 sigma; a galaxy."""
    ds = build(**CLEAN).observe(truth.isel(spectrum=slice(4)), SDSS, 1, "sky")
    size = np.arange(1, 5, dtype=np.float32)[:, None]
    ivar = ds["ivar"].to_numpy()
    ds["flux"].data = np.where(ivar > 0, size / np.sqrt(np.maximum(ivar, 1e-9)), 0)
    ds["object_type"].data = np.array([1, 1, 1, 0], ds["object_type"].dtype)
    form = resolve("storage.readers", "sdss").build()
    form.write(ds, str(tmp_path), "sdss")
    return tmp_path


def test_residuals_are_those_of_sky_fibres_alone(fibres: Path) -> None:
    found = sky_residuals(str(fibres), "sdss", SDSS)

    levels = np.nanmedian(found, axis=1)
    np.testing.assert_allclose(np.sort(levels), [1, 2, 3], rtol=1e-3)
    assert np.isnan(found[:, SDSS.wavelength < 3800]).all()


def test_noise_is_made_of_real_residuals(fibres: Path, truth: xr.Dataset) -> None:
    real = build(sky_residuals=str(fibres), **CLEAN)

    seen = schema.check(real.observe(truth, SDSS, 1, "x"))

    noise = np.abs(deviation(seen, truth))
    noise = noise[np.isfinite(noise)]
    inner = np.min(np.abs(noise[:, None] - np.array([1.0, 2.0, 3.0])), axis=1) < 0.05
    # Where the fibres have no data, noise is drawn.
    assert inner.mean() > 0.98
    drawn = [np.mean(np.abs(noise - k) < 0.05) for k in (1, 2, 3)]
    np.testing.assert_allclose(drawn, 1 / 3, atol=0.05)


def test_residuals_stay_at_their_pixels_and_change_sign() -> None:
    residuals = np.arange(300, dtype=np.float32)[None] + 1

    drawn = of_sky(np.random.default_rng(1), (50, 300), residuals)

    np.testing.assert_array_equal(np.abs(drawn), np.broadcast_to(residuals, (50, 300)))
    assert 0.4 < (drawn > 0).mean() < 0.6
    cuts = np.diff(np.sign(drawn), axis=1) != 0
    assert 0 < cuts.sum(axis=1).mean() < 3


def test_a_row_of_real_noise_does_not_depend_on_how_many_there_are(
    fibres: Path, truth: xr.Dataset
) -> None:
    mock = build(sky_residuals=str(fibres))

    few, many = (mock.observe(truth.isel(spectrum=slice(n)), SDSS, 1, "x") for n in (3, 64))

    np.testing.assert_array_equal(few["flux"], many["flux"][:3])


def test_sky_fibres_on_another_grid_are_refused(fibres: Path) -> None:
    other = Grid(kind="linear", start=3600.0, step=0.8, size=7781)
    mock = build(sky_residuals=str(fibres), coverage=(3600, 9800))

    with pytest.raises(ValueError, match="'sdss' has no configuration on the grid of the mock"):
        mock.observe(mock.truth(1, other, 1, "x"), other, 1, "x")


def test_a_folder_without_sky_fibres_is_refused(tmp_path: Path, truth: xr.Dataset) -> None:
    ds = build().observe(truth.isel(spectrum=slice(2)), SDSS, 1, "galaxies")
    resolve("storage.readers", "sdss").build().write(ds, str(tmp_path), "sdss")

    with pytest.raises(ValueError, match="has no sky fibre that reader 'sdss' can read"):
        sky_residuals(str(tmp_path), "sdss", SDSS)


def test_errors_of_real_sky_fibres_are_a_little_too_large(survey_data: Path) -> None:
    found = sky_residuals(str(survey_data / "sdss_sky"), "sdss", SDSS)

    assert found.shape[0] == 50
    spread = [
        np.nanstd(found[:, (SDSS.wavelength > low) & (SDSS.wavelength < high)])
        for low, high in ((4000, 7000), (8200, 9000))
    ]
    assert 0.8 < spread[0] < spread[1] < 1.1
