"""Flags: what the bits of a variable mean, as CF attributes."""

from enum import IntFlag
from typing import Any


def bits(kind: type[IntFlag]) -> dict[str, Any]:
    """CF attributes of a variable of bits."""
    return {
        "flag_masks": [int(bit) for bit in kind],
        "flag_meanings": " ".join(str(bit.name).lower() for bit in kind),
    }
