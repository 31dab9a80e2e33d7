"""The derivative of any index by each pixel's flux, where its square alone is not enough."""

import math

from pipeline.definition import Atomic, Break
from pipeline.index_composite import Composite
from pipeline.index_generic import Generic
from pipeline.index_line import Below, width_of
from pipeline.index_names import Index
from pipeline.window import Band, Window, total


def slope(index: Index, window: Window, bands: tuple[Band, ...]) -> Below:
    """Value (N,), derivative (N, K) and soundness (N,) of an index; bands in vacuum.

    Raises
    ------
    TypeError
        When the index is of a kind of its own.
    """
    if isinstance(index, Generic | Composite):
        return index.slope(window, bands)
    if isinstance(index, Break):
        return _ratio(index, window)
    if isinstance(index, Atomic):
        found = width_of(index, window, bands, 0)
        return found if index.units == "Angstrom" else _magnitude(found, bands[1][1] - bands[1][0])
    raise TypeError(
        f"index {index.name!r}: no derivative of a {type(index).__name__}; "
        "it can be measured at the native resolution"
    )


def _magnitude(found: Below, width: float) -> Below:
    mean = 1 - found.value / width
    scale = 2.5 / math.log(10) / (mean * width)
    return Below(-2.5 * mean.log10(), found.slope * scale[:, None], found.sound & (mean > 0))


def _ratio(index: Break, window: Window) -> Below:
    rest = window.rest.double()
    density = (rest / 4000.0).square() if index.density == "nu" else rest**0
    weights = [
        (overlap * density * window.good) / seen.double()[:, None]
        for overlap, seen in zip(window.overlap, window.seen, strict=True)
    ]
    blue, red = (total(window.flux.double(), weight) for weight in weights)
    ratio = red / blue
    slope = (weights[1] - ratio[:, None] * weights[0]) / blue[:, None]
    return Below(ratio, slope, blue > 0)
