"""Where the HDUs of a FITS file lie, and rows of one: astropy says the same."""

import gc
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage import fits_scan, fits_unpack
from storage.fits import FitsError

RNG = np.random.default_rng(9)
IMAGES = {
    "f4": RNG.normal(size=(7, 3, 5)).astype("f4"),
    "f8": RNG.normal(size=(7, 5)),
    "u1": RNG.integers(0, 255, (7, 5)).astype("u1"),
    "i2": RNG.integers(-99, 99, (7, 5)).astype("i2"),
    "u2": RNG.integers(0, 65535, (7, 5)).astype("u2"),
    "u4": RNG.integers(0, 1 << 32, (7, 5)).astype("u4"),
    "i8": RNG.integers(-(1 << 60), 1 << 60, (7, 5)),
}


def table() -> fits.BinTableHDU:
    columns = [fits.Column("ID", "K", array=np.arange(7)), fits.Column("T", "3A", array=["ab"] * 7)]
    return fits.BinTableHDU.from_columns(columns, name="ROWS")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with a table, images of all kinds, and one of them in tiles."""
    images = [fits.ImageHDU(image, name=name) for name, image in IMAGES.items()]
    packed = fits.CompImageHDU(IMAGES["u4"], name="packed")
    fits.HDUList([fits.PrimaryHDU(), table(), *images, packed]).writeto(tmp_path / "a.fits")
    return str(tmp_path / "a.fits")


def test_hdus_lie_where_astropy_finds_them(path: str) -> None:
    found = fits_scan.scan(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        assert [hdu.name for hdu in found[1:]] == [hdu.name for hdu in hdus[1:]]
        assert [hdu.offset for hdu in found] == [hdu.fileinfo()["datLoc"] for hdu in hdus]
        assert [hdu.header.decode() for hdu in found] == [
            re.split("END *$", hdu.header.tostring())[0] for hdu in hdus
        ]
        for ours, theirs in zip(found[2:-1], hdus[2:-1], strict=True):
            assert (ours.shape, ours.bitpix) == (theirs.shape, theirs.header["BITPIX"])


@pytest.mark.parametrize("name", [*IMAGES, "packed"])
def test_rows_are_those_of_astropy(path: str, name: str) -> None:
    (hdu,) = (hdu for hdu in fits_scan.scan(path) if hdu.name == name.upper())
    expected = fits.getdata(path, name)[2:5]
    actual = fits_scan.rows(path, hdu, 2, 5)
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype.isnative
    assert (actual.dtype.kind, actual.dtype.itemsize) == (expected.dtype.kind, expected.itemsize)
    assert hdu.compressed == (name == "packed")


def test_a_scale_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "scaled.fits"
    hdu = fits.ImageHDU(np.arange(6, dtype="f8").reshape(2, 3) / 4 + 10, name="S")
    hdu.scale("int16", bscale=0.25, bzero=10)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    actual = fits_scan.rows(str(path), fits_scan.scan(str(path))[1], 0, 2)
    np.testing.assert_array_equal(actual, [[10, 10.25, 10.5], [10.75, 11, 11.25]])


def test_a_table_has_the_columns_that_are_wanted(path: str) -> None:
    hdu = fits_scan.scan(path)[1]
    found = fits_scan.table(path, hdu, frozenset({"ID", "OTHER"}))
    assert found.rows.dtype.names == ("ID",)
    np.testing.assert_array_equal(found.rows["ID"], np.arange(7))


def test_what_is_no_table_or_no_image_is_named(path: str) -> None:
    _, rows, image, *_ = fits_scan.scan(path)
    with pytest.raises(FitsError, match=r"F4 is no binary table but IMAGE"):
        fits_scan.table(path, image, frozenset({"ID"}))
    with pytest.raises(FitsError, match=r"ROWS is no image but BINTABLE"):
        fits_scan.rows(path, rows, 0, 1)
    with pytest.raises(FitsError, match=r"F4: rows 5:9 of \(7, 3, 5\)"):
        fits_scan.rows(path, image, 5, 9)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: b"", r"not a FITS file: it begins with b''"),
        (lambda c: b"GIF89a" + c, r"not a FITS file: it begins with b'GIF89aSIM'"),
        (
            lambda c: c[:2880].replace(b"END ", b"FIN "),
            r"truncated: the header of HDU 0 has no END card",
        ),
        (lambda c: c[:-2880], r"truncated: HDU 9 ends at byte [0-9]+, the file at [0-9]+"),
        (lambda c: c.replace(b"NAXIS1  =   ", b"NAXIS1  = x ", 1), r"NAXIS1 is 'x .*whole number"),
        (
            lambda c: c.replace(
                b"BITPIX  =                    8", b"BITPIX  =                    7"
            ),
            r"HDU 0: BITPIX is 7, PCOUNT 0; not FITS",
        ),
    ],
)
def test_damage_is_told_in_words(path: str, damage: Callable[[bytes], bytes], words: str) -> None:
    Path(path).write_bytes(damage(Path(path).read_bytes()))
    with pytest.raises(FitsError, match=words):
        fits_scan.scan(path)


def test_a_compressed_image_with_another_number_of_tiles_is_told(path: str) -> None:
    content = Path(path).read_bytes()
    old, new = (f"NAXIS2  = {rows:>20}".encode() for rows in (7, 8))
    at = content.rindex(old)
    Path(path).write_bytes(content[:at] + new + content[at + len(new) :])
    with pytest.raises(FitsError, match=r"PACKED: compressed in 7 tiles, and has 8 rows of them"):
        fits_scan.scan(path)


@pytest.mark.parametrize("tile", [(1, 5), (3, 2), (7, 5)])
def test_tiles_of_any_shape_are_counted(tmp_path: Path, tile: tuple[int, int]) -> None:
    path = tmp_path / "tiles.fits"
    image = fits.CompImageHDU(IMAGES["u4"], name="packed", tile_shape=tile)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    np.testing.assert_array_equal(
        fits_scan.rows(str(path), fits_scan.scan(str(path))[1], 0, 7), IMAGES["u4"]
    )


def test_a_copy_of_what_is_in_gzip_goes_when_nobody_holds_it(path: str, tmp_path: Path) -> None:
    content = Path(path).read_bytes()
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(content))
    copy = fits_unpack.Plain(str(packed))
    unpacked = Path(copy.path)
    assert unpacked.read_bytes() == content
    del copy
    gc.collect()
    assert not unpacked.exists()
    assert packed.exists()


def test_a_file_that_is_not_in_gzip_is_its_own_plain_one(path: str) -> None:
    assert fits_unpack.plain(path).path == path


def test_gzip_that_is_cut_is_told(path: str, tmp_path: Path) -> None:
    packed = tmp_path / "a.fits.gz"
    packed.write_bytes(gzip.compress(Path(path).read_bytes())[:-20])
    with pytest.raises(FitsError, match=r"truncated or damaged gzip"):
        fits_unpack.plain(str(packed))
