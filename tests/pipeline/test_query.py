"""A survey as one Dataset: names, selection, stacks, the way back, exports."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.table import Table
from rich.console import Console

from pipeline import stack as stacking
from pipeline.query import catalogue, export, open_survey, query
from storage.grid import Grid
from storage.schema import Status
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CEILING, CONFIG, FRAME, GRID, INDICES, PRODUCT, Known, build, put

OTHER = "ppca-ffffffff"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return build(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def ds(known: Known) -> xr.Dataset:
    return open_survey(known.card.store)


def test_nothing_is_read_and_everything_has_a_unit(ds: xr.Dataset) -> None:
    assert all(variable.chunks is not None for variable in ds.data_vars.values())
    assert [name for name, v in ds.variables.items() if "units" not in v.attrs] == []
    assert ds["raw.HdeltaF"].attrs["units"] == "Angstrom"
    assert ds["ppca.Dn4000"].attrs["units"] == "1"


@pytest.mark.parametrize(
    ("name", "part"),
    [("raw", "raw"), ("raw@fs", "raw"), (f"raw@{FRAME.label}", "raw"), ("ppca", "output")],
)
def test_index_columns_are_what_was_measured(
    known: Known, ds: xr.Dataset, name: str, part: str
) -> None:
    done = known.done if name == "ppca" else ds["raw.Mgb"].notnull().to_numpy()
    for column, index in enumerate(INDICES):
        expected = np.where(done, getattr(known, part)[:, column], np.nan)
        np.testing.assert_array_equal(ds[f"{name}.{index}"], expected)


def test_rows_that_are_not_done_have_no_index(ds: xr.Dataset, known: Known) -> None:
    # The store holds 0 there.
    assert np.isnan(ds["ppca.Mgb"].to_numpy()[~known.done]).all()
    assert np.isnan(ds["ppca.Mgb_error"].to_numpy()[~known.done]).all()


def test_default_value_is_raw_above_the_ceiling(ds: xr.Dataset, known: Known) -> None:
    snr = known.columns["snr_g"].to_numpy()
    use = known.done & (snr <= CEILING)
    assert 0 < use.sum() < known.done.sum()
    expected = np.where(use[:, None], known.output, known.raw)
    measured = ds["raw.Mgb"].notnull().to_numpy()
    np.testing.assert_array_equal(ds["best.Mgb"].to_numpy()[measured], expected[measured, 2])
    meanings = ds["best.input"].attrs["flag_meanings"].split()
    assert {meanings[code] for code in ds["best.input"].to_numpy()[use]} == {PRODUCT}


def test_a_model_that_failed_is_never_the_default(tmp_path: Path) -> None:
    known = build(tmp_path, n=8, verdict="failed: copies the noise")
    ds = open_survey(known.card.store)
    np.testing.assert_array_equal(ds["best.Mgb"], ds["raw@fs.Mgb"])


def test_ambiguous_short_names_are_not_offered(tmp_path: Path) -> None:
    ds = open_survey(build(tmp_path, n=8, products=(PRODUCT, OTHER)).card.store)
    assert f"{PRODUCT}.Mgb" in ds
    assert f"{OTHER}.Mgb" in ds
    assert "ppca.Mgb" not in ds
    with pytest.raises(ValueError, match=r"several products are called 'ppca' \(there: ppca-1a"):
        ds.spectra.denoised("ppca")
    assert ds.spectra.denoised(OTHER).sizes["spectrum"] == 8


def test_selection_is_that_of_a_boolean_mask(ds: xr.Dataset, known: Known) -> None:
    z, snr = known.columns["z"].to_numpy(), known.columns["snr_g"].to_numpy()
    galaxy = known.columns["class"].to_numpy() == "GALAXY"
    with np.errstate(invalid="ignore"):
        mask = (z < 0.1) & (snr > 5) & galaxy & known.done & (known.output[:, 0] > 1.4)
    found = ds.spectra.select("z < 0.1 and snr_g > 5 and class == 'GALAXY' and ppca.Dn4000 > 1.4")
    assert found["row"].to_numpy().tolist() == np.flatnonzero(mask).tolist()
    assert found["flux"].chunks is not None
    np.testing.assert_array_equal(found["flux"], known.columns["flux"].to_numpy()[mask])


def test_full_names_can_be_used_in_expressions(ds: xr.Dataset) -> None:
    full = f"{PRODUCT}.Mgb > 3 and raw@{FRAME.label}.Mgb > 3 and observation != 'a-12345678.x'"
    short = ds.spectra.select("ppca.Mgb > 3 and raw@fs.Mgb > 3")
    assert ds.spectra.select(full)["row"].equals(short["row"])


def test_selections_can_follow_each_other(ds: xr.Dataset) -> None:
    one = ds.spectra.select("z < 0.1").spectra.select("snr_g > 5")
    assert one["row"].equals(ds.spectra.select("z < 0.1 and snr_g > 5")["row"])


def test_unknown_column_names_the_nearest(ds: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"no column 'ppca.Mgd'; did you mean 'ppca.Mgb'"):
        ds.spectra.select("ppca.Mgd > 1")


def test_stack_of_one_spectrum_many_times_is_that_spectrum(tmp_path: Path, known: Known) -> None:
    one = known.columns.isel(spectrum=np.zeros(6, int))
    path = str(tmp_path / "same.icechunk")
    Survey.create(path)
    with writing(path, "test") as writer:
        put(writer, f"spectra/{CONFIG}", one, {"grid": GRID.model_dump()})
    flux, ivar, z, ebv = (one[name].to_numpy()[:1] for name in ("flux", "ivar", "z", "ebv"))
    batch = FRAME.on(GRID).to(flux, ivar, z, ebv)
    good = batch.weight[0].numpy() > 0
    for how in ("mean", "median"):
        stack = open_survey(path).spectra.stack(how=how)
        np.testing.assert_allclose(stack["flux"][good], batch.x[0].numpy()[good], rtol=1e-6)
        assert np.isnan(stack["flux"].to_numpy()[~good]).all()
        assert (stack["count"].to_numpy() == np.where(good, 6, 0)).all()
        assert int(stack["spectra"]) == 6


def test_stack_by_a_column_is_the_stack_of_each_part(ds: xr.Dataset) -> None:
    both = ds.spectra.stack(by="split", how="median")
    for side in both["split"].to_numpy():
        alone = ds.spectra.select(f"split == {side}").spectra.stack(how="median")
        np.testing.assert_array_equal(both["flux"].sel(split=side), alone["flux"])
    assert int(both["spectra"].sum()) == int((ds["status"] == Status.DONE).sum())


def test_stack_does_not_depend_on_how_much_is_held(
    ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ds.spectra.stack(by="split")
    monkeypatch.setattr(stacking, "STEP_ROWS", 7)
    xr.testing.assert_allclose(ds.spectra.stack(by="split"), whole, rtol=1e-12)


def test_stack_of_a_product_stays_on_its_frame(ds: xr.Dataset, known: Known) -> None:
    product = ds.spectra.denoised("ppca")
    scale = product["scale"].to_numpy()[known.done, None]
    expected = (known.flux[known.done] / scale).mean(axis=0)
    np.testing.assert_allclose(product.spectra.stack()["flux"], expected, rtol=1e-5)


def test_stack_refuses_what_it_cannot_do(ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="how is 'mode', expected 'mean' or 'median'"):
        ds.spectra.stack(how="mode")
    with pytest.raises(ValueError, match="no column 'colour'"):
        ds.spectra.stack(by="colour")
    with pytest.raises(ValueError, match="'z' has 80 values, at most 64"):
        ds.spectra.stack(by="z")
    monkeypatch.setattr(stacking, "MEDIAN_BYTES", 1000)
    with pytest.raises(MemoryError, match=r"80 x 3800 x 4 = 1216000 bytes, at most 1000"):
        ds.spectra.stack(how="median")


def test_product_follows_a_selection(ds: xr.Dataset, known: Known) -> None:
    chosen = ds.spectra.select("ppca.Mgb > 3")
    product = chosen.spectra.denoised(PRODUCT)
    rows = chosen["row"].to_numpy()
    assert 0 < len(rows) < 80
    np.testing.assert_array_equal(product["flux"], known.flux[rows])
    np.testing.assert_array_equal(product["z"], known.columns["z"].to_numpy()[rows])
    assert product["flux"].chunks is not None


def test_product_that_is_not_there_is_refused(ds: xr.Dataset) -> None:
    with pytest.raises(ValueError, match=r"no product is called 'vae' \(there: ppca-1a2b3c4d\)"):
        ds.spectra.denoised("vae")


def test_observed_is_the_way_back_of_the_frame(ds: xr.Dataset, known: Known) -> None:
    found = ds.spectra.observed("ppca")
    assert found["flux"].chunks is not None
    product = ds.spectra.denoised("ppca").compute()
    rows = np.flatnonzero(known.done)
    scale, z, ebv = (product[name].to_numpy()[rows] for name in ("scale", "z", "ebv"))
    sigma = product["sigma"].to_numpy()[rows] / scale[:, None]
    x = known.flux[rows] / scale[:, None]
    flux, error = FRAME.on(GRID).back(x, scale, z, ebv, sigma=sigma)
    assert error is not None
    np.testing.assert_allclose(found["flux"].to_numpy()[rows], flux.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["sigma"].to_numpy()[rows], error.numpy(), rtol=1e-5)
    assert not found["flux"].to_numpy()[~known.done].any()
    np.testing.assert_array_equal(found["wavelength"], GRID.wavelength)


def test_observed_and_framed_again_is_the_product(ds: xr.Dataset, known: Known) -> None:
    part = ds.spectra.observed("ppca").isel(spectrum=np.flatnonzero(known.done)[:8]).compute()
    z, ebv = part["z"].to_numpy(), part["ebv"].to_numpy()
    flux = part["flux"].to_numpy()
    batch = FRAME.on(Grid(**ds.attrs["grid"])).to(flux, (flux != 0).astype("f4"), z, ebv)
    again = (batch.x * batch.scale[:, None]).numpy()
    rows = part["row"].to_numpy()
    # Away from emission lines, which the survey's pixels are too coarse for.
    smooth = (FRAME.grid.wavelength > 5300) & (FRAME.grid.wavelength < 6400)
    np.testing.assert_allclose(again[:, smooth], known.flux[rows][:, smooth], rtol=2e-3)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".fits"])
def test_exports_read_back_the_same(ds: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    names = ["observation", "class", "z", "snr_g", "ppca.Mgb", "best.input", "row"]
    file = export(ds.spectra.select("snr_g > 4"), tmp_path / f"out{suffix}", names)
    expected = catalogue(ds.spectra.select("snr_g > 4"), names)
    if suffix == ".parquet":
        found = pd.read_parquet(file)
    elif suffix == ".csv":
        found = pd.read_csv(file, keep_default_na=False, na_values={"ppca.Mgb": ""})
    else:
        # astropy masks the NaN of a FITS table, and pads no text.
        table = Table.read(file, mask_invalid=False)
        found = pd.DataFrame({name: table[name].tolist() for name in table.colnames})
    assert list(found.columns) == names
    for name in names:
        mine, theirs = expected[name].to_numpy(), found[name].to_numpy()
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(theirs.astype(float), mine, rtol=1e-6)
        else:
            assert theirs.tolist() == mine.tolist()


def test_a_file_of_all_columns_has_each_once(ds: xr.Dataset, tmp_path: Path) -> None:
    names = pd.read_parquet(export(ds, tmp_path / "out.parquet")).columns
    assert {"z", "best.Mgb", "ppca.Mgb", "raw@fs.Mgb_error", "truth.age"} <= set(names)
    assert not [name for name in names if "1a2b3c4d" in name or FRAME.label in name]


def test_fits_carries_units(ds: xr.Dataset, tmp_path: Path) -> None:
    table = Table.read(export(ds, tmp_path / "out.fits", ["ra", "ppca.Mgb"]))
    assert table["ra"].unit == "deg"
    assert table["ppca.Mgb"].unit == "Angstrom"


def test_zarr_takes_the_spectra_along(ds: xr.Dataset, tmp_path: Path) -> None:
    chosen = ds.spectra.select("z < 0.08")
    file = export(chosen, tmp_path / "out.zarr")
    found = xr.open_zarr(file, consolidated=False)
    np.testing.assert_array_equal(found["flux"], chosen["flux"])
    np.testing.assert_array_equal(found["observation"], chosen["observation"])
    with pytest.raises(FileExistsError, match=r"out.zarr: is there already; remove it"):
        export(chosen, file)


def test_an_unknown_suffix_lists_the_known(ds: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suffix '.hdf5', expected .parquet, .csv, .fits, .zarr"):
        export(ds, tmp_path / "out.hdf5")
    with pytest.raises(ValueError, match=r"no column 'ppca.Mgd'; did you mean 'ppca.Mgb'\?"):
        export(ds, tmp_path / "out.csv", ["ppca.Mgd"])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_nothing(
    ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        export(ds, tmp_path / "out.csv", ["z"])
    assert list(tmp_path.iterdir()) == []


def test_query_prints_a_table_and_counts(known: Known) -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    count = query(known.card.store, "snr_g > 5", limit=3, console=console)
    text = console.export_text()
    assert count == int((known.columns["snr_g"].to_numpy() > 5).sum())
    assert f"{count} spectra, the first 3 shown" in text
    assert text.count("0266-51602-") == 3
    assert "best.Dn4000" in text
    assert "±" in text


def test_query_writes_a_file(known: Known, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.parquet"
    count = query(known.card.store, "z < 0.1", out=str(out), console=Console(quiet=True))
    assert len(pd.read_parquet(out)) == count


def test_configurations_are_listed_when_one_must_be_named(tmp_path: Path, known: Known) -> None:
    with pytest.raises(ValueError, match=r"has no 'desi' \(there: sdss\)"):
        open_survey(known.card.store, config="desi")
    path = str(tmp_path / "two.icechunk")
    Survey.create(path)
    with pytest.raises(ValueError, match="holds no spectra yet, `specmill ingest` brings them"):
        open_survey(path)
    with writing(path, "test") as writer:
        for name in ("blue", "red"):
            put(writer, f"spectra/{name}", known.columns[["flux", "status"]], {})
    with pytest.raises(ValueError, match=r"several configurations, name one \(there: blue, red\)"):
        open_survey(path)
    assert open_survey(path, config="red").attrs["config"] == "red"


def test_a_group_with_other_rows_is_refused(tmp_path: Path, known: Known) -> None:
    path = str(tmp_path / "ragged.icechunk")
    Survey.create(path)
    columns = known.columns[["flux", "status"]]
    with writing(path, "test") as writer:
        put(writer, f"spectra/{CONFIG}", columns, {})
        put(writer, f"truth/{CONFIG}", columns.isel(spectrum=slice(5)), {})
    with pytest.raises(ValueError, match="5 rows, the spectra have 80; run its stage again"):
        open_survey(path)


def test_an_older_version_can_be_opened(known: Known) -> None:
    first = [v for v in Survey.open(known.card.store).history() if v.message.endswith(": rows")][-1]
    old = open_survey(known.card.store, snapshot=first.snapshot)
    assert not [name for name in old if "." in str(name)]
