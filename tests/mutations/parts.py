"""A FITS file taken apart by hand, and put together again: what the damage is done to."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

BLOCK, CARD = 2880, 80
END = b"END".ljust(CARD)
_KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_CODES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_WIDTHS = {"X": 1, "C": 8, "M": 16, "P": 8, "Q": 16}
_FORM = re.compile(r"(\d*)([A-Z])")


def padded(content: bytes, fill: bytes = b"\0") -> bytes:
    return content.ljust(-(-len(content) // BLOCK) * BLOCK, fill)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One HDU."""

    cards: tuple[bytes, ...]
    "Its header, without END."
    data: bytes
    "Without padding."

    @property
    def header(self) -> bytes:
        return padded(b"".join((*self.cards, END)), b" ")

    @property
    def bytes(self) -> bytes:
        return self.header + padded(self.data)

    def value(self, key: str) -> str:
        """The value of a card as text; empty where there is none."""
        start = key.encode().ljust(8) + b"="
        for card in self.cards:
            if card.startswith(start):
                text = card[9:].decode("ascii", "replace").strip()
                if text.startswith("'"):
                    return text[1:].partition("'")[0].strip()
                return text.partition("/")[0].strip()
        return ""

    @property
    def name(self) -> str:
        return self.value("EXTNAME").upper()

    @property
    def is_table(self) -> bool:
        return self.value("XTENSION") == "BINTABLE"

    @property
    def keywords(self) -> list[str]:
        return [card[:8].decode("ascii", "replace").strip() for card in self.cards]

    def having(self, key: str, text: str) -> "Part":
        """With a card of this text, in the place of the one of its key."""
        made = f"{key:<8}= {text:>20}".encode("utf8", "replace")[:CARD].ljust(CARD)
        start = made[:9]
        if any(card.startswith(start) for card in self.cards):
            cards = tuple(made if card.startswith(start) else card for card in self.cards)
        else:
            cards = (*self.cards, made)
        return replace(self, cards=cards)

    @property
    def array(self) -> NDArray[Any] | None:
        """Its pixels or its rows, a copy that can be changed; None where it has none."""
        if not self.data:
            return None
        if self.is_table:
            return np.frombuffer(self.data, _dtype(self), count=int(self.value("NAXIS2"))).copy()
        return np.frombuffer(self.data, _KINDS[int(self.value("BITPIX"))]).copy()

    def holding(self, array: NDArray[Any]) -> "Part":
        """With these pixels or rows; a heap behind them stays."""
        return replace(self, data=array.tobytes() + self.data[array.nbytes :])


@lru_cache(maxsize=256)
def _dtype(part: Part) -> np.dtype[Any]:
    names, formats, offsets, at = [], [], [], 0
    for number in range(1, int(part.value("TFIELDS")) + 1):
        form = _FORM.match(part.value(f"TFORM{number}"))
        assert form is not None
        many, letter = int(form[1] or 1), form[2]
        kind = f"S{many}" if letter == "A" else _CODES.get(letter, "")
        width = many * (1 if letter == "A" else _WIDTHS.get(letter) or np.dtype(kind).itemsize)
        if kind and many:
            names.append(part.value(f"TTYPE{number}") or f"col{number}")
            formats.append(kind if many == 1 or letter == "A" else (kind, (many,)))
            offsets.append(at)
        at += width
    size = int(part.value("NAXIS1"))
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


@lru_cache(maxsize=64)
def split(content: bytes) -> tuple[Part, ...]:
    """The HDUs of a whole file."""
    found, at = [], 0
    while at < len(content):
        end = at
        while content[end : end + CARD] != END:
            end += CARD
        cards = tuple(content[here : here + CARD] for here in range(at, end, CARD))
        part = Part(cards=cards, data=b"")
        begin = at + len(part.header)
        size = _size(part)
        found.append(replace(part, data=content[begin : begin + size]))
        at = begin + -(-size // BLOCK) * BLOCK
    return tuple(found)


def _size(part: Part) -> int:
    axes = [int(part.value(f"NAXIS{n}")) for n in range(1, int(part.value("NAXIS")) + 1)]
    if not axes:
        return 0
    heap = int(part.value("PCOUNT") or 0)
    return abs(int(part.value("BITPIX"))) // 8 * (heap + prod(axes))


def join(parts: list[Part]) -> bytes:
    return b"".join(part.bytes for part in parts)


def spans(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of each HDU: where its header begins, its data, its padding, and where it ends."""
    at = 0
    for part in split(content):
        data = at + len(part.header)
        end = data + len(padded(part.data))
        yield at, data, data + len(part.data), end
        at = end


def promises(content: bytes) -> list[bytes]:
    """The cards DATASUM and CHECKSUM of a file, which may be damaged."""
    found = re.finditer(rb"(DATASUM |CHECKSUM)= ", content)
    at = (match.start() for match in found)
    return sorted(content[here : here + CARD] for here in at if here % CARD == 0)


def holds(content: bytes, sound: bytes) -> bool:
    """Whether astropy finds all HDUs of a file that is damaged, and their checksums true.

    A sum in ones' complement does not tell of two flips that cancel each other.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with fits.open(io.BytesIO(content), checksum=True, lazy_load_hdus=False) as hdus:
                whole = len(hdus) == len(split(sound))
        # astropy raises anything on garbage.
        except Exception:
            return False
    return whole and not any("verification failed" in str(each.message) for each in told)


Spot = tuple[int, str]
"An HDU, and its column or keyword; empty for its pixels."


def spots(parts: list[Part], wanted: Callable[[str], Any]) -> list[Spot]:
    """Arrays, columns, and keywords of HDUs without data, whose name is wanted."""
    found: list[Spot] = []
    for at, part in enumerate(parts):
        if part.is_table:
            found += [(at, name) for name in _dtype(part).names or () if wanted(name.upper())]
        elif part.data:
            # The spectrum of an image without a name is the primary one.
            found += [(at, "")] if wanted(part.name or "FLUX") else []
        else:
            found += [(at, key) for key in part.keywords if wanted(key)]
    return found
