"""Indices by name: those on the shelf, by any name they go by, and those of anybody's module.

An index is an entry of ``INDICES`` in a module on the shelf `pipeline.indices`, its bands in AIR
as they were published.
"""

import difflib
import functools
from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor

from pipeline.index_aliases import canonical
from pipeline.window import Band, Window
from storage.names import resolve, shelf

SHELF = "pipeline.indices"


class Index(Protocol):
    """One index; the error comes from the same derivatives as the value."""

    @property
    def name(self) -> str:
        """As cards write it."""
        ...

    @property
    def units(self) -> str:
        """``Angstrom``, ``mag`` or ``1``."""
        ...

    @property
    def reference(self) -> str:
        """The paper that defines the bands."""
        ...

    @property
    def bands(self) -> tuple[Band, ...]:
        """Rest-frame bands, air A."""
        ...

    def measure(self, window: Window, bands: tuple[Band, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Value (N,), variance (N,), continuum positive (N,) bool; for the bands in vacuum."""
        ...


@functools.cache
def catalogue() -> dict[str, Index]:
    """All indices on the shelf, by name."""
    found: dict[str, Index] = {}
    for module in shelf(SHELF):
        for index in cast(Sequence[Index], resolve(SHELF, module).INDICES):
            if index.name in found:
                raise ValueError(f"{SHELF}.{module}: index {index.name!r} is there twice")
            found[index.name] = index
    return found


def names() -> list[str]:
    """All indices on the shelf."""
    return list(catalogue())


def units(name: str | Index) -> str:
    """``Angstrom``, ``mag`` or ``1``."""
    return (find(name) if isinstance(name, str) else name).units


def find(name: str) -> Index:
    """The index of that name, or of another one of `pipeline.index_aliases`.

    A dotted name (``mylab.indices.CaT``) is anybody's module's.

    Raises
    ------
    ValueError
        When there is none; names the nearest.
    """
    module, _, last = name.rpartition(".")
    known = _brought(module) if module else catalogue()
    found = last if module else canonical(last)
    if found in known:
        return known[found]
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no index {name!r} (there: {', '.join(known)}){hint}")


def _brought(module: str) -> dict[str, Index]:
    """The indices of anybody's module, by name."""
    found = getattr(resolve(SHELF, module), "INDICES", None)
    if not found:
        raise ValueError(f"module {module!r}: no INDICES in it; expected a tuple of indices")
    return {index.name: index for index in found}
