"""Stars as columns: names, selections, raw beside denoised, exports."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units
from astropy.table import Table

from pipeline.query import export, open_survey, query
from pipeline.star_columns import NUMBERS
from pipeline.star_group import stars
from pipeline.stars.flag import Flag
from pipeline.verify import verify
from storage.schema import Reason, Status
from storage.writer import writing
from tests.pipeline.stores import CONFIG, PRODUCT, Known, build, put

N = 80
TRUE = {"velocity": 100.0, "teff": 4500.0, "logg": 2.5, "feh": -0.5, "alpha_m": 0.1}
UNITS = {"vrad": "km/s", "teff": "K", "logg": "dex", "feh": "dex", "alpha_m": "dex"}


def group(done: np.ndarray, shift: float) -> xr.Dataset:
    """Stars of rows: numbers that grow with the row, each with an error of a tenth."""
    ds = stars(len(done)).copy(deep=True)
    for name, level in TRUE.items():
        ds[name].values[:] = level + np.arange(len(done)) + shift
        ds[f"{name}_err"].values[:] = abs(level) / 10
    ds["chi2"].values[:], ds["pixels"].values[:], ds["iterations"].values[:] = 900, 1000, 3
    ds["flag"].values[4], ds["feh_err"].values[4] = Flag.EDGE, np.nan
    ds["status"].values[:] = np.where(done, Status.DONE, Status.NOT_APPLICABLE)
    ds["reason_code"].values[:] = np.where(done, Reason.NONE, Reason.NOT_SCIENCE)
    return ds


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    found = build(tmp_path_factory.mktemp("survey"), n=N)
    with writing(found.card.store, "test") as writer:
        put(writer, f"stars/{CONFIG}/raw", group(np.arange(N) < 70, 0.0), {})
        put(writer, f"stars/{CONFIG}/{PRODUCT}", group(np.arange(N) >= 10, 0.5), {})
    return found


@pytest.fixture(scope="module")
def ds(known: Known) -> xr.Dataset:
    return open_survey(known.card.store)


def test_stars_are_columns_with_units_and_nothing_is_read(ds: xr.Dataset) -> None:
    assert all(variable.chunks is not None for variable in ds.data_vars.values())
    assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
    assert set(NUMBERS) == set(UNITS)
    for name in ("raw", "ppca", PRODUCT):
        for key, unit in UNITS.items():
            for suffix in ("", "_error"):
                about = ds[f"{name}.star_{key}{suffix}"].attrs
                assert about["units"] == unit
                assert name.removesuffix("-1a2b3c4d") in about["long_name"]
    assert ds["raw.star_flag"].attrs["flag_masks"] == [int(bit) for bit in Flag]


def test_they_hold_what_was_measured_where_it_is_done(ds: xr.Dataset) -> None:
    row = np.arange(N)
    for name, done, shift in (("raw", row < 70, 0.0), ("ppca", row >= 10, 0.5)):
        np.testing.assert_array_equal(
            ds[f"{name}.star_vrad"], np.where(done, 100 + row + shift, np.nan)
        )
        np.testing.assert_allclose(
            ds[f"{name}.star_teff_error"], np.where(done, 450, np.nan), rtol=1e-6
        )
        assert ds[f"{name}.star_iterations"].to_numpy()[20] == 3
        assert ds[f"{name}.star_chi2"].to_numpy()[20] == 900
    assert ds["raw.star_flag"].to_numpy()[[3, 4]].tolist() == [0, Flag.EDGE]


def test_raw_and_denoised_are_compared_star_by_star(ds: xr.Dataset) -> None:
    row = np.arange(N)
    both = (row >= 10) & (row < 70)
    for name in ("ppca", PRODUCT):
        for key, unit in UNITS.items():
            column = ds[f"{name}.star_{key}_difference"]
            np.testing.assert_allclose(column, np.where(both, 0.5, np.nan), rtol=1e-3)
            assert column.attrs["units"] == unit
            assert f"from {PRODUCT} minus that from raw" in column.attrs["long_name"]
    assert "raw.star_vrad_difference" not in ds


def test_without_the_raw_ones_there_is_no_difference(tmp_path: Path) -> None:
    known = build(tmp_path, n=12)
    with writing(known.card.store, "test") as writer:
        put(writer, f"stars/{CONFIG}/{PRODUCT}", group(np.ones(12, bool), 0.0), {})
    ds = open_survey(known.card.store)
    assert "ppca.star_vrad" in ds
    assert [name for name in ds.data_vars if "star_vrad_diff" in str(name)] == []


def test_a_survey_that_was_not_asked_for_stars_has_no_such_column(tmp_path: Path) -> None:
    ds = open_survey(build(tmp_path, n=12).card.store)
    assert [name for name in ds.data_vars if ".star_" in str(name)] == []


def test_they_are_selected_by(ds: xr.Dataset) -> None:
    found = ds.spectra.select("raw.star_teff < 4506 and raw.star_flag == 0")
    assert found["row"].to_numpy().tolist() == [0, 1, 2, 3, 5]
    found = ds.spectra.select(f"{PRODUCT}.star_vrad > 5 * {PRODUCT}.star_vrad_error and row < 12")
    assert found["row"].to_numpy().tolist() == [10, 11]


@pytest.mark.parametrize("suffix", [".parquet", ".fits"])
def test_exports_hold_them_with_units(ds: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    path = export(ds, tmp_path / f"stars{suffix}")
    if suffix == ".fits":
        # Of FITS itself dex is no unit, of archives it is.
        table = Table.read(path, hdu=1, unit_parse_strict="silent")
        assert table["raw.star_teff"].unit == units.K
        assert str(table["raw.star_feh"].unit) == "dex"
        assert table["ppca.star_vrad_difference"].unit == units.km / units.s
        table = table.to_pandas()
    else:
        table = pd.read_parquet(path)
    np.testing.assert_allclose(table["ppca.star_logg"], ds["ppca.star_logg"], rtol=1e-6)


def test_the_query_prints_a_number_with_its_error(
    known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["raw.star_vrad", "raw.star_vrad_error", "raw.star_teff"]
    assert query(known.card.store, "raw.star_vrad < 103", columns=columns) == 3
    assert "100±10" in capsys.readouterr().out


def test_verify_finds_a_hole_in_stars(known: Known, tmp_path: Path) -> None:
    said = [f.what for f in verify(known.card.store) if f.group.startswith("stars/")]
    assert not [what for what in said if "without data" in what]
    other = build(tmp_path, n=20)
    empty = stars(20).copy(deep=True)
    empty["status"].values[:], empty["flag"].values[:4] = Status.DONE, Flag.TOO_FEW
    with writing(other.card.store, "test") as writer:
        put(writer, f"stars/{CONFIG}/raw", empty, {})
    said = [f.what for f in verify(other.card.store) if f.group.startswith("stars/")]
    assert any("16 rows done, but without data in 'velocity'" in what for what in said)
