"""What every survey's rows must be to enter it."""

import numpy as np
import pytest
import xarray as xr

from storage import border, schema
from storage.grid import Grid
from storage.schema import ObjectType, Reason, Status

GRID = Grid(kind="linear", start=3600, step=2, size=2000)


def rows(n: int = 1) -> xr.Dataset:
    ds = schema.blank(n, GRID)
    ds["flux"][:], ds["ivar"][:] = 6, 0.25
    ds["ra"][:], ds["dec"][:], ds["z"][:] = 10, -10, 0.1
    ds["source"][:] = "a.fits"
    ds["source_row"][:] = np.arange(n)
    return ds


def test_a_good_row_is_done_and_has_its_signal_to_noise() -> None:
    ds = border.admit(rows(), GRID)
    assert ds["status"] == Status.DONE
    assert [float(ds[name][0]) for name in ("snr", "snr_g", "snr_r")] == [3, 3, 3]


def test_signal_to_noise_is_of_good_pixels_in_the_band_alone() -> None:
    ds = rows()
    band = (GRID.wavelength >= border.G_BAND[0]) & (GRID.wavelength < border.G_BAND[1])
    ds["flux"][0, band] = 2
    ds["flux"][0, 250:300], ds["ivar"][0, 250:300] = 1e6, 0
    ds = border.admit(ds, GRID)
    assert [float(ds[name][0]) for name in ("snr", "snr_g", "snr_r")] == [3, 1, 3]


@pytest.mark.parametrize("good", [1, 2, 3, 4])
def test_the_median_is_that_of_numpy(good: int) -> None:
    flux = np.zeros((1, GRID.size), "f4")
    flux[0, 5 : 5 + good] = [3, 9, 1, 4][:good]
    found = border.snr(flux, (flux > 0).astype("f4"), GRID)["snr"]
    assert found[0] == np.median(flux[flux > 0])


def test_pixels_that_are_not_finite_are_no_data() -> None:
    ds = rows()
    ds["flux"][0, 7], ds["ivar"][0, 8], ds["model"][0, 9] = np.nan, np.inf, np.nan
    ds = border.admit(ds, GRID)
    assert ds["status"] == Status.DONE
    assert not ds["ivar"][0, 7:9].any()
    assert ds["ivar"][0, 9] > 0


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"ivar": -1}, Reason.NEGATIVE_IVAR, "ivar is negative in 2000 pixels"),
        ({"ivar": 0}, Reason.NO_DATA, "no pixel has ivar > 0"),
        ({"flux": np.nan}, Reason.NOT_FINITE, "not finite in 2000 of 2000"),
        ({"ra": 361}, Reason.BAD_POSITION, "ra 361.0, dec -10.0"),
        ({"dec": np.nan}, Reason.BAD_POSITION, "expected 0 to 360"),
        ({"z": 11}, Reason.BAD_REDSHIFT, "z is 11.0"),
        ({"z": -np.inf}, Reason.BAD_REDSHIFT, "z is -inf"),
    ],
)
def test_a_bad_row_is_quarantined_alone(change: dict[str, float], code: Reason, words: str) -> None:
    ds = rows(3)
    for name, value in change.items():
        ds[name][1] = value
    ds = border.admit(ds, GRID)
    assert ds["status"].to_numpy().tolist() == [1, 2, 1]
    assert ds["reason_code"][1] == code
    assert ds["reason"].item(1).startswith("a.fits row 1: ")
    assert words in ds["reason"].item(1)
    assert not ds["flux"][1].any()
    assert np.isnan(ds["z"][1])
    assert np.isnan(ds["snr"][1])


def test_a_sky_fibre_may_have_any_redshift_and_a_survey_none() -> None:
    ds = rows(2)
    ds["z"][:] = [1e9, np.nan]
    ds["object_type"][0] = ObjectType.SKY
    assert (border.admit(ds, GRID)["status"] == Status.DONE).all()


def test_what_a_reader_refused_stays_refused_with_its_words() -> None:
    ds = rows(2)
    border.refuse(ds, 0, Reason.MISSING_HDU, "no table; fetch the file again")
    ds = border.admit(ds, GRID)
    assert ds["reason"].item(0) == "a.fits: no table; fetch the file again"
    assert ds["status"].to_numpy().tolist() == [Status.QUARANTINED, Status.DONE]
    assert ds["source"].item(0) == "a.fits"
