"""FITS binary tables from bytes: a file in memory becomes arrays that point into it.

What is ordinary (columns of fixed width) is read straight from the bytes; what is unusual (scaled
or variable-length columns) goes to astropy, which decides and takes 50 times as long.
A survey has millions of small files of few layouts: each layout is parsed once.
"""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits_blocks
from storage.fits_blocks import BLOCK, CARD
from storage.fits_blocks import FitsError as FitsError
from storage.fits_blocks import padded as padded
from storage.fits_checksum import verified
from storage.fits_unpack import unpacked

Rows = NDArray[np.void]

_END = b"END".ljust(CARD)
_GZIP = b"\x1f\x8b"
MOST_COLUMNS = 999
_KEYWORD = re.compile(rb"(TTYPE|TFORM|TSCAL|TZERO|TNULL|TDIM)([0-9]{1,3}) *= *(?:'([^']*)')?")
_MANY_FIELDS = re.compile(rb"TFIELDS = *([0-9]{4,20})")
_FORM = re.compile(r"([0-9]{0,8})([LXABIJKEDCMPQ])(.*)")
_BYTES = {c: n for n, cs in ((1, "LAB"), (2, "I"), (4, "JE"), (8, "KDCP"), (16, "MQ")) for c in cs}
_CODES = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


class _UnusualError(ValueError):
    """Bytes that may be good FITS, but not of the kind read here."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One binary table."""

    name: str
    "EXTNAME, in capitals; empty where there is none."
    rows: Rows
    "Structured array, columns in capitals, as the file has them (big-endian, text as bytes)."
    header: bytes = b""
    "Its cards."

    def __contains__(self, column: str) -> bool:
        return column in (self.rows.dtype.fields or {})


@dataclass(frozen=True, kw_only=True)
class File:
    """A FITS file in memory."""

    header: bytes
    "The primary header."
    extensions: tuple[Table | None, ...]
    "Extension 1 and following; None for one that is not a table, or was not wanted."


def parse(content: bytes, columns: frozenset[str], wanted: int = 2) -> File:
    """The primary header and the first `wanted` extensions of a file; their checksums must hold.

    Parameters
    ----------
    columns : frozenset of str
        Names in capitals; tables have those of them that are there, and no others.

    Raises
    ------
    FitsError
        Truncated (in any extension), or not FITS; says what was found.
    """
    if content.startswith(_GZIP):
        content = unpacked(content)
    try:
        return _parse(content, columns, wanted)
    except _UnusualError:
        # It was met on the way: the other extensions are not walked yet.
        for _ in _hdus(content):
            pass
        return _by_astropy(content, columns, wanted)


def value(header: bytes, key: str) -> str | None:
    """The value of a card as text, without quotes and comment; None where there is none."""
    name = key.encode().ljust(8) + b"="
    at = _aligned(header, name, 0)
    if at < 0:
        return None
    text = header[at + 9 : at + CARD].decode("ascii", "replace").strip()
    if text.startswith("'"):
        return text[1:].partition("'")[0].strip()
    return text.partition("/")[0].strip()


def _parse(content: bytes, columns: frozenset[str], wanted: int) -> File:
    primary, extensions = b"", list[Table | None]()
    # All headers are walked, so that a file cut short in a later extension is found out.
    for number, (header, begin, data, end) in enumerate(_hdus(content)):
        plain = header
        if number <= wanted and b"SUM" in header:
            plain = verified(content[begin:end], data - begin, header)
        if number:
            found = _table(content, plain, data, columns) if number <= wanted else None
            extensions.append(found)
        else:
            primary = header
    return File(header=primary, extensions=tuple(extensions))


def _hdus(content: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Header of each HDU, where it begins, where its data do, and where the next one does."""
    if not content.startswith(b"SIMPLE  ="):
        raise FitsError(f"not a FITS file: it begins with {content[:9]!r}, expected b'SIMPLE  ='")
    at, number = 0, 0
    while not number or content.startswith(b"XTENSION", at):
        header, data, size = _header(content, at, number)
        begin, at = at, padded(data + size)
        yield header, begin, data, at
        # Whoever asks for more has verified this one: its sum says more than its padding.
        fits_blocks.require_padding(content[data + size : at], header, number)
        number += 1
    fits_blocks.require_end(content[at : at + BLOCK], number - 1)
    fits_blocks.require_blocks(len(content))


def _header(content: bytes, at: int, number: int) -> tuple[bytes, int, int]:
    """The header at a position, where its data begin, and their size in bytes."""
    end = _aligned(content, _END, at)
    if end < 0:
        raise FitsError(f"truncated: the header of HDU {number} has no END card")
    header, data = content[at:end], padded(end + CARD)
    fits_blocks.require_header(header, number)
    axes = _integer(header, 2, "NAXIS")
    if not 0 <= axes <= 999:
        raise FitsError(f"HDU {number}: NAXIS is {axes}, expected 0 to 999")
    shape = [_integer(header, 3 + axis, f"NAXIS{axis + 1}") for axis in range(axes)]
    extra = _integer(header, 3 + axes, "PCOUNT") if number else 0
    size = abs(_integer(header, 1, "BITPIX")) // 8 * (extra + prod(shape)) if axes else 0
    if min(shape, default=0) < 0 or extra < 0:
        raise FitsError(f"HDU {number}: negative size, NAXISn {shape}, PCOUNT {extra}")
    if data + size > len(content):
        raise FitsError(
            f"truncated: HDU {number} ends at byte {data + size}, the file at {len(content)}"
        )
    return header, data, size


def _table(content: bytes, header: bytes, at: int, columns: frozenset[str]) -> Table | None:
    if value(header, "XTENSION") != "BINTABLE":
        return None
    width, rows = _integer(header, 3, "NAXIS1"), _integer(header, 4, "NAXIS2")
    fields = _integer(header, 7, "TFIELDS")
    name, dtype = layout(header[8 * CARD :], fields, width, columns)
    found = np.frombuffer(content, dtype=dtype, count=rows, offset=at)
    return Table(name=name, rows=found, header=header)


@lru_cache(maxsize=64)
def layout(
    cards: bytes, fields: int, width: int, columns: frozenset[str]
) -> tuple[str, np.dtype[np.void]]:
    """Name and wanted columns of a table, from its cards after the mandatory ones.

    Raises
    ------
    FitsError
        The columns are not those of a table of that width.
    ValueError
        A wanted column is scaled, of variable length, or there twice.
    """
    if not 0 < fields <= MOST_COLUMNS:
        raise FitsError(f"a table's TFIELDS is {fields}, expected 1 to {MOST_COLUMNS}")
    found = {
        (match[1], int(match[2])): (match[3] or b"").decode("ascii", "replace").strip()
        for match in _KEYWORD.finditer(cards)
        if match.start() % CARD == 0
    }
    forms = [_FORM.fullmatch(found.get((b"TFORM", n), "")) for n in range(1, fields + 1)]
    ends = np.cumsum([0, *(_width(form) for form in forms)])
    if ends[-1] != width:
        raise FitsError(f"a table's {fields} columns take {ends[-1]} bytes, NAXIS1 is {width}")
    # Sizes are true from here on: astropy believes them, and would fill the memory.
    kept: dict[str, tuple[Any, int]] = {}
    for number, (form, at) in enumerate(zip(forms, ends[:-1], strict=True), start=1):
        fits_blocks.require_dims(found.get((b"TDIM", number), ""), form, number)
        title = found.get((b"TTYPE", number), "").upper()
        if title not in columns:
            continue
        # TNULL is a value as any other: what is missing, the reader of the survey knows.
        scaled = any((key, number) in found for key in (b"TSCAL", b"TZERO", b"TDIM"))
        if form is None or scaled or title in kept or not _plain(form):
            raise _UnusualError(f"column {title} is scaled, of an odd kind, or there twice")
        kept[title] = (_dtype(form), int(at))
    dtype = np.dtype(
        {
            "names": [*kept],
            "formats": [kind for kind, _ in kept.values()],
            "offsets": [at for _, at in kept.values()],
            "itemsize": width,
        }
    )
    return (value(cards, "EXTNAME") or "").upper(), dtype


def _width(form: re.Match[str] | None) -> int:
    """Bytes of a column."""
    if form is None:
        raise FitsError("a column has no TFORM, or none that FITS knows")
    repeat = int(form[1] or 1)
    if form[2] == "X":
        return -(-repeat // 8)
    # P and Q: a count and a place in the heap.
    return repeat * _BYTES[form[2]]


def _plain(form: re.Match[str]) -> bool:
    return (form[2] in _CODES or form[2] == "A") and not form[3] and int(form[1] or 1) > 0


def _dtype(form: re.Match[str]) -> Any:
    repeat = int(form[1] or 1)
    if form[2] == "A":
        return f"S{repeat}"
    return (_CODES[form[2]], (repeat,)) if repeat > 1 else _CODES[form[2]]


def _integer(header: bytes, position: int, key: str) -> int:
    """A mandatory card, which stands at a fixed position."""
    line = header[position * CARD : (position + 1) * CARD]
    if not line.startswith(key.encode().ljust(8) + b"="):
        raise FitsError(f"card {position + 1} is {line[:10]!r}, expected {key}")
    try:
        return int(line[9:].partition(b"/")[0])
    except ValueError:
        raise FitsError(f"{key} is {line[9:30]!r}, expected a whole number") from None


def _aligned(content: bytes, card: bytes, at: int) -> int:
    """Position of the next card that begins so; -1 where there is none."""
    found = content.find(card, at)
    while found >= 0 and (found - at) % CARD:
        found = content.find(card, found + 1)
    return found


def _by_astropy(content: bytes, columns: frozenset[str], wanted: int) -> File:
    from astropy.io import fits
    from astropy.io.fits.verify import VerifyError
    from astropy.utils.exceptions import AstropyWarning

    if many := _MANY_FIELDS.search(content):
        raise FitsError(f"TFIELDS is {int(many[1])}, expected 1 to {MOST_COLUMNS}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*(Checksum|Datasum) verification failed")
        warnings.filterwarnings("error", ".*(may have been truncated|File may be)")
        try:
            with fits.open(io.BytesIO(content), checksum=True, lazy_load_hdus=False) as hdus:
                return File(
                    header=bytes(hdus[0].header.tostring(), "ascii", "replace"),
                    extensions=tuple(
                        _from_astropy(hdu, columns) if number < wanted else None
                        for number, hdu in enumerate(hdus[1:])
                    ),
                )
        # What astropy raises on garbage, found by flipping bytes.
        except (
            *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError),
            *(AttributeError, NameError, OverflowError, MemoryError, VerifyError, AstropyWarning),
        ) as error:
            raise FitsError(f"astropy cannot read it: {type(error).__name__}: {error}") from error


def _from_astropy(hdu: Any, wanted: frozenset[str]) -> Table | None:
    if type(hdu).__name__ != "BinTableHDU" or hdu.data is None:
        return None
    names = [name for name in hdu.columns.names if name.upper() in wanted]
    columns = {name.upper(): np.asarray(hdu.data[name]) for name in names}
    columns = {
        name: np.char.encode(array, "ascii", "replace") if array.dtype.kind == "U" else array
        for name, array in columns.items()
        if array.dtype.kind != "O"
    }
    kinds: list[Any] = [(name, array.dtype, array.shape[1:]) for name, array in columns.items()]
    rows = np.zeros(len(hdu.data), dtype=kinds)
    for name, array in columns.items():
        rows[name] = array
    return Table(
        name=hdu.name.upper(), rows=rows, header=bytes(hdu.header.tostring(), "ascii", "replace")
    )
