"""Emission lines as columns: names, selections, what is derived of them, exports."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.table import Table

from pipeline.flags import bits
from pipeline.line_group import lines
from pipeline.lines.classes import Flag
from pipeline.lines.fit import LineFlag
from pipeline.lines.line_list import names
from pipeline.query import export, open_survey, query
from pipeline.verify import verify
from storage.schema import Reason, Status
from storage.writer import writing
from tests.pipeline.stores import CONFIG, FRAME, PRODUCT, Known, build, put

FLUXES = {"Halpha": 100.0, "Hbeta": 30.0, "OIII5007": 30.0, "NII6584": 10.0}
"Of a star-forming galaxy: log([NII]/Halpha) = -1, log([OIII]/Hbeta) = 0."
AGN = {**FLUXES, "OIII5007": 300.0, "NII6584": 100.0}


def group(done: np.ndarray, snr: float = 10.0) -> xr.Dataset:
    """Lines of rows: even ones form stars, odd ones are AGN, the fourth has a faint Hbeta."""
    ds = lines(len(done)).copy(deep=True)
    for number, name in enumerate(names()):
        flux = np.where(np.arange(len(done)) % 2, AGN.get(name, 5.0), FLUXES.get(name, 5.0))
        ds["flux"].values[:, number], ds["flux_err"].values[:, number] = flux, flux / snr
        ds["ew"].values[:, number], ds["ew_err"].values[:, number] = flux / 10, flux / 10 / snr
    ds["flux_err"].values[4, names().index("Hbeta")] = 30
    ds["flag"].values[4, names().index("Hbeta")] = LineFlag.NOT_DETECTED
    ds["chi2"].values[:] = 1.5
    for variable in ("flux", "flux_err", "ew", "ew_err", "chi2"):
        ds[variable].values[~done] = np.nan
    ds["status"].values[:] = np.where(done, Status.DONE, Status.NOT_APPLICABLE)
    ds["reason_code"].values[:] = np.where(done, Reason.NONE, Reason.NOT_SCIENCE)
    return ds


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    found = build(tmp_path_factory.mktemp("survey"))
    science = np.arange(80) < 77
    with writing(found.card.store, "test") as writer:
        about = {"code_version": "1", "packages": "", "platform": "", "card_digest": "00000000"}
        for name, done in (("raw", science), (PRODUCT, found.done)):
            put(writer, f"lines/{CONFIG}/{name}", group(done), about)
    return found


@pytest.fixture(scope="module")
def ds(known: Known) -> xr.Dataset:
    return open_survey(known.card.store)


def test_lines_are_columns_with_units_and_nothing_is_read(ds: xr.Dataset) -> None:
    assert all(variable.chunks is not None for variable in ds.data_vars.values())
    assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
    for name in ("raw", "ppca", PRODUCT):
        assert ds[f"{name}.Halpha_flux"].attrs["units"] == "1e-17 erg s-1 cm-2"
        assert ds[f"{name}.OIII5007_ew_error"].attrs["units"] == "Angstrom"
        assert ds[f"{name}.ebv_balmer"].attrs["units"] == "mag"
    assert ds["raw.Hbeta_flag"].attrs["flag_masks"] == bits(LineFlag)["flag_masks"]


def test_they_hold_what_was_measured_where_it_is_done(ds: xr.Dataset, known: Known) -> None:
    flux = ds["ppca.OIII5007_flux"].to_numpy()
    expected = np.where(np.arange(80) % 2, 300.0, 30.0)
    np.testing.assert_array_equal(flux, np.where(known.done, expected, np.nan))
    np.testing.assert_allclose(ds["raw.OIII5007_flux_error"][:77], expected[:77] / 10)
    assert ds["raw.Hbeta_flag"].to_numpy()[[3, 4]].tolist() == [0, LineFlag.NOT_DETECTED]
    assert ds["raw.lines_chi2"].to_numpy()[0] == 1.5


def test_classes_are_words_that_an_expression_compares(ds: xr.Dataset) -> None:
    ds = ds[["raw.bpt", "raw.agn", "raw.class_sharbaf", "raw.Halpha_flux", "raw.oh_o3n2"]]
    even, odd = np.arange(0, 77, 2), np.arange(1, 77, 2)
    for expression, expected in (
        ("raw.bpt == 'AGN'", odd),
        ("raw.bpt == 'star-forming'", even[even != 4]),
        ("raw.bpt == 'unclassified'", [4]),
        ("raw.agn in ('Seyfert', 'LINER')", odd),
        ("raw.bpt == 'AGN' and raw.Halpha_flux > 50 and row < 5", [1, 3]),
        ("raw.class_sharbaf == 'AGN'", odd),
        ("raw.oh_o3n2 < 8.5", even[even != 4]),
        ("raw.bpt == ''", [77, 78, 79]),
    ):
        found = ds.spectra.select(expression)["row"].to_numpy()
        assert found.tolist() == list(expected), expression


def test_what_is_derived_is_what_the_formulae_say(ds: xr.Dataset) -> None:
    np.testing.assert_allclose(ds["raw.oh_o3n2"][0], 8.41, atol=1e-6)
    np.testing.assert_allclose(ds["raw.oh_o3n2_error"][0], 0.32 * 0.2 / np.log(10), rtol=1e-6)
    assert np.isnan(ds["raw.oh_o3n2"][[1, 4, 78]]).all()
    # An AGN, of O3N2 = 1; a faint line; and a row that is not done, of which there is nothing.
    assert ds["raw.oh_o3n2_flag"][[1, 4, 78]].to_numpy().tolist() == [Flag.NOT_STARS, Flag.FAINT, 0]
    np.testing.assert_allclose(ds["raw.decrement"][0], 100 / 30)
    np.testing.assert_allclose(ds["raw.ebv_balmer"][0], 0.1549, atol=2e-4)


def test_five_classes_where_an_index_tells_of_absorption(ds: xr.Dataset) -> None:
    found = ds["raw.class_scourfield"].to_numpy()
    assert found[1] == "narrow-line AGN"
    assert found[0] == "emission-line"
    deep = ds["raw.HdeltaF"][4] / ds["raw.HdeltaF_error"][4] > 3
    assert found[4] == ("absorption" if deep else "quiescent")
    assert found[78] == ""


def test_stars_have_no_class_of_a_galaxy(tmp_path: Path) -> None:
    known = build(tmp_path, n=12)
    with writing(known.card.store, "test") as writer:
        put(writer, f"lines/{CONFIG}/raw", group(np.ones(12, bool)), {})
        kind = np.array(["GALAXY", "QSO", "STAR"] * 4, np.dtypes.StringDType())
        writer.write_columns(f"spectra/{CONFIG}", 0, {"class": kind})
        writer.commit("classes")
    ds = open_survey(known.card.store)
    assert ds["raw.class_sharbaf"].to_numpy()[:3].tolist() == ["star-forming", "", ""]
    five = ds["raw.class_scourfield"].to_numpy()[:3].tolist()
    assert five == ["emission-line", "broad-line AGN", ""]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".fits"])
def test_exports_hold_lines_and_classes(ds: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    path = export(ds, tmp_path / f"lines{suffix}")
    if suffix == ".fits":
        table = Table.read(path, hdu=1)
        assert str(table["raw.Halpha_flux"].unit).replace("10**-17", "1e-17").startswith("1e-17")
        table = table.to_pandas()
    else:
        table = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
    words = [w.decode() if isinstance(w, bytes) else w for w in table["raw.bpt"][:5]]
    assert words == ["star-forming", "AGN", "star-forming", "AGN", "unclassified"]
    np.testing.assert_allclose(table["ppca.Halpha_flux"], ds["ppca.Halpha_flux"], rtol=1e-6)
    assert f"{PRODUCT}.bpt" not in table


def test_a_plain_zarr_folder_holds_them_too(ds: xr.Dataset, tmp_path: Path) -> None:
    path = export(ds, tmp_path / "lines.zarr", ["raw.bpt", "raw.Halpha_flux"], spectra=False)
    again = xr.open_zarr(path)
    assert again["raw.bpt"].to_numpy()[:2].tolist() == ["star-forming", "AGN"]


def test_the_query_prints_a_line_with_its_error(
    known: Known, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["raw.bpt", "raw.Halpha_flux", "raw.Halpha_flux_error"]
    count = query(known.card.store, "raw.bpt == 'AGN' and row < 4", columns=columns)
    assert count == 2
    assert "100±10" in capsys.readouterr().out


def test_verify_finds_a_hole_in_lines(known: Known, tmp_path: Path) -> None:
    assert [f for f in verify(known.card.store) if f.group.startswith("lines/")] == []
    other = build(tmp_path, n=20)
    empty = lines(20).copy(deep=True)
    empty["status"].values[:] = Status.DONE
    with writing(other.card.store, "test") as writer:
        put(writer, f"lines/{CONFIG}/raw@{FRAME.label}", empty, {})
    said = [f.what for f in verify(other.card.store) if f.group.startswith("lines/")]
    assert any("20 rows done, but without data in 'flux'" in what for what in said)
