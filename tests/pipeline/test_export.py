"""Export: spectra and columns as FITS, plain Zarr and tables, whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy import units
from astropy.io import fits
from astropy.table import Table

from pipeline import export as exporting
from pipeline import spectra_table
from pipeline.export import export
from pipeline.extract import export_store
from storage import schema
from storage.store import Survey
from tests.pipeline import sound
from tests.pipeline.sound import GROUP

ROWS = 50


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sound.build(tmp_path_factory.mktemp("export") / "s.icechunk", ROWS, 120)


@pytest.fixture(scope="module")
def truth(store: str) -> xr.Dataset:
    """What is in it."""
    return Survey.open(store).dataset(GROUP).load()


@pytest.mark.parametrize("step", [7, 1024])
def test_fits_holds_spectra_and_columns_as_astropy_reads_them(
    store: str, truth: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(spectra_table, "STEP_ROWS", step)
    out = tmp_path / "out.fits"
    assert export_store(store, out, spectra=True) == ROWS
    with fits.open(out) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SPECTRA", "WAVELENGTH"]
        table = hdus["SPECTRA"].data
        for name in schema.SPECTRA:
            found, expected = table[name], truth[name].to_numpy()
            if expected.dtype.kind == "T":
                assert found.tolist() == expected.tolist()
            else:
                np.testing.assert_array_equal(found, expected, strict=False)
        assert table["mask"].dtype.kind == "u"
        assert table["object_id"].dtype == np.uint64
        np.testing.assert_array_equal(
            hdus["WAVELENGTH"].data["wavelength"], truth["wavelength"].to_numpy()
        )
        assert hdus["SPECTRA"].header["STORE"] == store
    flux = Table.read(out, hdu="SPECTRA")["flux"]
    assert flux.unit.is_equivalent("erg s-1 cm-2 Angstrom-1")
    assert (1 * flux.unit).to_value(units.Unit(schema.FLUX_UNIT)) == pytest.approx(1)


def test_extreme_integers_survive_fits(tmp_path: Path) -> None:
    """FITS has no unsigned numbers: they are stored less half their range."""
    extremes = {
        "a": np.array([0, 1, 2**63, 2**64 - 1], "u8"),
        "b": np.array([0, 1, 2**31, 2**32 - 1], "u4"),
        "c": np.array([0, 1, 2**15, 2**16 - 1], "u2"),
        "d": np.array([-(2**63), -1, 0, 2**63 - 1], "i8"),
        "e": np.array([0, 1, 128, 255], "u1"),
        "f": np.array([True, False, True, False]),
        "g": np.array([-128, -1, 0, 127], "i1"),
    }
    ds = xr.Dataset({name: ("spectrum", values) for name, values in extremes.items()})
    found = fits.getdata(export(ds, tmp_path / "out.fits"), "SPECTRA")
    for name, values in extremes.items():
        np.testing.assert_array_equal(found[name], values)


def test_text_that_is_not_ascii_becomes_question_marks(tmp_path: Path) -> None:
    text = np.array(["", "Å", "a longer one"], np.dtypes.StringDType())
    ds = xr.Dataset({"name": ("spectrum", text)})
    found = fits.getdata(export(ds, tmp_path / "out.fits"), "SPECTRA")
    assert found["name"].tolist() == ["", "?", "a longer one"]


@pytest.mark.parametrize("suffix", [".fits", ".zarr", ".parquet", ".csv"])
def test_nothing_selected_is_an_empty_file(store: str, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    spectra = suffix in exporting.WITH_SPECTRA
    assert export_store(store, out, "z > 99", spectra=spectra) == 0
    match suffix:
        case ".fits":
            assert len(fits.getdata(out, "SPECTRA")) == 0
        case ".zarr":
            assert xr.open_zarr(out).sizes["spectrum"] == 0
        case ".parquet":
            assert len(pd.read_parquet(out)) == 0
        case _:
            assert len(pd.read_csv(out)) == 0


def test_csv_in_steps_is_one_table(
    store: str, truth: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "COLUMN_ROWS", 7)
    export_store(store, tmp_path / "out.csv")
    np.testing.assert_array_equal(pd.read_csv(tmp_path / "out.csv")["z"], truth["z"])


def test_an_expression_selects(store: str, truth: xr.Dataset, tmp_path: Path) -> None:
    count = export_store(store, tmp_path / "out.parquet", "z < 0.1 and split == 2")
    good = (truth["z"] < 0.1) & (truth["split"] == 2)
    assert 0 < count == int(good.sum())
    names = pd.read_parquet(tmp_path / "out.parquet")["observation"]
    assert names.tolist() == truth["observation"].to_numpy()[good.to_numpy()].tolist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_takes_no_spectra(store: str, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"takes columns only; spectra go to .zarr, .fits"):
        export_store(store, tmp_path / f"out{suffix}", spectra=True)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pipeline.extract import export_store
store, folder = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
export_store(store, f"{folder}/good.fits")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for suffix, spectra in ((".fits", True), (".zarr", True), (".parquet", None), (".csv", None)):
    try:
        export_store(store, f"{folder}/out{suffix}", spectra=spectra)
    except OSError as error:
        print(suffix)
"""


def test_a_full_disk_leaves_no_half_file(store: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, store, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [".fits", ".zarr", ".parquet", ".csv"], done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["good.fits"]


@pytest.mark.parametrize("suffix", [".fits", ".zarr", ".parquet"])
def test_ctrl_c_leaves_no_half_file_and_the_old_one(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    if suffix != ".zarr":
        out.write_text("the one before")
    write = exporting.WRITERS[suffix]

    def interrupted(*given: object) -> None:
        write(*given)  # type: ignore[arg-type]
        # Whoever starts tests in the background has them ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setitem(exporting.WRITERS, suffix, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_store(store, out)
    assert list(tmp_path.iterdir()) == ([] if suffix == ".zarr" else [out])
    assert suffix == ".zarr" or out.read_text() == "the one before"


def test_what_a_killed_export_left_is_overwritten_by_nobody(store: str, tmp_path: Path) -> None:
    left = tmp_path / ".partial-1-out.csv"
    left.write_text("half")
    export_store(store, tmp_path / "out.csv")
    assert left.read_text() == "half"
    assert len(pd.read_csv(tmp_path / "out.csv")) == ROWS
