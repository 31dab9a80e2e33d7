"""What is wrong with the bands of an index that somebody wrote down; they are in air A by now."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.definition import Atomic, Break
from pipeline.index_generic import Generic
from pipeline.index_names import Index, catalogue, find
from pipeline.window import Band

REACH = (2000.0, 30000.0)
"A within which air wavelengths are known well; numbers outside are in another unit."
SAME = 0.02
"A: bands closer than this are the same, written with fewer digits."
SHIFT = (0.9, 2.4)
"A: what takes air to vacuum at 3500-8500 A, and the rounding of those who applied it."


def faults(index: Index) -> Iterator[str]:
    """What is wrong with an index, in words; the first explains the others."""
    yield from _reversed(index.bands)
    yield from _of_another_unit(index.bands)
    yield from _of_another_medium(index)
    yield from _out_of_order(index)
    yield from _of_another_name(index)


def _reversed(bands: Sequence[Band]) -> Iterator[str]:
    for low, high in bands:
        if not low < high:
            yield f"band {low:g}-{high:g} is reversed or empty; expected start < end"


def _of_another_unit(bands: Sequence[Band]) -> Iterator[str]:
    for low, high in bands:
        if not (REACH[0] <= low and high <= REACH[1]):
            yield (
                f"band {low:g}-{high:g} lies outside {REACH[0]:g}-{REACH[1]:g} A; "
                "wavelengths are in Angstrom"
            )


def _of_another_medium(index: Index) -> Iterator[str]:
    """The table that circulates has the Lick bands in vacuum, or near it, and calls them air."""
    for known in catalogue().values():
        moved = _moved(index, known)
        if moved is None:
            continue
        low, high = moved.min(), moved.max()
        if low >= SHIFT[0] and high <= SHIFT[1]:
            yield (
                f"its bands lie {low:+.2f} to {high:+.2f} A from those of {known.name!r} "
                f"({known.reference}): they were moved to vacuum, but are said to be in air. Such "
                f"a table of the Lick indices circulates. Take {known.name!r} from the shelf, or "
                'say medium = "vacuum" if that is exactly what they are'
            )
        if -high >= SHIFT[0] and -low <= SHIFT[1]:
            yield (
                f"its bands lie {low:+.2f} to {high:+.2f} A from those of {known.name!r} "
                f"({known.reference}): they are in air, but are said to be in vacuum. "
                'Say medium = "air"'
            )


def _moved(index: Index, known: Index) -> NDArray[np.float64] | None:
    """By how many A the bands are away from known ones, where they may be compared.

    Under the known one's name the feature is enough: its side bands may have been moved otherwise.
    """
    if type(index) is not type(known) or len(index.bands) != len(known.bands):
        return None
    mine, theirs = index.bands, known.bands
    if _named(index.name, known) and isinstance(index, Atomic) and isinstance(known, Atomic):
        mine, theirs = (index.feature,), (known.feature,)
    return np.subtract(mine, theirs, dtype=np.float64)


def _of_another_name(index: Index) -> Iterator[str]:
    """A name of the shelf means what the shelf says."""
    for known in catalogue().values():
        if _named(index.name, known) and not same(index, known):
            there = ", ".join(f"{low:.10g}-{high:.10g}" for low, high in known.bands)
            yield (
                f"the shelf has {known.name!r} with other bands ({there} A in air, "
                f"{known.units}; {known.reference}); give yours another name"
            )


def same(index: Index, known: Index) -> bool:
    """Whether two indices are one, but for the digits of their bands."""
    alike = type(index) is type(known) and len(index.bands) == len(known.bands)
    return (
        alike
        and index.units == known.units
        and getattr(index, "density", "") == getattr(known, "density", "")
        and getattr(index, "factors", ()) == getattr(known, "factors", ())
        and np.allclose(index.bands, known.bands, rtol=0, atol=SAME)
    )


def _named(name: str, known: Index) -> bool:
    try:
        return find(name).name == known.name
    except ValueError:
        return False


def _out_of_order(index: Index) -> Iterator[str]:
    if isinstance(index, Break):
        yield from _apart(index.blue, index.red, "blue", "red")
    elif isinstance(index, Atomic):
        for side, band in (("blue", index.blue), ("red", index.red)):
            if np.allclose(band, index.feature, rtol=0, atol=SAME):
                yield f"its {side} side band is the feature itself ({_words(band)})"
        yield from _apart(index.blue, index.red, "blue", "red")
        if sum(index.blue) / 2 >= index.feature[0]:
            yield _beyond("blue", index.blue, index.feature)
        if sum(index.red) / 2 <= index.feature[1]:
            yield _beyond("red", index.red, index.feature)
    elif isinstance(index, Generic):
        for one, other in combinations(index.continuum, 2):
            if max(one[0], other[0]) < min(one[1], other[1]):
                yield f"bands of its continuum overlap: {_words(one)} and {_words(other)}"
        for left, right in pairwise(index.continuum):
            if left[0] > right[0]:
                yield f"bands of its continuum do not ascend: {_words(left)} and {_words(right)}"


def _apart(blue: Band, red: Band, left: str, right: str) -> Iterator[str]:
    """Feature and side band may overlap, as those of Mgb do, but not the two sides."""
    if blue[0] >= red[0]:
        yield f"its {left} band ({_words(blue)}) lies redward of its {right} one ({_words(red)})"
    elif blue[1] > red[0]:
        yield f"its {left} band ({_words(blue)}) overlaps its {right} one ({_words(red)})"


def _beyond(side: str, band: Band, feature: Band) -> str:
    return (
        f"the middle of its {side} side band ({_words(band)}) is not on the {side} side of the "
        f"feature ({_words(feature)})"
    )


def _words(band: Band) -> str:
    return f"{band[0]:.10g}-{band[1]:.10g} A"
