"""Numbers that cannot be: not finite, absurd, twice; and text that is none."""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from tests.mutations.damage import Make, May, Random, damage, on_parts, one_of
from tests.mutations.parts import Part, spots

_FLUX = re.compile(r"(^|.*_)(FLUX|DATA|SENSFUNC)").fullmatch
_IVAR = re.compile(r"(^|.*_)IVAR").fullmatch
_WAVE = re.compile(r"LOGLAM|(^|.*_)WAVELENGTH|CRVAL1|CD1_1|CDELT1|CRPIX1").fullmatch
_FIT = re.compile(r"MODEL|WDISP|(^|.*_)RESOLUTION").fullmatch
_REDSHIFT = re.compile(r"Z(_RR)?").fullmatch
_PLACE = re.compile(r"(PLUG_|TARGET_|TARG)?(RA|DEC)|(RA|DEC)CAT").fullmatch
_OTHER = re.compile(
    r"Z_?ERR(_RR)?|EBV|EXTINCTION|VDISP|(MEAN_)?MJD|MJD-OBS|TAI-(BEG|END)|EXPTIME"
).fullmatch
_BITS = re.compile(r"ZWARN(ING)?|.*STATUS|(AND_|OR_|.*_)?MASK|.*_TARGET").fullmatch
_IDENTITY = re.compile(r"TARGETID|CNAME|TARGID|NSPEC|PLATE|MJD|FIBERID|BESTOBJID|EXPID").fullmatch
_MATCHED = ("REDSHIFTS", "CLASS_TABLE")
"Tables in which a target is looked for by its id."
_NAMES = ("target_id", "observation", "mjd", "survey")
_FITTED = ("z", "z_err", "zwarn", "class", "subclass", "vdisp")
_FLAGS = ("zwarn", "mask", "fiberstatus", "object_type", "flux", "ivar")

_NONE = (float("nan"), float("inf"), float("-inf"))
_BELOW = -12345.0
"Marks a value that is the old one, below 0."


def put(wanted: Any, values: tuple[float, ...], share: float) -> Make:
    """Values in the place of some of the numbers of an array, a column or a card."""

    @on_parts
    def change(random: Random, found: list[Part]) -> list[Part] | None:
        if not (some := spots(found, wanted)):
            return None
        at, name = one_of(random, some)
        part, value = found[at], one_of(random, values)
        array = part.array
        if array is None:
            found[at] = part.having(name, f"{value:.6G}" if np.isfinite(value) else "NAN")
            return found
        numbers = array[name] if name else array
        if numbers.dtype.kind not in "iuf":
            return None
        where = random.random(numbers.shape) < share
        where.flat[random.integers(where.size)] = True
        numbers[where] = _cast(value, numbers[where])
        found[at] = part.holding(array)
        return found

    return change


def _cast(value: float, old: Any) -> Any:
    if value == _BELOW:
        return -np.abs(old) - 1
    if old.dtype.kind == "f":
        with np.errstate(all="ignore"):
            # An ivar in erg and not in 1e-17 erg is 1e34 times as large.
            sizes = np.abs(old[np.isfinite(old)])
            scale = max(1.0, float(np.median(sizes))) if abs(value) > 1e20 and sizes.size else 1.0
            return np.asarray(value * scale).astype(old.dtype)
    limits = np.iinfo(old.dtype)
    return int(min(max(np.nan_to_num(value), limits.min), limits.max))


def _numbers(name: str, wanted: Any, values: tuple[float, ...], share: float, may: May) -> None:
    damage(name, may=may)(put(wanted, values, share))


_numbers("flux not finite", _FLUX, _NONE, 0.01, "pixels")
_numbers("flux absurd", _FLUX, (1e30, -1e30, 3e38, 1e25, -1e25), 0.01, "pixels")
_numbers("all flux absurd", _FLUX, (1e30, -1e30, 3e38, float("nan")), 1, "pixels")
_numbers("ivar not finite", _IVAR, _NONE, 0.01, "pixels")
_numbers("ivar negative", _IVAR, (_BELOW,), 0.01, "pixels")
_numbers("ivar absurd", _IVAR, (1e30, 3e38, 1e35), 0.01, "pixels")
_numbers("all ivar absurd", _IVAR, (1e30, 3e38, 1e35), 1, "pixels")
_numbers("wavelengths absurd", _WAVE, (*_NONE, 0.0, -1.0, 1e30), 0.001, "nothing")
_numbers("model or line spread absurd", _FIT, (*_NONE, 1e30, -1e30, 3e38), 0.01, "pixels")
_numbers("redshift absurd", _REDSHIFT, (*_NONE, 99.0, -9.0, 1e30), 0.5, "pixels")
_numbers("position absurd", _PLACE, (*_NONE, -999.0, 1e30, 400.0), 0.5, "nothing")
_numbers("another column absurd", _OTHER, (*_NONE, 1e30, -1e30), 0.5, "pixels")


@damage("all bits of a flag set", may=_FLAGS)
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    arrays = [(at, name, found[at].array) for at, name in spots(found, _BITS)]
    some = [(at, name, a) for at, name, a in arrays if a is not None and _integer(a, name)]
    if not some:
        return None
    at, name, array = one_of(random, some)
    numbers = array[name] if name else array
    # Not -1: to a sum in ones' complement it is the same as 0.
    numbers[random.random(numbers.shape) < 0.5] = one_of(random, (-2, np.iinfo(numbers.dtype).max))
    found[at] = found[at].holding(array)
    return found


def _integer(array: Any, name: str) -> bool:
    return (array.dtype[name] if name else array.dtype).kind == "i"


def _twice(fitted: bool) -> Make:
    @on_parts
    def change(random: Random, found: list[Part]) -> list[Part] | None:
        tables = [at for at, part in enumerate(found) if part.is_table]
        some = [
            (at, name)
            for at, name in spots(found, _IDENTITY)
            if at in tables and (found[at].name in _MATCHED) == fitted
        ]
        if not some:
            return None
        at, name = one_of(random, some)
        array = found[at].array
        assert array is not None
        array[name][:] = array[name][random.integers(len(array))]
        found[at] = found[at].holding(array)
        return found

    return change


damage("an id twice among the fibres", may=(*_NAMES, *_FITTED))(_twice(fitted=False))
damage("an id twice among the redshifts")(_twice(fitted=True))


@damage("text that is not ASCII in a column", may="anything")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    some = [
        (at, name)
        for at, name in spots(found, lambda _: True)
        if (array := found[at].array) is not None and name and array.dtype[name].kind == "S"
    ]
    if not some:
        return None
    at, name = one_of(random, some)
    array = found[at].array
    assert array is not None
    array[name][random.integers(len(array))] = random.bytes(array.dtype[name].itemsize)
    found[at] = found[at].holding(array)
    return found


@damage("a header that is not ASCII", may="anything")
@on_parts
def _(random: Random, found: list[Part]) -> list[Part] | None:
    at = int(random.integers(len(found)))
    cards = [*found[at].cards]
    which = int(random.integers(len(cards)))
    cards[which] = cards[which][:20] + random.bytes(20) + cards[which][40:]
    found[at] = replace(found[at], cards=tuple(cards))
    return found
