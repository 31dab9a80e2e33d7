"""FITS files of many GB: where each HDU lies, and rows of one without reading the others.

Sizes are compared with the file before anything is read or astropy sees it, so that a header that
lies costs no memory. What is in gzip is unpacked first: `storage.fits_unpack.plain`.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from storage import files, fits
from storage.fits_blocks import (
    BLOCK,
    CARD,
    FitsError,
    padded,
    require_blocks,
    require_end,
    require_header,
    require_padding,
)
from storage.fits_tiles import require_tiles, tile_of, tiled_rows
from storage.fits_write import primary

_END = b"END".ljust(CARD)
_MOST_HEADER = 8 << 20
_MOST_TABLE = 1 << 30
_MOST_TILE = 1 << 28
_MOST_FILE = 1 << 50
_KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True, kw_only=True)
class Hdu:
    """One HDU of a file, as its header says."""

    name: str
    "EXTNAME, in capitals; empty where there is none."
    kind: str
    "PRIMARY, IMAGE, BINTABLE or another XTENSION."
    shape: tuple[int, ...]
    "Axes in numpy's order, the last one is contiguous; of a table: rows, bytes of a row."
    bitpix: int
    "FITS code of the pixels' type."
    offset: int
    "Where its data begin, in bytes."
    size: int
    "Of its data, heap included, in bytes."
    header: bytes
    "Its cards, without END."

    def value(self, key: str) -> str | None:
        """The value of a card as text; None where there is none."""
        return fits.value(self.header, key)

    @property
    def compressed(self) -> bool:
        """Whether it is an image in tiles, in the form of a table."""
        return self.kind == "BINTABLE" and self.value("ZIMAGE") == "T"

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of the image, also of a compressed one; of another table: its shape."""
        return _axes(self.header, "ZNAXIS") if self.compressed else self.shape


def scan(path: str) -> tuple[Hdu, ...]:
    """All HDUs of a file that is not in gzip, from their headers alone.

    Raises
    ------
    FitsError
        Not FITS, or truncated; says what was found.
    OSError
        When it cannot be opened.
    """
    end = files.regular(path).st_size
    with Path(path).open("rb") as file:
        found = tuple(headers(file, end))
        for number, hdu in enumerate(found):
            last = hdu.offset + hdu.size
            if last > end:
                raise FitsError(f"truncated: HDU {number} ends at byte {last}, the file at {end}")
            file.seek(last)
            _require_table(hdu)
            require_padding(file.read(padded(last) - last), hdu.header, number)
        file.seek(padded(last))
        require_end(file.read(BLOCK), number)
        require_blocks(end)
    return found


def _require_table(hdu: Hdu) -> None:
    """Refuse a table of too many columns, and an image that has not a row for each of its tiles."""
    # astropy counts columns for seconds, whatever their number.
    fields = _integer(hdu.header, "TFIELDS") if hdu.kind == "BINTABLE" else 0
    if not 0 <= fields <= fits.MOST_COLUMNS:
        raise FitsError(f"{hdu.name}: TFIELDS is {fields}, expected 0 to {fits.MOST_COLUMNS}")
    if hdu.compressed:
        require_tiles(hdu.header, hdu.image, hdu.shape[0], hdu.name)


def headers(file: IO[bytes], end: int = _MOST_FILE) -> Iterator[Hdu]:
    """HDUs one after the other, up to the end of the file; whether their data are there, who knows.

    Raises
    ------
    FitsError
        Not FITS, or the file ends within a header; says what was found.
    """
    at, number = 0, 0
    while header := _header(file, at, number):
        hdu = _hdu(header, at, number)
        yield hdu
        at, number = padded(hdu.offset + hdu.size), number + 1
        if at > end:
            return


def _header(file: IO[bytes], at: int, number: int) -> bytes:
    """The cards of a header without END; empty behind the last HDU."""
    begins = b"XTENSION=" if number else b"SIMPLE  ="
    try:
        file.seek(at)
        found = file.read(BLOCK)
        if not found.startswith(begins):
            if number:
                return b""
            raise FitsError(f"not a FITS file: it begins with {found[:9]!r}, expected {begins!r}")
        while (end := _aligned(found)) < 0:
            more = file.read(BLOCK) if len(found) < _MOST_HEADER else b""
            if not more:
                raise FitsError(f"truncated: the header of HDU {number} has no END card")
            found += more
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FitsError(f"truncated or damaged gzip: {error}") from error
    require_header(found[:end], number)
    return found[:end]


def _aligned(header: bytes) -> int:
    """Where the END card is, sought in the last block only; -1 where it is not."""
    begin = max(0, len(header) - BLOCK)
    found = header.find(_END, begin)
    while found >= 0 and found % CARD:
        found = header.find(_END, found + 1)
    return found


def _hdu(header: bytes, at: int, number: int) -> Hdu:
    try:
        shape = _axes(header, "NAXIS")
        bitpix = _integer(header, "BITPIX")
        extra = _integer(header, "PCOUNT") if number else 0
    except ValueError as error:
        raise FitsError(f"HDU {number}: {error}") from error
    kind = (fits.value(header, "XTENSION") or "") if number else "PRIMARY"
    if bitpix not in _KINDS or extra < 0 or (extra and kind == "IMAGE"):
        raise FitsError(f"HDU {number}: BITPIX is {bitpix}, PCOUNT {extra}; not FITS")
    return Hdu(
        name=(fits.value(header, "EXTNAME") or "").upper(),
        kind=kind,
        shape=shape,
        bitpix=bitpix,
        offset=at + padded(len(header) + CARD),
        size=abs(bitpix) // 8 * (extra + prod(shape)) if shape else 0,
        header=header,
    )


def _axes(header: bytes, key: str) -> tuple[int, ...]:
    count = _integer(header, key)
    if not 0 <= count <= 999:
        raise FitsError(f"{key} is {count}, expected 0 to 999")
    shape = tuple(_integer(header, f"{key}{axis}") for axis in range(count, 0, -1))
    if min(shape, default=0) < 0:
        raise FitsError(f"negative size, {key}n {shape[::-1]}")
    return shape


def _integer(header: bytes, key: str) -> int:
    found = fits.value(header, key)
    try:
        return int(found or "")
    except ValueError:
        raise FitsError(f"{key} is {found!r}, expected a whole number") from None


def require_names(names: Iterable[str]) -> None:
    """Refuse a file with two extensions of one name: which is the right one, nobody can tell.

    Raises
    ------
    FitsError
        Says which name.
    """
    seen: set[str] = set()
    for name in filter(None, names):
        if name in seen:
            raise FitsError(f"two extensions are called {name}")
        seen.add(name)


def table(path: str, hdu: Hdu, columns: frozenset[str]) -> fits.Table:
    """A binary table, whole: those columns (in capitals) that it has, see `storage.fits.parse`.

    Raises
    ------
    FitsError
        Not a table, or one that cannot be read.
    """
    if hdu.kind != "BINTABLE":
        raise FitsError(f"{hdu.name or 'an extension'} is no binary table but {hdu.kind}")
    found = fits.parse(_alone(path, hdu), columns, wanted=1).extensions[0]
    if found is None:
        raise FitsError(f"{hdu.name or 'an extension'} is no binary table")
    return found


def _alone(path: str, hdu: Hdu) -> bytes:
    """A file in memory that has this HDU only."""
    if hdu.size > _MOST_TABLE:
        raise FitsError(f"{hdu.name}: a table of {hdu.size} bytes, at most {_MOST_TABLE} are read")
    with Path(path).open("rb") as file:
        file.seek(hdu.offset)
        content = file.read(hdu.size)
    header = hdu.header + _END
    return b"".join(
        (primary([]), header.ljust(padded(len(header))), content.ljust(padded(len(content)), b"\0"))
    )


def rows(path: str, hdu: Hdu, first: int, last: int) -> NDArray[Any]:
    """Entries first:last of the slowest axis of an image, plain or compressed; no others are read.

    Integers with the offset of unsigned ones are unsigned; other BZERO, BSCALE give float64.

    Raises
    ------
    FitsError
        No image, too short, or compressed tiles that cannot be unpacked.
    """
    shape = hdu.image
    if not shape or not 0 <= first <= last <= shape[0]:
        raise FitsError(f"{hdu.name}: rows {first}:{last} of {shape}")
    if hdu.compressed:
        return _from_tiles(path, hdu, first, last)
    if hdu.kind not in ("IMAGE", "PRIMARY"):
        raise FitsError(f"{hdu.name or 'an extension'} is no image but {hdu.kind}")
    each = prod(shape[1:])
    kind = np.dtype(_KINDS[hdu.bitpix])
    found = np.fromfile(
        path, kind, count=(last - first) * each, offset=hdu.offset + first * each * kind.itemsize
    )
    if found.size != (last - first) * each:
        raise FitsError(f"truncated: {hdu.name} ends within rows {first}:{last}")
    return _scaled(found.reshape(last - first, *shape[1:]), hdu)


def _scaled(stored: NDArray[Any], hdu: Hdu) -> NDArray[Any]:
    try:
        zero, scale = (float(hdu.value(key) or n) for key, n in (("BZERO", 0), ("BSCALE", 1)))
    except ValueError as error:
        raise FitsError(f"{hdu.name}: BZERO or BSCALE: {error}") from None
    native: NDArray[Any] = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if (zero, scale) == (0, 1):
        return native
    bits = stored.dtype.itemsize * 8
    if stored.dtype.kind == "i" and (zero, scale) == (2.0 ** (bits - 1), 1):
        # Adding half the range is turning the sign bit.
        unsigned = np.dtype(f"u{stored.dtype.itemsize}")
        native = native.view(unsigned) ^ unsigned.type(1 << (bits - 1))
        return native
    return np.asarray(native.astype(np.float64) * scale + zero)


def _from_tiles(path: str, hdu: Hdu, first: int, last: int) -> NDArray[Any]:
    tile = tile_of(hdu.header, hdu.image)
    if min(tile) < 1 or 8 * prod(tile) > _MOST_TILE:
        raise FitsError(f"{hdu.name}: compressed in tiles of {tile} pixels, too many to unpack")
    return tiled_rows(_alone(path, hdu), first, last, hdu.name)
