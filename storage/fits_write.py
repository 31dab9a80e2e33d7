"""FITS binary tables to bytes: a whole file from a few cards and structured arrays."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from storage.fits import Rows, padded

CARD = 80
_LETTERS = {"u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}


def card(key: str, content: bool | int | float | str, comment: str = "") -> bytes:
    """One card of 80 bytes."""
    if isinstance(content, bool):
        text = f"{'T' if content else 'F':>20}"
    elif isinstance(content, str):
        quoted = content.replace("'", "''")
        text = f"'{quoted:<8}'".ljust(20)
    else:
        text = f"{content!r:>20}".upper()
    line = f"{key:<8}= {text}" + (f" / {comment}" if comment else "")
    return line.encode("ascii")[:CARD].ljust(CARD)


def primary(cards: list[bytes]) -> bytes:
    """A primary HDU without data, with these cards."""
    mandatory = [
        *(card("SIMPLE", True, "conforms to FITS standard"), card("BITPIX", 8)),
        *(card("NAXIS", 0), card("EXTEND", True)),
    ]
    return _block([*mandatory, *cards])


def table(name: str, rows: Rows) -> bytes:
    """A binary table HDU of a structured array of big-endian columns."""
    content = rows.tobytes()
    return _table_header(name, rows.dtype, len(rows)) + content.ljust(padded(len(content)), b"\0")


@lru_cache(maxsize=1024)
def _table_header(name: str, dtype: np.dtype[np.void], rows: int) -> bytes:
    columns = [
        line
        for number, title in enumerate(dtype.names or (), start=1)
        for line in (
            card(f"TTYPE{number}", title),
            card(f"TFORM{number}", _form(dtype[title])),
        )
    ]
    mandatory = [
        *(card("XTENSION", "BINTABLE", "binary table extension"), card("BITPIX", 8)),
        *(card("NAXIS", 2), card("NAXIS1", dtype.itemsize), card("NAXIS2", rows)),
        *(card("PCOUNT", 0), card("GCOUNT", 1), card("TFIELDS", len(columns) // 2)),
    ]
    return _block([*mandatory, *columns, card("EXTNAME", name)])


def _form(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "S":
        return f"{dtype.itemsize}A"
    repeat = prod(dtype.shape)
    return f"{repeat if repeat > 1 else ''}{_LETTERS[dtype.base.str[1:]]}"


def _block(cards: list[bytes]) -> bytes:
    content = b"".join([*cards, b"END".ljust(CARD)])
    return content.ljust(padded(len(content)))
