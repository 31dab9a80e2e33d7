"""Plain Zarr: read without specmill, and back into a store bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import plain
from pipeline.export import export
from pipeline.extract import export_store
from pipeline.plain import import_zarr
from pipeline.query import open_survey
from pipeline.verify import verify
from storage import schema
from storage.grid import Grid
from storage.lease import LeaseError
from storage.schema import SchemaError
from storage.store import Survey
from storage.writer import writing
from tests.pipeline import sound
from tests.pipeline.sound import GROUP

ROWS = 1100
READ = """
import sys, xarray as xr
ds = xr.open_zarr(sys.argv[1])
ours = {"storage", "pipeline", "training", "icechunk"} & set(sys.modules)
print(ds.sizes["spectrum"], float(ds["flux"][7].sum()), ds["observation"].values[7], *ours)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sound.build(tmp_path_factory.mktemp("plain") / "s.icechunk", ROWS, 12, chunk=512)


@pytest.fixture(scope="module")
def out(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it as plain Zarr; not to be changed."""
    out = tmp_path_factory.mktemp("out") / "out.zarr"
    assert export_store(store, out) == ROWS
    return out


def same(one: xr.Dataset, two: xr.Dataset) -> None:
    """Bit by bit, attributes of variables too."""
    for name in [*schema.SPECTRA, "wavelength"]:
        mine, theirs = one[name].to_numpy(), two[name].to_numpy()
        assert mine.dtype == theirs.dtype, name
        assert one[name].dims == two[name].dims
        if mine.dtype.kind == "T":
            assert mine.tolist() == theirs.tolist()
        else:
            assert mine.tobytes() == theirs.tobytes(), name
        assert json.dumps(one[name].attrs) == json.dumps(two[name].attrs)


def test_xarray_alone_reads_it(out: Path, store: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(out)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    flux = Survey.open(store).dataset(GROUP)["flux"][7].to_numpy()
    assert done.stdout.split() == [str(ROWS), str(float(flux.sum())), "0000007"]


def test_it_is_sharded_and_consolidated(out: Path) -> None:
    flux = zarr.open_array(out / "flux", mode="r")
    assert flux.chunks == (512, 12)
    assert flux.shards == (4096, 12)
    assert [file.name for file in (out / "flux" / "c").rglob("*") if file.is_file()] == ["0"]
    about = json.loads((out / "zarr.json").read_text())
    assert set(schema.SPECTRA) <= set(about["consolidated_metadata"]["metadata"])


def test_it_says_where_it_came_from(out: Path, store: str) -> None:
    attrs = xr.open_zarr(out).attrs
    assert attrs["store"] == store
    assert attrs["snapshot"] == Survey.open(store).snapshot
    assert attrs["config"] == "sdss"
    assert attrs["card_digest"] == "00000000"
    assert "rows" not in attrs


def test_columns_only_where_asked(store: str, tmp_path: Path) -> None:
    export_store(store, tmp_path / "out.zarr", spectra=False)
    found = xr.open_zarr(tmp_path / "out.zarr")
    assert "flux" not in found
    assert "z" in found


def test_there_and_back_is_the_same_to_the_bit(
    out: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "STEP_ROWS", 512)
    back = str(tmp_path / "back.icechunk")
    assert import_zarr(out, back) == GROUP
    same(Survey.open(back).dataset(GROUP), Survey.open(store).dataset(GROUP))
    assert list(verify(back)) == []
    attrs = Survey.open(back).attrs(GROUP)
    assert attrs["imported_from"] == str(out)
    assert attrs["grid"] == Survey.open(store).attrs(GROUP)["grid"]
    assert attrs["rows"] == ROWS
    assert attrs["store"] == store
    assert not Path(f"{back}.lease").exists()


def test_a_selection_comes_back_as_it_was(store: str, tmp_path: Path) -> None:
    chosen = open_survey(store).spectra.select("z < 0.1")
    out = export(chosen, tmp_path / "out.zarr")
    back = str(tmp_path / "back.icechunk")
    import_zarr(out, back)
    same(Survey.open(back).dataset(GROUP), chosen.compute())


def test_a_zarr_that_we_did_not_write_is_taken(store: str, tmp_path: Path) -> None:
    ds = Survey.open(store).dataset(GROUP).isel(spectrum=slice(30)).load()
    ds.attrs = {}
    ds["mine"] = ("spectrum", np.arange(30.0), {"units": "1"})
    for variable in ds.variables.values():
        variable.encoding.clear()
    ds.to_zarr(tmp_path / "theirs.zarr", zarr_format=3, consolidated=False)
    back = str(tmp_path / "back.icechunk")
    with pytest.raises(ValueError, match=r"does not say its configuration; name one"):
        import_zarr(tmp_path / "theirs.zarr", back)
    import_zarr(tmp_path / "theirs.zarr", back, "mylab")
    found = Survey.open(back).dataset("spectra/mylab")
    same(found, ds)
    np.testing.assert_array_equal(found["mine"], ds["mine"])
    grid = Grid(**Survey.open(back).attrs("spectra/mylab")["grid"])
    np.testing.assert_allclose(grid.wavelength, ds["wavelength"], atol=0.01)


def test_a_group_that_is_there_is_refused(out: Path, store: str, tmp_path: Path) -> None:
    before = Survey.open(store).snapshot
    with pytest.raises(ValueError, match=r"has spectra/sdss already; import into another store"):
        import_zarr(out, store)
    assert Survey.open(store).snapshot == before
    import_zarr(out, back := str(tmp_path / "b.icechunk"), "one")
    import_zarr(out, back, "two")
    assert [g for g in Survey.open(back).groups() if g.startswith("spectra/")] == [
        "spectra/one",
        "spectra/two",
    ]


def test_missing_variables_are_named(out: Path, tmp_path: Path) -> None:
    xr.open_zarr(out, chunks=None).drop_vars(["ivar", "object_id"]).to_zarr(
        tmp_path / "poor.zarr", consolidated=False
    )
    with pytest.raises(SchemaError, match=r"poor.zarr: no variable 'ivar', 'object_id'"):
        import_zarr(tmp_path / "poor.zarr", str(tmp_path / "b.icechunk"))
    assert not (tmp_path / "b.icechunk").exists()


def test_values_that_a_survey_cannot_have_are_refused_whole(out: Path, tmp_path: Path) -> None:
    ds = xr.open_zarr(out, chunks=None).load()
    ds["ivar"].values[ROWS - 2, 3] = -1
    for variable in ds.variables.values():
        variable.encoding.clear()
    ds.to_zarr(tmp_path / "bad.zarr", consolidated=False)
    back = str(tmp_path / "b.icechunk")
    with pytest.raises(SchemaError, match=r"'ivar' is negative or not finite: 1 values"):
        import_zarr(tmp_path / "bad.zarr", back)
    assert Survey.open(back).groups() == []
    import_zarr(out, back)


def test_a_store_that_another_writes_to_is_refused(out: Path, tmp_path: Path) -> None:
    back = str(tmp_path / "b.icechunk")
    Survey.create(back)
    with writing(back, "test"), pytest.raises(LeaseError, match=r"writes to this store"):
        import_zarr(out, back)


def test_no_zarr_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.zarr: no Zarr folder here"):
        import_zarr(tmp_path / "none.zarr", str(tmp_path / "b.icechunk"))
