"""Headers that lie: sizes, types, names, units and order of extensions."""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from tests.mutations.damage import Make, Random, damage, on_parts, one_of
from tests.mutations.parts import Part

_SIZES = ("NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "BITPIX", "TFIELDS")
_LIES = (0, 1, 2, 3, 7, 8, 16, 32, 64, -32, -64, 999, 1000, 2**31, 2**31 - 1, 10**12, 2**63, -1)
_HUGE = (10**6, 2**31 - 1, 2**32, 10**10, 10**12, 2**62, 2**63, 10**30)
_FORMS = ("E", "D", "J", "K", "I", "B", "L", "A", "16A", "0E", "1000000E", "PE(3)", "99", "Z", "")
_NUMBERS = ("'nan'", "NAN", "1E999", "'x'", "", "-1", "T", "1D3000")
_QUANTITIES = ("K", "m", "deg", "ADU", "furlong", "mag", "erg", "10**", "\xe9", "1/0", "s" * 60)
_SCALES = ("10**-16 erg/(s cm2 Angstrom)", "erg/(s cm2 Angstrom)", "W m-2 um-1", "nm", "Angstrom")
_FACTORS = ("2.0", "0.5", "1E-3", "0.0", "NAN", "1E300", "'x'", "-1.0")


def _size(random: Random, found: list[Part], keys: tuple[str, ...]) -> tuple[int, str] | None:
    """An HDU, and one of these cards of it."""
    some = [(at, key) for at, part in enumerate(found) for key in keys if part.value(key)]
    return one_of(random, some) if some else None


@damage("a size that lies")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    place = _size(random, found, _SIZES)
    assert place is not None
    at, key = place
    true = int(found[at].value(key))
    lie = one_of(random, (*_LIES, true + 1, true - 1, true * 2, -true, true // 2))
    found[at] = found[at].having(key, str(lie))
    return found


@damage("a size that is huge")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    keys = ("NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "TFIELDS")
    place = _size(random, found, keys)
    if place is None:
        return None
    at, key = place
    found[at] = found[at].having(key, str(one_of(random, _HUGE)))
    return found


@damage("a size that is no number")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    place = _size(random, found, _SIZES)
    assert place is not None
    at, key = place
    found[at] = found[at].having(key, one_of(random, _NUMBERS))
    return found


@damage("999 axes")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    at = int(random.integers(len(found)))
    axes = [f"NAXIS{n}".ljust(8) + "= " + str(2).rjust(20) for n in range(1, 1000)]
    cards = [card for card in found[at].cards if not card.startswith(b"NAXIS")]
    head = f"{'NAXIS':<8}= {999:>20}"
    made = [line.encode().ljust(80) for line in (head, *axes)]
    found[at] = replace(found[at], cards=(*cards[:2], *made, *cards[2:]))
    return found


def _column(random: Random, found: list[Part]) -> tuple[int, int] | None:
    """Any column of any table: extension, and number of the column."""
    tables = [at for at, part in enumerate(found) if part.is_table]
    if not tables:
        return None
    at = one_of(random, tables)
    return at, int(random.integers(1, int(found[at].value("TFIELDS")) + 1))


@damage("TFORM that lies")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    if (place := _column(random, found)) is None:
        return None
    form = f"'{one_of(random, _FORMS):<8}'"
    found[place[0]] = found[place[0]].having(f"TFORM{place[1]}", form)
    return found


@damage("two columns of one name")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    if (place := _column(random, found)) is None:
        return None
    part = found[place[0]]
    other = int(random.integers(1, int(part.value("TFIELDS")) + 1))
    name = f"'{part.value(f'TTYPE{other}'):<8}'"
    found[place[0]] = part.having(f"TTYPE{place[1]}", name)
    return found


@damage("a column without its name", may="less")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    if (place := _column(random, found)) is None:
        return None
    found[place[0]] = found[place[0]].having(f"TTYPE{place[1]}", "'NOBODY'")
    return found


@damage("TDIM or TNULL")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    if (place := _column(random, found)) is None:
        return None
    key = one_of(random, ("TDIM", "TNULL"))
    text = ("'(2,3)'", "'(1)'", "'()'", "'(99999999,99999999)'", "-32768", "0", "'x'")
    found[place[0]] = found[place[0]].having(f"{key}{place[1]}", one_of(random, text))
    return found


@damage("scaled by its header", may="anything")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    place = _column(random, found)
    images = [n for n, part in enumerate(found) if part.data and not part.is_table]
    if images and (place is None or random.integers(2)):
        at, key = one_of(random, images), one_of(random, ("BSCALE", "BZERO"))
    elif place is not None:
        at, key = place[0], f"{one_of(random, ('TSCAL', 'TZERO'))}{place[1]}"
    else:
        return None
    found[at] = found[at].having(key, one_of(random, _FACTORS))
    return found


@damage("extensions swapped", whole=True)
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    if len(found) < 3:
        return None
    one, other = random.choice(np.arange(1, len(found)), 2, replace=False)
    found[one], found[other] = found[other], found[one]
    return found


@damage("names of extensions swapped", may="anything")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    named = [at for at, part in enumerate(found) if part.name]
    if len(named) < 2:
        return None
    one, other = random.choice(named, 2, replace=False)
    names = found[one].name, found[other].name
    found[one] = found[one].having("EXTNAME", f"'{names[1]:<8}'")
    found[other] = found[other].having("EXTNAME", f"'{names[0]:<8}'")
    return found


@damage("an extension dropped", whole=True)
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    del found[random.integers(len(found))]
    return found


@damage("an extension twice", whole=True)
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    at = int(random.integers(len(found)))
    return [*found[: at + 1], *found[at:]]


@damage("an extension without its name")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    named = [at for at, part in enumerate(found) if part.name]
    if not named:
        return None
    at = one_of(random, named)
    found[at] = found[at].having("EXTNAME", one_of(random, ("'NOBODY'", "''")))
    return found


@damage("two extensions of one name")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    named = [at for at, part in enumerate(found) if part.name]
    if len(named) < 2:
        return None
    one, other = random.choice(named, 2, replace=False)
    found[one] = found[one].having("EXTNAME", f"'{found[other].name:<8}'")
    return found


def _units(texts: tuple[str, ...]) -> Make:
    """Another unit of flux, ivar or wavelength."""

    @on_parts
    def change(random: Random, found: list[Part]) -> list[Part] | None:
        keys: list[tuple[int, Any]] = [
            (at, key)
            for at, part in enumerate(found)
            for key in part.keywords
            if re.fullmatch(r"BUNIT|TUNIT\d+|CUNIT1", key)
        ]
        if not keys:
            return None
        at, key = one_of(random, keys)
        found[at] = found[at].having(key, f"'{one_of(random, texts):<8}'")
        return found

    return change


damage("a unit of another quantity")(_units(_QUANTITIES))
damage("a unit of another scale", may="anything")(_units(_SCALES))
