"""SDSS spec files that are unusual are read; bad ones keep their row, and say why."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.border import NO_REDSHIFT
from storage.readers import sdss
from storage.schema import ObjectType, Reason, Status
from tests.storage.sdss_mock import EDGES, PIXELS, edit, load, mock, one, refused

SDSS = sdss.build()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return Path(SDSS.write(mock(), str(tmp_path), "sdss")[0])


def test_a_gzipped_file_reads_as_the_plain_one(spec: Path) -> None:
    packed = spec.with_suffix(".fits.gz")
    packed.write_bytes(gzip.compress(spec.read_bytes()))
    plain, unpacked = one(spec), one(packed)
    for name in (*PIXELS, "z", "ra", "class", "observation", "status"):
        np.testing.assert_array_equal(unpacked[name], plain[name], err_msg=name)


def test_a_damaged_gzip_is_quarantined(spec: Path) -> None:
    packed = spec.with_suffix(".fits.gz")
    packed.write_bytes(gzip.compress(spec.read_bytes())[:-2000])
    assert "gzip" in one(packed)["reason"].item()
    assert one(packed)["reason_code"] == Reason.UNREADABLE


def test_scaled_columns_are_read_as_astropy_scales_them(spec: Path) -> None:
    def scale(hdus: fits.HDUList) -> None:
        data = hdus[1].data
        columns = [
            fits.Column("flux", "E", bscale=0.5, array=np.full(len(data), 3.5)),
            *(c for c in hdus[1].columns if c.name != "flux"),
        ]
        hdus[1] = fits.BinTableHDU.from_columns(columns, name="COADD")

    row = edit(spec, scale)
    assert row["status"] == Status.DONE
    assert set(np.unique(row["flux"])) == {0, 3.5}


def test_unwanted_columns_of_any_kind_do_no_harm(spec: Path) -> None:
    def widen(hdus: fits.HDUList) -> None:
        extra = [
            fits.Column("MASKS", "K", bzero=2**63, array=np.array([7], dtype="u8")),
            fits.Column("BITS", "11X", array=np.ones((1, 11), dtype=bool)),
            fits.Column("MANY", "PE()", array=np.array([np.ones(3, dtype="f4")], dtype=object)),
        ]
        hdus[2] = fits.BinTableHDU.from_columns([*extra, *hdus[2].columns], name="SPALL")

    expected, actual = one(spec), edit(spec, widen)
    assert actual["status"] == Status.DONE
    assert actual["z"] == expected["z"]
    assert actual["ra"] == expected["ra"]


def test_tables_without_a_name_are_known_by_their_place(spec: Path) -> None:
    def unname(hdus: fits.HDUList) -> None:
        for hdu in hdus[1:]:
            del hdu.header["EXTNAME"]

    assert edit(spec, unname)["status"] == Status.DONE


def test_what_stands_in_the_file_wins_over_its_name(spec: Path) -> None:
    renamed = spec.rename(spec.with_name("spec-0999-51602-0002.fits"))
    assert one(renamed)["observation"] == "0266-51602-0001"


def test_isolated_bad_pixels_are_masked(spec: Path) -> None:
    def poison(hdus: fits.HDUList) -> None:
        hdus[1].data["flux"][5] = np.nan
        hdus[1].data["ivar"][7] = np.inf
        hdus[1].data["wdisp"][8] = np.nan
        hdus[1].data["model"][9] = np.inf

    expected, row = one(spec), edit(spec, poison)
    start = EDGES.start
    assert row["status"] == Status.DONE
    assert not row["ivar"][[start + 5, start + 7]].any()
    assert not row["flux"][[start + 5, start + 7]].any()
    assert row["lsf"][start + 8] == row["model"][start + 9] == 0
    np.testing.assert_array_equal(row["flux"][start + 8 :], expected["flux"][start + 8 :])


@pytest.mark.parametrize("bit", [18, 23, 24])
def test_masked_pixels_have_no_data(spec: Path, bit: int) -> None:
    def mask(hdus: fits.HDUList) -> None:
        hdus[1].data["and_mask"][10:20] = 1 << bit

    row = edit(spec, mask)
    masked = slice(EDGES.start + 10, EDGES.start + 20)
    assert not row["ivar"][masked].any()
    assert not row["flux"][masked].any()
    assert (row["mask"][masked] == 1 << bit).all()


def test_a_sky_fibre_may_have_any_redshift(tmp_path: Path) -> None:
    ds = mock(2)
    ds["object_type"][:] = ObjectType.SKY
    ds["z"][:] = [-0.5, np.inf]
    SDSS.write(ds, str(tmp_path), "sdss")
    actual = load(tmp_path)
    assert (actual["status"] == Status.DONE).all()
    np.testing.assert_array_equal(actual["z"], [-0.5, np.nan])
    assert actual["zwarn"].to_numpy().tolist() == [4, 4 | NO_REDSHIFT]


@pytest.mark.parametrize(
    ("column", "value", "code", "words"),
    [
        ("flux", np.nan, Reason.NOT_FINITE, "not finite in 3800 of 3800 pixels"),
        ("ivar", 0, Reason.NO_DATA, "no pixel has ivar > 0"),
        ("ivar", -1, Reason.NEGATIVE_IVAR, "ivar is negative in 3800 pixels"),
        ("flux", 1e25, Reason.ABSURD, "flux is beyond 1e+10 in house units"),
        ("ivar", 1e25, Reason.ABSURD, "ivar is beyond 1e+16 in house units"),
        ("model", -1e25, Reason.ABSURD, "model is beyond 1e+10 in house units, where no spectrum"),
        ("loglam", np.nan, Reason.BAD_GRID, "leaves the grid"),
        ("loglam", 4.1, Reason.BAD_GRID, "leaves the grid, 3.55 to 4.0199"),
    ],
)
def test_a_bad_coadd_is_quarantined(
    spec: Path, column: str, value: float, code: Reason, words: str
) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        hdus[1].data[column][:] = value

    refused(edit(spec, spoil), code, words)


@pytest.mark.parametrize(
    ("column", "value", "code", "words"),
    [
        ("Z", np.nan, Reason.BAD_REDSHIFT, "Z is nan"),
        ("Z", -0.1, Reason.BAD_REDSHIFT, "expected -0.02 to 10.0"),
        ("Z", 11, Reason.BAD_REDSHIFT, "Z is 11.0"),
        ("MJD", 0, Reason.ABSURD, "MJD is 0, not a date"),
        ("EXTINCTION", 1e25, Reason.ABSURD, "E(B-V) is "),
        ("PLUG_RA", -1, Reason.BAD_POSITION, "PLUG_RA -1.0"),
        ("PLUG_DEC", 95, Reason.BAD_POSITION, "PLUG_DEC 95.0"),
        ("PLUG_DEC", np.nan, Reason.BAD_POSITION, "PLUG_DEC nan"),
    ],
)
def test_a_bad_catalog_row_is_quarantined(
    spec: Path, column: str, value: float, code: Reason, words: str
) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        hdus[2].data[column][0] = value

    refused(edit(spec, spoil), code, words)


def test_an_absurd_pixel_without_data_does_no_harm(spec: Path) -> None:
    def spoil(hdus: fits.HDUList) -> None:
        hdus[1].data["flux"][5], hdus[1].data["ivar"][5] = 1e25, 0

    row = edit(spec, spoil)
    assert row["status"] == Status.DONE
    assert row["flux"][EDGES.start + 5] == 0


def test_a_shifted_or_stretched_grid_is_quarantined(spec: Path) -> None:
    def shift(hdus: fits.HDUList) -> None:
        hdus[1].data["loglam"][:] += 2e-6

    def stretch(hdus: fits.HDUList) -> None:
        hdus[1].data["loglam"][:] = 3.58 + 1.001e-4 * np.arange(len(hdus[1].data))

    original = spec.read_bytes()
    refused(edit(spec, shift), Reason.BAD_GRID, "off the grid by up to 0.02")
    spec.write_bytes(original)
    refused(edit(spec, stretch), Reason.BAD_GRID, "off the grid")


def test_wavelengths_in_air_are_quarantined(spec: Path) -> None:
    def air(hdus: fits.HDUList) -> None:
        hdus[0].header["VACUUM"] = False

    refused(edit(spec, air), Reason.BAD_GRID, "in air")


@pytest.mark.parametrize(("number", "name"), [(1, "COADD"), (2, "SPECOBJ or SPALL")])
def test_a_missing_extension_is_named(spec: Path, number: int, name: str) -> None:
    def remove(hdus: fits.HDUList) -> None:
        del hdus[number]

    refused(edit(spec, remove), Reason.MISSING_HDU, f"no table {name}")


def test_a_position_is_never_that_of_the_telescope(spec: Path) -> None:
    def forget(hdus: fits.HDUList) -> None:
        columns = [c for c in hdus[2].columns if not c.name.startswith("PLUG")]
        hdus[2] = fits.BinTableHDU.from_columns(columns, name="SPECOBJ")
        del hdus[0].header["PLUG_RA"]
        hdus[0].header["RA"], hdus[0].header["DEC"] = 10.0, 20.0

    refused(edit(spec, forget), Reason.BAD_POSITION, "PLUG_RA nan")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.8, 0.97])
def test_a_truncated_file_is_quarantined(spec: Path, share: float) -> None:
    content = spec.read_bytes()
    spec.write_bytes(content[: int(share * (len(content) - 2880))])
    refused(one(spec), Reason.UNREADABLE, "fetch the file again")


def test_a_truncated_file_says_by_how_much(spec: Path) -> None:
    content = spec.read_bytes()
    spec.write_bytes(content[:100000])
    refused(one(spec), Reason.UNREADABLE, "truncated: HDU 1 ends at byte")


def test_a_wrong_checksum_is_found(spec: Path) -> None:
    with fits.open(spec, memmap=False) as hdus:
        hdus.writeto(spec, overwrite=True, checksum=True)
    assert one(spec)["status"] == Status.DONE
    content = bytearray(spec.read_bytes())
    content[20000] ^= 1
    spec.write_bytes(content)
    refused(one(spec), Reason.UNREADABLE, "verification failed")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"NAXIS1  =                   32", b"NAXIS1  =                   31"),
        (b"NAXIS2  =                 3800", b"NAXIS2  =      999999999999999"),
        (b"NAXIS2  =                 3800", b"NAXIS2  =                -3800"),
        (b"NAXIS2  =                 3800", b"NAXIS2  =                   10"),
        (b"TFIELDS =                    8", b"TFIELDS =               999999"),
        (b"BITPIX  =                    8", b"BITPIX  =                  abc"),
        (b"TFORM1  = 'E       '", b"TFORM1  = '9999999E'"),
        (b"TFORM1  = 'E       '", b"TFORM1  = 'J       '"),
        (b"TTYPE3  = 'ivar    '", b"TTYPE3  = 'flux    '"),
        (b"TTYPE3  = 'ivar    '", b"TTYPE3  = 'avir    '"),
    ],
)
def test_headers_that_lie_are_quarantined(spec: Path, old: bytes, new: bytes) -> None:
    content = spec.read_bytes()
    assert old in content
    spec.write_bytes(content.replace(old, new))
    assert one(spec)["status"] == Status.QUARANTINED


Damage = tuple[str, int, int]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, NDArray[np.intp]]:
    """A file, its bytes, and where its headers are."""
    path = Path(SDSS.write(mock(), str(tmp_path_factory.mktemp("whole")), "sdss")[0])
    content = path.read_bytes()
    with fits.open(path, memmap=False) as hdus:
        spans = [(hdu._header_offset, hdu._data_offset) for hdu in hdus]
    return path, content, np.concatenate([np.arange(*span) for span in spans])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["flip header", "flip any", "cut", "insert", "blank card"]),
    places=st.lists(st.integers(0, 2**31), min_size=1, max_size=4),
    byte=st.integers(0, 255),
)
def test_no_damage_raises(
    whole: tuple[Path, bytes, NDArray[np.intp]], kind: str, places: list[int], byte: int
) -> None:
    path, content, header = whole
    damaged = bytearray(content)
    for place in places:
        if kind == "flip header":
            damaged[header[place % header.size]] = byte
        elif kind == "flip any":
            damaged[place % len(content)] = byte
        elif kind == "blank card":
            card = header[place % header.size] // 80 * 80
            damaged[card : card + 80] = bytes([byte]) * 80
        elif kind == "cut":
            del damaged[place % len(content) :]
        else:
            at = place % len(content)
            damaged[at:at] = bytes([byte])
    path.write_bytes(damaged)
    row = one(path)
    assert row["status"] in (Status.DONE, Status.QUARANTINED)
    assert (row["reason"] == "") == (row["status"] == Status.DONE)
