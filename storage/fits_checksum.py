"""FITS checksums: what a header promises of its HDU, held against the bytes.

A sum of 32-bit words in ones' complement (FITS standard 4.0, sections 4.4.2.7 and appendix J).
"""

import re
from dataclasses import dataclass

import numpy as np

from storage.fits_blocks import CARD, FitsError

ALL_ONES = 0xFFFFFFFF
"The sum of an HDU whose CHECKSUM holds: the stated text is chosen so."
_PROMISE = re.compile(rb"(DATASUM |CHECKSUM)= *'([^']*)'")
_EXTNAME = re.compile(rb"EXTNAME *= *'([^']*)'")


class ChecksumError(FitsError):
    """An HDU whose bytes are not those that were written."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a header says of the sums of its HDU."""

    name: str
    "Of the HDU, for messages."
    data: str
    "DATASUM; blank where it says nothing."
    whole: str
    "CHECKSUM; blank where it says nothing."

    def broken(self, data: int, whole: int) -> str:
        """What does not hold of an HDU with these sums; empty when all does."""
        if self.data and self.data != str(data):
            return (
                f"{self.name}: DATASUM verification failed: {self.data} is stated, {data} was found"
            )
        if self.whole and whole != ALL_ONES:
            return (
                f"{self.name}: CHECKSUM verification failed (a header that is edited needs another)"
            )
        return ""


def promised(header: bytes) -> Promise | None:
    """What a header says of the sums of its HDU; None where it says nothing."""
    if b"SUM" not in header:
        return None
    stated = {card[1]: card[2].strip().decode("ascii", "replace") for card in _cards(header)}
    data, whole = stated.get(b"DATASUM ", ""), stated.get(b"CHECKSUM", "")
    return Promise(name=_name(header), data=data, whole=whole) if data or whole else None


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
    promise = promised(header)
    if promise is not None:
        data = total(hdu[begin:])
        if broken := promise.broken(folded(data), folded(total(hdu[:begin]) + data)):
            raise ChecksumError(broken)
    for card in reversed(_cards(header)):
        header = header[: card.start()] + header[card.start() + CARD :]
    return header


def _cards(header: bytes) -> list[re.Match[bytes]]:
    return [card for card in _PROMISE.finditer(header) if card.start() % CARD == 0]


def _name(header: bytes) -> str:
    found = _EXTNAME.search(header)
    if found:
        return found[1].strip().decode("ascii", "replace")
    return "the primary HDU" if header.startswith(b"SIMPLE") else "an extension"


def total(content: bytes) -> int:
    """The sum of bytes in words, the last one filled up with zeros; not folded."""
    words = np.frombuffer(content + b"\0" * (-len(content) % 4), dtype=">u4")
    return int(words.sum(dtype=np.uint64))


def folded(sum_: int) -> int:
    """A sum in ones' complement: what is carried out of 32 bits comes in below."""
    while sum_ > ALL_ONES:
        sum_ = (sum_ & ALL_ONES) + (sum_ >> 32)
    return sum_
