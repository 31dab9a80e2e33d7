"""FITS checksums: what a header promises of its HDU, held against the bytes.

A sum of 32-bit words in ones' complement (FITS standard 4.0, sections 4.4.2.7 and appendix J).
"""

import re

import numpy as np

_ALL_ONES = 0xFFFFFFFF
_CARD = 80
_PROMISE = re.compile(rb"(DATASUM |CHECKSUM)= *'([^']*)'")
_EXTNAME = re.compile(rb"EXTNAME *= *'([^']*)'")


class ChecksumError(ValueError):
    """An HDU whose bytes are not those that were written."""


def verified(hdu: bytes, begin: int, header: bytes) -> bytes:
    """The header of an HDU whose checksums hold, without them: they differ within one layout.

    Parameters
    ----------
    hdu : bytes
        Header and data, both padded.
    begin : int
        Where its data begin.

    Raises
    ------
    ChecksumError
        When one does not hold; says which.
    """
    cards = [card for card in _PROMISE.finditer(header) if card.start() % _CARD == 0]
    stated = {card[1]: card[2].strip().decode("ascii", "replace") for card in cards}
    data = stated.get(b"DATASUM ", "")
    if data and data != (found := str(_sum(hdu[begin:]))):
        raise ChecksumError(
            f"{_name(header)}: DATASUM verification failed: {data} is stated, {found} was found"
        )
    # The stated text is chosen so that the sum of the whole is all ones.
    if stated.get(b"CHECKSUM") and _sum(hdu) != _ALL_ONES:
        raise ChecksumError(f"{_name(header)}: CHECKSUM verification failed")
    for card in reversed(cards):
        header = header[: card.start()] + header[card.start() + _CARD :]
    return header


def _name(header: bytes) -> str:
    found = _EXTNAME.search(header)
    return found[1].strip().decode("ascii", "replace") if found else "a table"


def _sum(content: bytes) -> int:
    words = np.frombuffer(content + b"\0" * (-len(content) % 4), dtype=">u4")
    total = int(words.sum(dtype=np.uint64))
    while total > _ALL_ONES:
        total = (total & _ALL_ONES) + (total >> 32)
    return total
