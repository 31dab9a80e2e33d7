"""Damage to bytes, sizes and order: each kind has a name, and makes bytes of bytes by a seed."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tests.mutations import parts
from tests.mutations.parts import Part

Random = np.random.Generator
Make = Callable[[Random, bytes], bytes | None]
Change = Callable[[Random, list[Part]], list[Part] | None]
May = Literal["nothing", "less", "pixels", "anything"]
Form = Literal["plain", "summed", "packed"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One kind of damage."""

    name: str
    make: Make
    "None where the file has nothing of that kind."
    may: May | tuple[str, ...] = "nothing"
    """What an accepted row may say that the undamaged file does not. "nothing"; "less": pixels
    within their errors, since others were dropped; "pixels": so, and no redshift; the variables
    that are listed; "anything": without a checksum the damaged file is as good as another one."""
    whole: bool = False
    "Whether each HDU keeps a checksum that holds."
    forms: tuple[Form, ...] = ("plain", "plain", "summed", "packed")
    "How the file was stored before it is damaged; one of them is drawn."
    sound: bool = False
    "Whether it is no damage at all: every row must come in."


ALL: dict[str, Damage] = {}


def damage(name: str, **more: Any) -> Callable[[Make], Make]:
    def kept(make: Make) -> Make:
        ALL[name] = Damage(name=name, make=make, **more)
        return make

    return kept


def on_parts(change: Change) -> Make:
    """Damage that is done to a file taken apart."""

    def make(random: Random, content: bytes) -> bytes | None:
        found = change(random, [*parts.split(content)])
        return None if found is None else parts.join(found)

    return make


def one_of(random: Random, values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def flip(random: Random, content: bytes, first: int, last: int, most: int = 4) -> bytes:
    changed = bytearray(content)
    for at in random.integers(first, last, random.integers(1, most + 1)):
        changed[at] ^= 1 << random.integers(8)
    return bytes(changed)


@damage("none at all", sound=True)
def _(random: Random, content: bytes) -> bytes:
    return content


@damage("bits flipped anywhere", may="anything")
def _(random: Random, content: bytes) -> bytes:
    return flip(random, content, 0, len(content))


@damage("bits flipped in a header", may="anything")
def _(random: Random, content: bytes) -> bytes:
    begin, data, _, _ = one_of(random, [*parts.spans(content)])
    return flip(random, content, begin, begin + len(content[begin:data].rstrip()))


@damage("bits flipped in data", may="anything")
def _(random: Random, content: bytes) -> bytes:
    full = [(data, pad) for _, data, pad, _ in parts.spans(content) if pad > data]
    return flip(random, content, *one_of(random, full))


@damage("one bit behind a checksum", forms=("summed",))
def _(random: Random, content: bytes) -> bytes:
    full = [(data, pad) for _, data, pad, _ in parts.spans(content) if pad > data]
    return flip(random, content, *one_of(random, full), most=1)


@damage("padding that is not empty", may="anything")
def _(random: Random, content: bytes) -> bytes | None:
    some = [(pad, end) for _, _, pad, end in parts.spans(content) if end > pad]
    if not some:
        return None
    pad, end = one_of(random, some)
    return content[:pad] + random.bytes(end - pad) + content[end:]


@damage("a block of garbage", may="anything")
def _(random: Random, content: bytes) -> bytes:
    at = int(random.integers(len(content)))
    garbage = random.bytes(int(random.integers(1, 5000)))
    return (content[:at] + garbage + content[at + len(garbage) :])[: len(content)]


@damage("a block of zeros", may="anything")
def _(random: Random, content: bytes) -> bytes:
    at = parts.BLOCK * int(random.integers(len(content) // parts.BLOCK))
    zeros = bytes(parts.BLOCK * int(random.integers(1, 4)))
    return (content[:at] + zeros + content[at + len(zeros) :])[: len(content)]


@damage("cut short anywhere", whole=True)
def _(random: Random, content: bytes) -> bytes:
    return content[: random.integers(len(content))]


@damage("cut short at a block", whole=True)
def _(random: Random, content: bytes) -> bytes:
    return content[: parts.BLOCK * int(random.integers(len(content) // parts.BLOCK))]


@damage("a piece lost within")
def _(random: Random, content: bytes) -> bytes:
    at, size = int(random.integers(len(content))), int(random.integers(1, 10000))
    return content[:at] + content[at + size :]


@damage("longer than it says", whole=True)
def _(random: Random, content: bytes) -> bytes:
    size = int(random.integers(1, 9000))
    return content + (random.bytes(size) if random.integers(2) else b"\0" * size)


@damage("a header without its end")
def _(random: Random, content: bytes) -> bytes:
    ends = [
        at
        for begin, data, _, _ in parts.spans(content)
        for at in range(begin, data, parts.CARD)
        if content[at : at + parts.CARD] == parts.END
    ]
    at = one_of(random, ends)
    return content[:at] + b" " * parts.CARD + content[at + parts.CARD :]


@damage("its gzip damaged", forms=("packed",), whole=True)
def _(random: Random, content: bytes) -> bytes:
    packed = gzip.compress(content, 1, mtime=0)
    if random.integers(2):
        return packed[: random.integers(2, len(packed))]
    return flip(random, packed, 2, len(packed))


@damage("gzip without end", forms=("packed",), whole=True)
def _(random: Random, content: bytes) -> bytes:
    # 16 MB of zeros in 16 kB: it must not be unpacked into the memory whole, again and again.
    return gzip.compress(content, 1, mtime=0) + _ZEROS


_ZEROS = gzip.compress(bytes(16 << 20), 9, mtime=0)


@damage("an empty file")
def _(random: Random, content: bytes) -> bytes:
    return b""


@damage("garbage for a file")
def _(random: Random, content: bytes) -> bytes:
    start = one_of(random, (b"", b"SIMPLE  =", b"\x1f\x8b\x08", content[:2880]))
    return start + random.bytes(int(random.integers(20000)))
