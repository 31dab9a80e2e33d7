"""The one shape: what a survey must look like, and which words say that one does not."""

import numpy as np
import pytest
import xarray as xr
from astropy import units

from storage import schema
from storage.grid import Grid
from storage.schema import REASONS, SPECTRA, Reason, SchemaError, Status

GRID = Grid(kind="log", start=3.55, step=1e-4, size=12)


@pytest.fixture
def good() -> xr.Dataset:
    ds = schema.blank(5, GRID)
    ds["flux"].values[:], ds["ivar"].values[:] = 2.0, 0.5
    ds["status"].values[:] = Status.DONE
    return ds


def test_a_good_dataset_passes_as_it_is(good: xr.Dataset) -> None:
    assert schema.check(good) is good


def test_a_blank_one_passes_and_is_all_pending() -> None:
    ds = schema.check(schema.blank(3, GRID))
    assert (ds["status"] == Status.PENDING).all()
    assert np.isnan(ds["z"]).all()
    assert not ds["ivar"].any()


def test_a_template_of_a_million_rows_holds_no_values() -> None:
    ds = schema.template(1_000_000, GRID)
    assert ds["flux"].shape == (1_000_000, 12)
    assert ds["flux"].to_numpy().strides == (0, 0)


@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_units_are_those_that_astropy_reads(name: str) -> None:
    unit = SPECTRA[name].units
    assert unit == "1" or units.Unit(unit)


def test_flux_and_ivar_units_fit_each_other() -> None:
    flux, ivar = units.Unit(schema.FLUX_UNIT), units.Unit(schema.IVAR_UNIT)
    assert (flux**2 * ivar).to(units.dimensionless_unscaled) == pytest.approx(1)


def test_every_reason_has_words_and_codes_have_their_meanings(good: xr.Dataset) -> None:
    assert set(REASONS) == set(Reason)
    attrs = good["status"].attrs
    assert attrs["flag_values"] == [0, 1, 2, 3]
    assert attrs["flag_meanings"] == "pending done quarantined not_applicable"


def spoil(ds: xr.Dataset, name: str, value: float, row: int = 3) -> xr.Dataset:
    ds[name].values[row] = value
    return ds


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ivar", -1.0, r"here: 'ivar' is negative or not finite: 12 values in rows 3; .*0 for no"),
        ("ivar", np.inf, "'ivar' is negative or not finite"),
        ("flux", np.nan, "'flux' is not finite: 12 values in rows 3; set it to 0"),
        ("ivar", 0.0, "'flux' is not 0 where ivar is 0"),
        ("status", 9, "'status' is unknown: 1 values in rows 3"),
    ],
)
def test_a_wrong_value_is_named_with_its_rows_and_the_cure(
    good: xr.Dataset, name: str, value: float, words: str
) -> None:
    with pytest.raises(SchemaError, match=words):
        schema.check(spoil(good, name, value), "here")


def test_a_missing_turned_or_retyped_variable_is_named(good: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match="no variable 'ebv'"):
        schema.check(good.drop_vars("ebv"))
    with pytest.raises(SchemaError, match=r"'flux' has axes \('wavelength', 'spectrum'\)"):
        schema.check(good.assign(flux=good["flux"].T))
    with pytest.raises(SchemaError, match="'flux' is float64, expected float32"):
        schema.check(good.assign(flux=good["flux"].astype("f8")))


def test_a_schema_error_is_a_value_error() -> None:
    assert issubclass(SchemaError, ValueError)
