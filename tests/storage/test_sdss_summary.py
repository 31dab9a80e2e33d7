"""Spec files found through the table of a release: lazily, in bounded memory, none lost."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage.fits_write import primary, table
from storage.readers import sdss
from storage.schema import Reason, Status
from storage.sdss import summary as sdss_summary
from tests.storage.sdss_mock import fifth, load, mock

SDSS = sdss.build()


def specobj(path: Path, n: int, **columns: object) -> None:
    """A table as specObj: 234 bytes a row, 640 fibres of plate 266 and of each that follows."""
    rows = np.zeros(
        n,
        dtype=[
            *(("SURVEY", "S6"), ("PLATE", ">i4"), ("MJD", ">i4"), ("FIBERID", ">i4")),
            *(("RUN2D", "S8"), ("SPECPRIMARY", "u1"), ("CLASS", "S6"), ("REST", "S200")),
        ],
    )
    number = np.arange(n)
    rows["PLATE"], rows["MJD"], rows["FIBERID"] = 266 + number // 640, 51602, number % 640 + 1
    rows["RUN2D"], rows["SPECPRIMARY"] = b"26", number % 2
    rows["CLASS"] = np.array([b"GALAXY", b"QSO   ", b"STAR  "])[number % 3]
    for name, values in columns.items():
        rows[name] = values
    path.write_bytes(primary([]) + table("SPECOBJ", rows))


def found(root: Path, **options: object) -> list[str]:
    sources = sdss.build(summary="specObj.fits", **options).find(str(root), "sdss")
    return [str(Path(f).relative_to(root)) for source in sources for f in source.files]


def test_the_files_of_a_table_are_found_and_read(tmp_path: Path) -> None:
    ds = mock(3)
    SDSS.write(ds, str(tmp_path / "26/spectra/lite"), "sdss")
    specobj(tmp_path / "specObj.fits", 3)
    actual = load(tmp_path, summary="specObj.fits")
    assert (actual["status"] == Status.DONE).all()
    np.testing.assert_array_equal(actual["observation"], ds["observation"])
    np.testing.assert_array_equal(actual["flux"], ds["flux"])


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("lite", "26/spectra/lite/0266/spec-0266-51602-0001.fits"),
        ("full", "26/spectra/full/0266/spec-0266-51602-0001.fits"),
        ("flat", "spec-0266-51602-0001.fits"),
        ("redux/{run2d}/{plate}/{mjd}/{name}", "redux/26/266/51602/spec-0266-51602-0001.fits"),
    ],
)
def test_layouts_of_plates_are_known(tmp_path: Path, layout: str, expected: str) -> None:
    specobj(tmp_path / "specObj.fits", 1)
    assert found(tmp_path, layout=layout) == [expected]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("sdss5", "v6_1_3/spectra/lite/015143/59205/"),
        ("sdss5-full", "v6_1_3/spectra/full/015143/59205/"),
        ("sdss5-daily", "v6_1_3/spectra/daily/lite/015XXX/015143/59205/"),
        ("flat", ""),
    ],
)
@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("spec-015143-59205-04544940698.fits", "spec-015143-59205-04544940698.fits"),
        ("", "spec-015143-59205-4544940698.fits"),
    ],
)
def test_layouts_of_fields_are_known(
    tmp_path: Path, layout: str, expected: str, stated: str, name: str
) -> None:
    row = {"FIELD": 15143, "MJD": 59205, "CATALOGID": 4544940698}
    columns = [fits.Column(key, "K", array=[value], null=-999) for key, value in row.items()]
    columns += [fits.Column("RUN2D", "8A", array=["v6_1_3"])]
    columns += [fits.Column("SPEC_FILE", "40A", array=[stated])]
    hdu = fits.BinTableHDU.from_columns(columns, name="SPALL")
    hdu.writeto(tmp_path / "specObj.fits", checksum=True)
    path = tmp_path / expected / name
    path.parent.mkdir(parents=True, exist_ok=True)
    fifth(tmp_path).rename(path)
    assert found(tmp_path, layout=layout) == [expected + name]
    assert (load(tmp_path, summary="specObj.fits", layout=layout)["status"] == Status.DONE).all()


def test_rows_are_chosen_by_primary_and_class(tmp_path: Path) -> None:
    specobj(tmp_path / "specObj.fits", 12)
    fibers = lambda **options: [int(name[-9:-5]) - 1 for name in found(tmp_path, **options)]  # noqa: E731
    assert fibers(primary=True) == [1, 3, 5, 7, 9, 11]
    assert fibers(classes=("GALAXY", "QSO")) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert fibers(primary=True, classes=["QSO"]) == [1, 7]
    with pytest.raises(FileNotFoundError, match=r"none of its 12 rows is chosen"):
        fibers(classes=("PLANET",))


def test_a_large_table_is_read_a_slice_at_a_time(tmp_path: Path) -> None:
    """200,000 rows are 45 MB; a slice of 16,384 of them is 4."""
    specobj(tmp_path / "specObj.fits", 200_000)
    reader = sdss.build(summary="specObj.fits")
    tracemalloc.start()
    first = next(reader.find(str(tmp_path), "sdss"))
    begun = tracemalloc.get_traced_memory()[1]
    for _ in itertools.islice(reader.find(str(tmp_path), "sdss"), 50):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.rows == 512
    assert begun < 12e6
    assert most < 25e6


def test_later_slices_are_read_when_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specobj(tmp_path / "specObj.fits", 2000)
    monkeypatch.setattr(sdss_summary, "_ROWS", 600)
    sizes, stated = [], sdss_summary._stated
    monkeypatch.setattr(
        sdss_summary, "_stated", lambda rows, form: sizes.append(len(rows)) or stated(rows, form)
    )
    sources = sdss.build(summary="specObj.fits").find(str(tmp_path), "sdss")
    assert next(sources).rows == 512
    assert sizes == [600]
    assert [source.rows for source in sources] == [512, 512, 464]
    assert sizes == [600, 600, 600, 200]


def test_the_order_is_the_table_s_and_always_the_same(tmp_path: Path) -> None:
    specobj(tmp_path / "specObj.fits", 2000, PLATE=np.arange(2000, 0, -1))
    first, second = found(tmp_path), found(tmp_path)
    assert first == second
    # Sorted within a source of 512 only.
    assert [name[-20:-16] for name in first[::512]] == ["1489", "0977", "0465", "0001"]


def test_a_file_that_is_not_there_keeps_its_row(tmp_path: Path) -> None:
    SDSS.write(mock(), str(tmp_path / "26/spectra/lite"), "sdss")
    specobj(tmp_path / "specObj.fits", 2)
    for config, observation in (("sdss", "0266-51602-0002"), ("sdss-exposure", "0266-51602-0002")):
        ds = load(tmp_path, config, summary="specObj.fits")
        row = ds.isel(spectrum=-1)
        assert row["reason_code"] == Reason.UNREADABLE
        assert "No such file or directory, but specObj.fits names it" in row["reason"].item()
        assert row["observation"] == observation


@pytest.mark.parametrize("run2d", ["../..", "/etc", "26/../.."])
def test_a_path_that_leads_out_of_the_root_is_never_opened(tmp_path: Path, run2d: str) -> None:
    root = tmp_path / "survey"
    (written,) = SDSS.write(mock(), str(tmp_path / "secret"), "sdss")
    root.mkdir()
    specobj(root / "specObj.fits", 1, RUN2D=run2d.encode())
    for config in ("sdss", "sdss-exposure"):
        row = load(root, config, summary="specObj.fits", layout="{run2d}/{name}")
        assert row["reason_code"] == Reason.BAD_PATH
        assert "leads out of" in row["reason"].values[0]
        assert row["digest"] == ""
    assert Path(written).is_file()


def test_a_table_may_lie_elsewhere(tmp_path: Path) -> None:
    specobj(tmp_path / "table.fits", 1)
    reader = sdss.build(summary=str(tmp_path / "table.fits"), layout="flat")
    with pytest.raises(FileNotFoundError, match=r"files: no such folder"):
        next(reader.find(str(tmp_path / "files"), "sdss"))
    (tmp_path / "files").mkdir()
    (source,) = reader.find(str(tmp_path / "files"), "sdss")
    assert source.files == (str(tmp_path / "files/spec-0266-51602-0001.fits"),)


def test_a_packed_table_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "spAll.fits.gz").write_bytes(b"\x1f\x8b rest")
    with pytest.raises(ValueError, match=r"spAll.fits.gz is packed.* gunzip it"):
        next(sdss.build(summary="spAll.fits.gz").find(str(tmp_path), "sdss"))


def test_tables_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    find = lambda **options: next(  # noqa: E731
        sdss.build(summary="specObj.fits", **options).find(str(tmp_path), "sdss")
    )
    with pytest.raises(FileNotFoundError, match=r"specObj.fits: no such table"):
        find()
    path = tmp_path / "specObj.fits"
    path.write_bytes(b"plate,mjd,fiber")
    with pytest.raises(ValueError, match=r"specObj.fits: not a FITS file"):
        find()
    path.write_bytes(primary([]))
    with pytest.raises(ValueError, match=r"has no table"):
        find()
    path.write_bytes(primary([]) + table("T", np.zeros(2, dtype=[("PLATE", ">i4")])))
    with pytest.raises(ValueError, match=r"no column RUN2D, MJD, FIBERID"):
        find()
    kinds = [(name, ">i4") for name in ("PLATE", "MJD", "FIBERID", "RUN2D")]
    path.write_bytes(primary([]) + table("T", np.zeros(2, dtype=kinds)))
    with pytest.raises(ValueError, match=r"no column SPECPRIMARY"):
        find(primary=True)
    path.write_bytes(path.read_bytes()[:-2880])
    with pytest.raises(ValueError, match=r"truncated"):
        find()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"primary": True}, r"primary: of a table's rows; set summary"),
        ({"summary": "x", "layout": "heavy"}, r"'heavy' is none of"),
        ({"summary": "x", "layout": "{plate.real}/{name}"}, r"is none of"),
        ({"summary": "x", "layout": "{plate"}, r"expected '}'"),
        ({"sumary": "x"}, r"sumary"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sdss.build(**options)


def test_every_row_of_a_large_table_is_a_file(tmp_path: Path) -> None:
    specobj(tmp_path / "specObj.fits", 200_000)
    sources = [*sdss.build(summary="specObj.fits").find(str(tmp_path), "sdss")]
    assert {source.rows for source in sources[:-1]} == {512}
    assert sum(source.rows for source in sources) == 200_000
    assert sources[-1].files[-1].endswith("26/spectra/lite/0578/spec-0578-51602-0320.fits")
    assert len({file for source in sources for file in source.files}) == 200_000
