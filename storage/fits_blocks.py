"""Blocks of a FITS file: what fills the last one of an HDU, and what may stand behind all HDUs."""

import re
from math import prod

BLOCK, CARD = 2880, 80
"Bytes of a block, and of a card of a header."
_DIMS = re.compile(r"\( *[0-9]{1,9} *(?:, *[0-9]{1,9} *)*\)")
_PRINTABLE = bytes(range(0x20, 0x7F))


class FitsError(ValueError):
    """Bytes that are not a whole, readable FITS file."""


def padded(size: int) -> int:
    """A size in bytes, rounded up to whole FITS blocks."""
    return -(-size // BLOCK) * BLOCK


def require_header(header: bytes, number: int) -> None:
    """Refuse a header, without END, that ran on into data, or was written over.

    Raises
    ------
    FitsError
        It has bytes that are no text, or begins a second time.
    """
    if odd := header.translate(None, _PRINTABLE):
        raise FitsError(f"the header of HDU {number} has {len(odd)} bytes that are no text")
    at = header.find(b"XTENSION=", CARD)
    while at >= 0 and at % CARD:
        at = header.find(b"XTENSION=", at + 1)
    if at >= 0:
        raise FitsError(f"the header of HDU {number} has no END card: another begins in it")


def require_blocks(size: int) -> None:
    """Refuse a file of that many bytes that does not end where a block does.

    Raises
    ------
    FitsError
        Bytes are missing, or there are too many.
    """
    if size % BLOCK:
        raise FitsError(
            f"truncated: {size} bytes are no multiple of {BLOCK}, as every FITS file has"
        )


def require_padding(padding: bytes, header: bytes, number: int) -> None:
    """Refuse bytes behind the data of an HDU, up to the next, that are not what fills a block.

    Raises
    ------
    FitsError
        They are data: the header says that there are fewer than there are.
    """
    # Tables of text are filled with blanks.
    filled = b" \0" if header.startswith(b"XTENSION= 'TABLE ") else b"\0"
    if padding.strip(filled):
        raise FitsError(
            f"HDU {number}: {len(padding)} bytes behind its data are not zero: its header gives "
            "another size than it has"
        )


def require_end(behind: bytes, number: int) -> None:
    """Refuse bytes behind the last HDU, of that number, that are no filling.

    Raises
    ------
    FitsError
        They belong to an HDU whose header is damaged, or one before gives another size.
    """
    if behind.strip(b" \0"):
        raise FitsError(
            f"HDU {number} is followed by bytes that are no extension: {behind[:9]!r}, expected "
            "b'XTENSION=' or nothing"
        )


def require_dims(dims: str, form: re.Match[str] | None, number: int) -> None:
    """Refuse a column whose TDIM says more, or less, than its TFORM has: rows would be torn.

    Parameters
    ----------
    dims : str
        TDIM; empty without one.
    form : re.Match
        TFORM: its number, and its letter.

    Raises
    ------
    FitsError
        Less is good FITS, but no survey has it, and astropy then reads other bytes.
    """
    # A column of arrays in the heap has one array a row, of any length.
    if form is None or not _DIMS.fullmatch(dims) or form[2] in "PQ":
        return
    found, expected = prod(map(int, dims.strip("( )").split(","))), int(form[1] or 1)
    if found != expected:
        raise FitsError(f"TDIM{number} is {dims}, {found} values, where TFORM says {expected}")
