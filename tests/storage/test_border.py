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
        ({"flux": 1e25}, Reason.ABSURD, "flux is beyond 1e+10 in house units"),
        ({"flux": -1.1e10}, Reason.ABSURD, "in 2000 pixels; fetch the file again"),
        ({"ivar": 1e25}, Reason.ABSURD, "ivar is beyond 1e+16 in house units"),
        ({"model": -1e25}, Reason.ABSURD, "model is beyond 1e+10 in house units"),
        ({"ebv": 1e25, "ebv_known": 1}, Reason.ABSURD, "E(B-V) is 9.999"),
        ({"ebv": np.nan, "ebv_known": 1}, Reason.ABSURD, "expected -1.0 to 1000.0 mag"),
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


def test_one_absurd_pixel_refuses_its_row_unless_it_is_no_data() -> None:
    ds = rows(3)
    ds["flux"][1, 7] = 1e25
    ds["flux"][2, 7], ds["ivar"][2, 7] = 1e25, 0
    ds = border.admit(ds, GRID)
    assert ds["status"].to_numpy().tolist() == [1, 2, 1]
    assert "in 1 pixels" in ds["reason"].item(1)
    assert not ds["flux"][1].any()


def test_the_brightest_star_may_enter_and_relative_flux_of_any_size() -> None:
    ds = rows(1)
    # Sirius: 3.8 times Vega, which has 8e-9 erg s-1 cm-2 A-1 at 4000 A.
    ds["flux"][:] = 3.8 * 8e-9 / 1e-17
    assert border.admit(ds, GRID)["status"] == Status.DONE
    ds = rows(1)
    ds["flux"][:], ds["ivar"][:] = 1e25, 1e22
    assert border.admit(ds, GRID, relative=True)["status"] == Status.DONE


def test_numbers_beyond_float32_stay_finite_to_be_judged() -> None:
    found = border.single(np.array([1e300, -1e300, np.inf, -np.inf, np.nan, 1.5]))
    assert found.dtype == np.float32
    assert (np.abs(found[:2]) > border.MOST_IVAR).all()
    assert np.isfinite(found).tolist() == [True, True, False, False, False, True]
    assert found[5] == 1.5


def test_a_row_without_a_redshift_is_warned_of() -> None:
    ds = rows(2)
    ds["z"][0], ds["zwarn"][:] = np.nan, 4
    assert border.admit(ds, GRID)["zwarn"].to_numpy().tolist() == [4 | border.NO_REDSHIFT, 4]
