"""Formats of files, many spectra in one file, catalogues, specutils."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from storage.schema import Reason, Status
from tests.storage.table_mock import (
    GRID,
    HOUSE,
    LINE,
    SAID,
    axis,
    centre,
    columns,
    density,
    read,
    reader,
    write_image,
    write_table,
)

N = 7


def rows(*, shared: bool = False) -> dict[str, Any]:
    """Columns of N spectra, each brighter than the last by one, a row each."""
    wave, vacuum = axis()
    level = 1.0 + np.arange(N)[:, None]
    made = {
        "TARGETID": 1000 + np.arange(N),
        "RA": 10.0 + np.arange(N),
        "DEC": -5.0 - np.arange(N),
        "Z": 0.1 * np.arange(N),
        "WAVE": np.tile(wave, (N, 1)),
        "FLUX": density(vacuum) * level,
        "IVAR": np.full((N, wave.size), 4.0),
    }
    if shared:
        del made["WAVE"]
    return made


OPTIONS = {"flux_unit": str(HOUSE), "wavelength_unit": "Angstrom", "identity": "target_id"}
OPTIONS |= {"medium": "vacuum", "frame": "heliocentric"}


def write_rows(path: Path, *, shared: bool = False) -> None:
    made = rows(shared=shared)
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({k: list(v) for k, v in made.items()}), path)
        return
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(Table(made), name="SPECTRA")]
    if shared:
        hdus.append(fits.ImageHDU(axis()[0], name="WAVELENGTH"))
    fits.HDUList(hdus).writeto(path)


@pytest.mark.parametrize(("suffix", "shared"), [("fits", 0), ("fits", 1), ("parquet", 0)])
def test_a_row_is_a_spectrum_where_flux_is_an_array(
    tmp_path: Path, suffix: str, shared: int
) -> None:
    write_rows(tmp_path / f"a.{suffix}", shared=bool(shared))
    ds = read(tmp_path, **OPTIONS)
    assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
    assert ds["target_id"].to_numpy().tolist() == [str(1000 + n) for n in range(N)]
    assert ds["source_row"].to_numpy().tolist() == list(range(N))
    assert ds["observation"].to_numpy().tolist() == [f"a:{n}" for n in range(N)]
    np.testing.assert_allclose(ds["z"], 0.1 * np.arange(N))
    np.testing.assert_allclose(ds["flux"][:, 5] / ds["flux"][0, 5], 1 + np.arange(N), rtol=1e-6)


@pytest.mark.parametrize("ragged", [False, True])
def test_arrays_of_variable_length_are_read_where_they_have_one(
    tmp_path: Path, ragged: bool
) -> None:
    made = rows()
    many = {name: made[name] for name in ("WAVE", "FLUX", "IVAR")}
    lists = {
        name: [*values[:-1], values[-1][: -5 if ragged else None]] for name, values in many.items()
    }
    table = [
        fits.Column(name, "PD()", array=np.array(v, dtype=object)) for name, v in lists.items()
    ]
    table += [fits.Column(name, "D", array=made[name]) for name in ("RA", "DEC", "Z")]
    fits.BinTableHDU.from_columns(table).writeto(tmp_path / "a.fits")
    ds = read(tmp_path, **OPTIONS)
    assert ds.sizes["spectrum"] == N
    if ragged:
        assert "rows have 2 numbers of pixels, 853 to 858" in str(ds["reason"].to_numpy()[0])
    else:
        assert (ds["status"] == Status.DONE).all(), ds["reason"].to_numpy()
        assert centre(ds) == pytest.approx(LINE, abs=0.005)


@pytest.mark.parametrize("suffix", ["fits", "parquet"])
def test_a_part_of_a_file_is_those_rows(tmp_path: Path, suffix: str) -> None:
    write_rows(tmp_path / f"a.{suffix}")
    made = reader(**OPTIONS)
    (source,) = made.find(str(tmp_path), "table")
    whole = made.read(source, str(tmp_path), "table")
    for row in (0, 5):
        part = made.read(source.part(row, row + 1), str(tmp_path), "table")
        assert part.equals(whole.isel(spectrum=[row]))


def test_a_file_of_many_stands_alone_in_the_order_of_paths(tmp_path: Path) -> None:
    for name in ("a", "c", "d"):
        write_table(tmp_path / f"{name}.fits", columns())
    write_rows(tmp_path / "b.fits")
    sources = list(reader(**OPTIONS).find(str(tmp_path), "table"))
    found = [([Path(file).stem for file in source.files], source.rows) for source in sources]
    assert found == [(["a"], 1), (["b"], N), (["c", "d"], 2)]


def test_rows_of_an_image_may_be_spectra_or_parts_of_one(tmp_path: Path) -> None:
    wave, vacuum = axis()
    cards = {"CRVAL1": wave[0], "CDELT1": wave[1] - wave[0], "CUNIT1": "Angstrom"}
    parts = np.stack([np.full(wave.size, 4.0), density(vacuum), 0 * wave])
    write_image(tmp_path / "a.fits", parts, **cards)
    ds = read(tmp_path, **OPTIONS, rows={"flux": 1, "ivar": 0, "mask": 2})
    assert ds["status"].to_numpy().tolist() == [Status.DONE], ds["reason"].to_numpy()
    assert centre(ds) == pytest.approx(LINE, abs=0.005)
    ivar = ("IVAR", 0 * parts + 4)
    write_image(tmp_path / "a.fits", parts + density(vacuum), ivar, **cards)
    ds = read(tmp_path, **OPTIONS)
    assert ds["source_row"].to_numpy().tolist() == [0, 1, 2]
    assert centre(ds.isel(spectrum=[2])) == pytest.approx(LINE, abs=0.005)


def test_axes_of_one_pixel_are_no_axes(tmp_path: Path) -> None:
    wave, vacuum = axis()
    cards = {"CRVAL1": wave[0], "CDELT1": wave[1] - wave[0], "CUNIT1": "Angstrom"}
    four = np.stack([density(vacuum), density(vacuum), 0 * wave, 0.5 + 0 * wave])[:, None]
    write_image(tmp_path / "a.fits", four, **cards)
    ds = read(tmp_path, **OPTIONS, rows={"flux": 0, "sigma": 3})
    assert centre(ds) == pytest.approx(LINE, abs=0.005)


def test_positions_of_a_table_beside_the_image(tmp_path: Path) -> None:
    wave, vacuum = axis()
    cards = {"CRVAL1": wave[0], "CDELT1": wave[1] - wave[0], "CUNIT1": "Angstrom"}
    flux = np.tile(density(vacuum), (2, 1))
    path = write_image(tmp_path / "a.fits", flux, ("IVAR", 0 * flux + 4), **cards)
    fibres = Table({"NAME": ["one", "two"], "RA": [0.5, 1.0], "DEC": [-0.5, 0.5], "Z": [0.1, 0.2]})
    with fits.open(path, mode="append") as hdus:
        hdus.append(fits.BinTableHDU(fibres, name="FIBRES"))
    ds = read(tmp_path, **OPTIONS, rows_hdu="FIBRES", angle="rad")
    np.testing.assert_allclose(ds["ra"], np.degrees([0.5, 1.0]))
    Table({"file": ["a:0"], "RA": [12.0], "DEC": [3.0]}).write(tmp_path / "list.csv")
    listed = read(tmp_path, **OPTIONS, rows_hdu="FIBRES", angle="rad", catalog="list.csv")
    np.testing.assert_allclose(listed["ra"], [12.0, np.degrees(1.0)])
    assert ds["target_id"].to_numpy().tolist() == ["one", "two"]


@pytest.mark.parametrize("suffix", ["csv", "fits", "ecsv"])
def test_a_catalogue_goes_above_the_header(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / "sub" / f"{name}.fits", columns())
    made = Table({"spec": ["sub/b.fits", "elsewhere/c"], "Z": [0.5, 0.7], "CLASS": ["QSO", "x"]})
    made.write(tmp_path / f"list.{suffix}")
    ds = read(tmp_path, catalog=f"list.{suffix}", catalog_key="spec", pattern=("[ab].fits",))
    assert ds["z"].to_numpy().tolist() == [0.1, 0.5]
    assert ds["class"].to_numpy().tolist() == ["", "QSO"]


def test_a_catalogue_may_list_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.fits")
    Table({"file": ["a.fits:2"], "z": [3.0]}).write(tmp_path / "list.csv")
    ds = read(tmp_path, **OPTIONS, catalog="list.csv")
    np.testing.assert_allclose(ds["z"], [0, 0.1, 3.0, 0.3, 0.4, 0.5, 0.6])


def test_a_missing_catalogue_is_named_before_anything_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "a.fits", columns())
    with pytest.raises(FileNotFoundError, match=r"list\.csv: no such catalogue"):
        read(tmp_path, catalog="list.csv")
    Table({"name": ["a"]}).write(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"no column 'file' \(columns: name\).*catalog_key"):
        read(tmp_path, catalog="list.csv")


def spectrum(kind: str) -> Any:
    """The line as specutils has it; its first pixel is masked."""
    specutils = pytest.importorskip("specutils")
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    made = {"std": StdDevUncertainty, "var": VarianceUncertainty, "ivar": InverseVariance}[kind]
    power = {"std": 1, "var": 2, "ivar": -2}[kind]
    wave = GRID.wavelength
    return specutils.Spectrum(
        flux=density(wave) * HOUSE,
        spectral_axis=wave * u.AA,
        uncertainty=made(np.full(wave.size, 0.5**power), unit=HOUSE**power),
        mask=np.arange(wave.size) == 0,
        meta={"header": fits.Header({"RA": 10.0, "DEC": 2.0, **SAID})},
    )


def test_specutils_reads_its_own_formats(tmp_path: Path) -> None:
    spectrum("std").write(tmp_path / "a.fits", format="tabular-fits")
    for loader in ("tabular-fits", "specutils"):
        ds = read(tmp_path, loader=loader)
        assert ds["status"].to_numpy().tolist() == [Status.DONE], ds["reason"].to_numpy()
        np.testing.assert_allclose(ds["flux"][0, 1:], density(GRID.wavelength[1:]), rtol=1e-6)
        assert float(ds["ra"][0]) == 10.0


@pytest.mark.parametrize("kind", ["std", "var", "ivar"])
def test_any_uncertainty_of_specutils_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = spectrum(kind)
    monkeypatch.setattr("specutils.Spectrum.read", lambda *_, **__: made)
    ds = read(write_table(tmp_path / "a.fits", columns()).parent, loader="specutils")
    np.testing.assert_allclose(ds["ivar"][0, 1:], 4.0, rtol=1e-6)
    assert float(ds["ivar"][0, 0]) == 0


def test_specutils_is_asked_for_by_name_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "a.fits", columns())
    monkeypatch.setitem(sys.modules, "specutils", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install specmill\[specutils\]"):
        next(reader(loader="specutils").find(str(tmp_path), "table"))


def test_a_reader_travels_to_workers() -> None:
    made = reader(**OPTIONS)
    assert pickle.loads(pickle.dumps(made)) == made


def image(path: Path) -> Path:
    """An image of counts of a thousand and more, and its ivar."""
    wave, vacuum = axis()
    cards = {"CRVAL1": wave[0], "CDELT1": wave[1] - wave[0], "CTYPE1": "WAVE", "CUNIT1": "Angstrom"}
    ivar = np.full(wave.size, 4.0, "f4")
    unit = "1E-17 erg/(s cm2 Angstrom)"
    return write_image(path, 1000 * density(vacuum), ("IVAR", ivar), BUNIT=unit, **cards)


@pytest.mark.parametrize("hdu", [0, 1])
def test_floats_that_a_header_calls_whole_numbers_are_refused(tmp_path: Path, hdu: int) -> None:
    path = image(tmp_path / "a.fits")
    content, old = path.read_bytes(), b"BITPIX  =                  -32"
    at = [content.index(old), content.rindex(old)][hdu]
    new = old.replace(b"-32", b" 32")
    path.write_bytes(content[:at] + new + content[at + len(new) :])
    ds = read(tmp_path, uncertainty_unit="same")
    assert ds["reason_code"].item() == Reason.ABSURD
    assert "they look like the bits of floats" in ds["reason"].item()


def test_whole_numbers_that_are_meant_are_read(tmp_path: Path) -> None:
    path = image(tmp_path / "a.fits")
    with fits.open(path, mode="update", memmap=False) as hdus:
        hdus[0].data = hdus[0].data.astype("i4")
        hdus[1].data = hdus[1].data.astype("i8")
    ds = read(tmp_path, uncertainty_unit="same")
    assert ds["status"].item() == Status.DONE
    assert centre(ds) == pytest.approx(LINE, abs=200)
    assert float(ds["flux"].max()) > 1000
