"""What reading all of a file shows: its digest, and checksums that do not hold."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from storage import fits_scan, fits_whole
from storage.fits import FitsError, parse
from storage.schema import Reason, Status
from tests.storage import desi_mock, table_mock, weave_mock


def write(path: Path) -> bytes:
    """Images of odd sizes, one larger than what is read at once, and a table; with checksums."""
    rng = np.random.default_rng(1)
    images = [
        rng.normal(size=(5, 7)),
        rng.integers(0, 9, 700_001).astype("i2"),
        np.zeros(720, "f4"),
    ]
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1, 2, 3])], name="T")
    hdus = [
        fits.PrimaryHDU(),
        *(fits.ImageHDU(x, name=f"I{n}") for n, x in enumerate(images)),
        table,
    ]
    fits.HDUList(hdus).writeto(path, checksum=True)
    return path.read_bytes()


def test_the_digest_is_that_of_the_bytes_and_the_sums_of_astropy_hold(tmp_path: Path) -> None:
    content = write(tmp_path / "a.fits")
    found = fits_whole.whole(str(tmp_path / "a.fits"))
    assert found.digest == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert found.damage == ""


def test_what_is_no_fits_has_a_digest_and_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    found = fits_whole.whole(str(tmp_path / "a.parquet"))
    assert found.digest == hashlib.blake2b(b"PAR1 and more", digest_size=16).hexdigest()
    found.require()


def spans(path: Path) -> list[tuple[str, int, int]]:
    with fits.open(path) as hdus:
        info = [(hdu.name, hdu.fileinfo()) for hdu in hdus]
    return [(name, each["datLoc"], each["datLoc"] + each["datSpan"]) for name, each in info]


def test_a_flipped_bit_anywhere_in_the_data_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    content = write(path)
    for name, begin, end in spans(path):
        for at in np.linspace(begin, end - 1, 7).astype(int) if end > begin else ():
            changed = bytearray(content)
            changed[at] ^= 0x04
            path.write_bytes(changed)
            damage = fits_whole.whole(str(path)).damage
            assert damage.startswith(f"{name}: DATASUM verification failed: ")
    path.write_bytes(content)
    fits_whole.whole(str(path)).require()


def test_a_changed_header_is_found_also_in_gzip(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    content = write(path)
    packed = tmp_path / "b.fits.gz"
    changed = content.replace(b"EXTNAME = 'I1      '", b"EXTNAME = 'I7      '")
    packed.write_bytes(gzip.compress(changed))
    found = fits_whole.whole(str(packed))
    assert found.digest == hashlib.blake2b(packed.read_bytes(), digest_size=16).hexdigest()
    with pytest.raises(FitsError, match=r"^I7: CHECKSUM verification failed"):
        found.require()


def test_of_a_truncated_file_the_reader_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(write(path)[:100_000])
    assert fits_whole.whole(str(path)).damage == ""
    with pytest.raises(FitsError, match=r"^truncated: HDU 2 ends at byte"):
        fits_scan.scan(str(path))


def damaged(path: Path, mark: bytes) -> None:
    """Write a file again with checksums, and flip one bit of data that begins with mark."""
    with fits.open(path, memmap=False) as hdus:
        hdus.writeto(path, overwrite=True, checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(mark) + 1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_of_an_image_of_desi_refuses_the_file(tmp_path: Path) -> None:
    path = desi_mock.survey(tmp_path)
    damaged(path, np.full(20, 4, ">f4").tobytes())
    ds = desi_mock.read(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert "B_FLUX: DATASUM verification failed" in ds["reason"].item(3)
    assert "fetch the file again" in ds["reason"].item(3)


def test_a_flipped_bit_of_an_image_of_weave_refuses_the_file(tmp_path: Path) -> None:
    path = weave_mock.l1(tmp_path / "stack_2.fit")
    damaged(path, np.full(20, 0.25, ">f4").tobytes())
    ds = weave_mock.load(tmp_path)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert "BLUE_IVAR: DATASUM verification failed" in ds["reason"].item(5)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_flipped_bit_of_an_image_of_a_table_refuses_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a.fits"
    wave = table_mock.axis()[0]
    ivar = np.full(wave.size, 4.0, "f4")
    axis = {"CRVAL1": wave[0], "CDELT1": 0.7, "CUNIT1": "Angstrom"}
    table_mock.write_image(path, np.full(wave.size, 3.0), ("IVAR", ivar), **axis)
    options = {"flux_unit": "1e-17 erg/s/cm2/Angstrom"}
    assert (table_mock.read(tmp_path, **options)["status"] == Status.DONE).all()
    damaged(path, np.full(20, 4, ">f4").tobytes())
    if suffix:
        path.with_name("a.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    ds = table_mock.read(tmp_path, **options)
    assert (ds["reason_code"] == Reason.UNREADABLE).all()
    assert "IVAR: DATASUM verification failed" in ds["reason"].item(0)


def shorter(content: bytes, name: bytes, key: bytes, by: int) -> bytes:
    """A file whose header of an extension says that an axis is shorter."""
    at = content.index(b"'" + name)
    card = content.index(key.ljust(8) + b"=", content.rindex(b"XTENSION", 0, at))
    size = int(content[card + 10 : card + 30])
    return content[: card + 10] + b"%20d" % (size - by) + content[card + 30 :]


@pytest.mark.parametrize(
    ("name", "key", "by", "words"),
    [
        (b"I0", b"NAXIS2", 1, "HDU 1: 2656 bytes behind its data are not zero"),
        (b"I1", b"NAXIS1", 1, "HDU 2: .* its header gives another size than it has"),
        (b"I1", b"NAXIS1", 300_000, "HDU 2: .* bytes behind its data are not zero"),
        (b"I1", b"NAXIS1", 299_681, "HDU 2 is followed by bytes that are no extension"),
    ],
)
def test_a_header_that_says_too_little_is_found(
    tmp_path: Path, name: bytes, key: bytes, by: int, words: str
) -> None:
    path = tmp_path / "a.fits"
    with fits.open(path, mode="append"):
        content = write(path)
    with fits.open(path) as hdus:
        for hdu in hdus:
            hdu.header.remove("CHECKSUM", ignore_missing=True)
            hdu.header.remove("DATASUM", ignore_missing=True)
        hdus.writeto(tmp_path / "b.fits")
    content = shorter((tmp_path / "b.fits").read_bytes(), name, key, by)
    path.write_bytes(content)
    for read in (lambda: fits_scan.scan(str(path)), lambda: parse(content, frozenset())):
        with pytest.raises(FitsError, match=words):
            read()


def test_tables_of_text_are_filled_with_blanks(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    table = fits.TableHDU.from_columns([fits.Column("A", "I4", array=[1, 2, 3])])
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(np.zeros(3))]).writeto(path)
    content = path.read_bytes()
    at = content.index(b"   1", 2880 * 2)
    content = content[: at + 12] + b" " * (2880 - 12) + content[at + 2880 :]
    path.write_bytes(content)
    assert [hdu.kind for hdu in fits_scan.scan(str(path))] == ["PRIMARY", "TABLE", "IMAGE"]
    parse(content, frozenset())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:-1], "no multiple of 2880"),
        (lambda c: c + b"x" * 2880, "is followed by bytes that are no extension: b'xxxxxxxxx'"),
        (
            lambda c: c.replace(
                b"PCOUNT  =                    0", b"PCOUNT  =                    8", 1
            ),
            "PCOUNT 8",
        ),
        (lambda c: c.replace(b"'IMAGE   '", b"'IMA\x01E   '", 1), "1 bytes that are no text"),
        (
            lambda c: c.replace(b"END".ljust(80), b" " * 80).replace(
                b" " * 80, b"END".ljust(80), 1
            ),
            "begins in it|no END card|not FITS|NAXIS",
        ),
    ],
)
def test_blocks_that_are_not_as_they_should_be_are_refused(
    tmp_path: Path, change: object, words: str
) -> None:
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones(5)), fits.ImageHDU(np.ones(5))]
    fits.HDUList(hdus).writeto(path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(FitsError, match=words):
        fits_scan.scan(str(path))


def test_zeros_behind_the_last_extension_are_filling(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(5))]).writeto(path)
    path.write_bytes(path.read_bytes() + b"\0" * 5760)
    assert len(fits_scan.scan(str(path))) == 2
