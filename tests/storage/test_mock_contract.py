"""What every simulator on the shelf promises."""

import numpy as np
import pytest
import xarray as xr

from storage import schema
from storage.grid import Grid
from storage.mock import Mock, generator
from storage.names import resolve, shelf

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)
SHELF = "storage.mocks"


@pytest.fixture(params=shelf(SHELF))
def mock(request: pytest.FixtureRequest) -> Mock:
    built: Mock = resolve(SHELF, request.param).build()
    return built


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    return all(np.array_equal(one[name].to_numpy(), other[name].to_numpy()) for name in one)


def test_truth_has_flux_and_parameters_with_units(mock: Mock) -> None:
    truth = mock.truth(5, GRID, seed=3, stream="survey")

    assert truth["flux"].dims == ("spectrum", "wavelength")
    assert truth["flux"].dtype == np.float32
    assert np.isfinite(truth["flux"]).all()
    assert {"z", "ra", "dec"} <= set(truth.data_vars)
    assert all({"units", "long_name"} <= set(truth[name].attrs) for name in truth.data_vars)
    np.testing.assert_array_equal(truth["wavelength"], GRID.wavelength)


def test_a_row_does_not_depend_on_how_many_there_are(mock: Mock) -> None:
    few, many = (mock.truth(n, GRID, seed=3, stream="survey") for n in (7, 300))

    assert same(few, many.isel(spectrum=slice(7)))
    seen_few, seen_many = (mock.observe(t, GRID, seed=3, stream="night") for t in (few, many))
    assert same(seen_few, seen_many.isel(spectrum=slice(7)))


def test_the_same_seed_gives_the_same_survey_and_another_does_not(mock: Mock) -> None:
    first, again, other = (mock.truth(3, GRID, seed=s, stream="survey") for s in (3, 3, 4))

    assert same(first, again)
    assert not np.isclose(first["z"], other["z"]).any()


def test_two_streams_share_no_object(mock: Mock) -> None:
    survey, verdict = (mock.truth(3, GRID, seed=3, stream=s) for s in ("survey", "verdict"))

    assert not np.isclose(survey["z"], verdict["z"]).any()
    assert not np.isclose(survey["ra"], verdict["ra"], atol=1e-3).any()


def test_an_exposure_has_the_shape_of_a_survey(mock: Mock) -> None:
    truth = mock.truth(4, GRID, seed=3, stream="survey")

    seen = schema.check(mock.observe(truth, GRID, seed=3, stream="survey", snr_g=(5, 6)))

    np.testing.assert_array_equal(seen["ra"], truth["ra"])
    assert (seen["status"] == int(schema.Status.DONE)).all()
    assert (seen["ivar"] > 0).any("wavelength").all()


def test_two_exposures_have_independent_noise_of_the_stated_size(mock: Mock) -> None:
    truth = mock.truth(32, GRID, seed=3, stream="survey")

    one, two = (mock.observe(truth, GRID, 3, s, snr_g=(5, 6)) for s in ("first", "second"))

    both = ((one["ivar"] > 0) & (two["ivar"] > 0)).to_numpy()
    noise = [
        ((o["flux"] - truth["flux"]) * np.sqrt(o["ivar"])).to_numpy()[both] for o in (one, two)
    ]
    spread = [1.4826 * np.median(np.abs(n)) for n in noise]
    np.testing.assert_allclose(spread, 1, atol=0.03)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.03
    assert not set(one["observation"].to_numpy()) & set(two["observation"].to_numpy())


def test_an_empty_survey_is_one(mock: Mock) -> None:
    truth = mock.truth(0, GRID, seed=3, stream="survey")

    assert mock.observe(truth, GRID, seed=3, stream="survey").sizes["spectrum"] == 0


def test_generators_differ_by_seed_stream_and_block() -> None:
    keys = [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]

    assert len({generator(*key).random() for key in keys}) == len(keys)
