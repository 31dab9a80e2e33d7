"""FITS tables as bytes, against astropy."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage.fits import FitsError, parse, value
from storage.fits_write import card, primary, table

KINDS = np.dtype(
    [
        *(("TEXT", "S7"), ("BYTE", "u1"), ("SHORT", ">i2"), ("INT", ">i4"), ("LONG", ">i8")),
        *(("FLOAT", ">f4"), ("DOUBLE", ">f8"), ("FIVE", ">f4", (5,))),
    ]
)


def rows() -> np.ndarray:
    found = np.zeros(3, dtype=KINDS)
    found["TEXT"] = b"galaxy "
    for number, name in enumerate(KINDS.names[1:], start=1):
        found[name] = number
    found["FIVE"] = np.arange(15).reshape(3, 5)
    return found


def test_every_kind_of_column_is_written_as_astropy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "kinds.fits"
    path.write_bytes(primary([card("NUMBER", -1.5e-300)]) + table("KINDS", rows()))
    with fits.open(path, memmap=False) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["NUMBER"] == -1.5e-300
        assert list(hdus["KINDS"].columns.names) == list(KINDS.names)
        for name in KINDS.names[1:]:
            np.testing.assert_array_equal(hdus[1].data[name], rows()[name], err_msg=name)
        assert (hdus[1].data["TEXT"] == "galaxy").all()


def test_only_wanted_columns_are_read() -> None:
    content = primary([]) + table("KINDS", rows())
    (found,) = parse(content, frozenset({"LONG", "FIVE", "ABSENT"})).extensions
    assert found is not None
    assert found.name == "KINDS"
    assert ("LONG" in found, "ABSENT" in found, "BYTE" in found) == (True, False, False)
    np.testing.assert_array_equal(found.rows["FIVE"], rows()["FIVE"])


def test_extensions_that_are_no_tables_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "image.fits"
    image = fits.ImageHDU(np.ones((7, 5), dtype="f4"))
    fits.HDUList([fits.PrimaryHDU(np.ones(9)), image]).writeto(path)
    path.write_bytes(path.read_bytes() + table("KINDS", rows()))
    first, second = parse(path.read_bytes(), frozenset({"INT"})).extensions
    assert first is None
    assert second is not None
    assert (second.rows["INT"] == 3).all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(True, "T"), (3, "3"), (2.5, "2.5"), ("QSO", "QSO"), ("", ""), ("a/b", "a/b")],
)
def test_a_card_gives_its_value_back(content: bool | int | float | str, expected: str) -> None:
    header = card("EARLIER", "NAME    = 'no'") + card("NAME", content, "what it is")
    assert value(header, "NAME") == expected
    assert value(header, "OTHER") is None


@pytest.mark.parametrize("size", [0, 79, 2879, 2960, 5759, 5800])
def test_a_file_cut_short_is_refused(size: int) -> None:
    content = primary([]) + table("KINDS", rows())
    with pytest.raises(FitsError, match=r"truncated|not a FITS file"):
        parse(content[:size], frozenset({"INT"}))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            b"TFIELDS =                    8",
            b"TFIELDS =           1000000000",
            "TFIELDS is 1000000000",
        ),
        (b"TFIELDS =                    8", b"TFIELDS =                    7", "NAXIS1 is 54"),
        (b"NAXIS1  =                   54", b"NAXIS1  =           9000000000", "truncated"),
        (b"NAXIS1  =                   54", b"NAXIS1  =                  x54", "a whole number"),
        (b"'5E      '", b"'9999999Q'", "NAXIS1 is 54"),
        (b"'5E      '", b"'5Y      '", "none that FITS knows"),
        (b"PCOUNT  =", b"PCOUMT  =", "expected PCOUNT"),
    ],
)
def test_sizes_that_lie_are_refused_before_memory_is_taken(
    old: bytes, new: bytes, words: str
) -> None:
    content = primary([]) + table("KINDS", rows())
    assert old in content
    with pytest.raises(FitsError, match=words):
        parse(content.replace(old, new), frozenset({"INT"}))


@pytest.mark.parametrize("dims", ["(2,3)", "(1)", "(99999999,99999999)"])
@pytest.mark.parametrize("column", [1, 8])
def test_dimensions_of_another_size_than_the_column_are_refused(dims: str, column: int) -> None:
    content = primary([]) + table("KINDS", rows())
    blank = f"{'END':<80}{'':80}".encode()
    assert content.count(blank) == 2
    told = f"{card(f'TDIM{column}', dims).decode():<80}{'END':<80}".encode()
    at = content.rindex(blank)
    content = content[:at] + told + content[at + len(told) :]
    with pytest.raises(FitsError, match=rf"TDIM{column} is .*, [0-9]+ values, where TFORM says"):
        parse(content, frozenset({"TEXT", "FIVE"}))
    with pytest.raises(FitsError, match=r"TDIM"):
        parse(content, frozenset({"INT"}))


def test_dimensions_of_the_size_of_the_column_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dims.fits"
    values = np.arange(18, dtype="f4").reshape(3, 2, 3)
    column = fits.Column("CUBE", "6E", dim="(3,2)", array=values)
    fits.BinTableHDU.from_columns([column]).writeto(path)
    (found,) = parse(path.read_bytes(), frozenset({"CUBE"})).extensions
    assert found is not None
    np.testing.assert_array_equal(found.rows["CUBE"], values)


def test_missing_values_are_values_as_the_file_has_them(tmp_path: Path) -> None:
    path = tmp_path / "null.fits"
    columns = [fits.Column("INT", "J", array=[1, -999], null=-999)]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    (found,) = parse(path.read_bytes(), frozenset({"INT"})).extensions
    assert found is not None
    assert list(found.rows["INT"]) == [1, -999]


@pytest.fixture
def checked(tmp_path: Path) -> bytes:
    """A table of an odd number of bytes, with the checksums of astropy."""
    path = tmp_path / "checked.fits"
    path.write_bytes(primary([]) + table("KINDS", rows()))
    with fits.open(path, memmap=False) as hdus:
        hdus.writeto(path, overwrite=True, checksum=True)
    return path.read_bytes()


def test_checksums_of_astropy_hold(checked: bytes) -> None:
    (found,) = parse(checked, frozenset({"INT", "TEXT"})).extensions
    assert found is not None
    np.testing.assert_array_equal(found.rows["INT"], rows()["INT"])
    assert value(found.header, "EXTNAME") == "KINDS"


@pytest.mark.parametrize("place", range(-2880, 0, 97))
def test_any_changed_byte_of_the_data_is_found(checked: bytes, place: int) -> None:
    changed = bytearray(checked)
    changed[place] ^= 0x10
    with pytest.raises(FitsError, match=r"KINDS: DATASUM verification failed"):
        parse(bytes(changed), frozenset({"INT"}))


def test_a_changed_header_is_found(checked: bytes) -> None:
    changed = checked.replace(b"TTYPE2  = 'BYTE", b"TTYPE2  = 'BITE")
    assert changed != checked
    with pytest.raises(FitsError, match=r"KINDS: CHECKSUM verification failed"):
        parse(changed, frozenset({"INT"}))


def test_tables_that_are_not_wanted_promise_nothing(checked: bytes) -> None:
    changed = bytearray(checked)
    changed[-2880] ^= 1
    assert parse(bytes(changed), frozenset({"INT"}), wanted=0).extensions == (None,)
