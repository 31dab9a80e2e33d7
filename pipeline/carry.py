"""Carrying: columns of a catalogue to the rows of a survey that match it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue import Catalogue, Column, Values
from storage import schema
from storage.schema import Field
from storage.writer import Writer

HELD_BYTES = 2**28
"Columns that are held at once, at most, unless one alone is larger."
EXACT = 2**53
"A float64 keeps every integer up to here."
RESERVED = frozenset({"matched", "catalogue_row", "distance", *schema.LEDGER})
"Names that a join gives to columns of its own."


def chosen(catalogue: Catalogue, columns: Sequence[str] | None) -> dict[str, str]:
    """Columns to carry, {name in the survey: name in the catalogue}; all of them when None.

    What an expression could not spell gets an underscore: ``2mass-J`` becomes ``_2mass_J``.

    Raises
    ------
    ValueError
        When one is not there, is no column of numbers or texts, or has a name that is taken.
    """
    if columns is None and catalogue.refused:
        what = ", ".join(f"{name!r} ({kind})" for name, kind in catalogue.refused.items())
        raise ValueError(
            f"{catalogue.path}: no columns of numbers or texts: {what}; name the ones to join "
            f"with --columns (there: {', '.join(catalogue.columns)})"
        )
    wanted = catalogue.columns if columns is None else map(catalogue.named, columns)
    found: dict[str, str] = {}
    for name in wanted:
        mine = spelled(name)
        if mine in RESERVED or mine in found:
            by = "join itself" if mine in RESERVED else f"column {found[mine]!r}"
            raise ValueError(
                f"{catalogue.path}: column {name!r} would be called {mine!r}, as {by} is; rename "
                "it in the file, or leave it out with --columns"
            )
        found[mine] = name
    return found


def spelled(name: str) -> str:
    """A column's name as an expression can spell it.

    Examples
    --------
    >>> spelled("2mass-J"), spelled("z")
    ('_2mass_J', 'z')
    """
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    if plain in {"and", "or", "not", "in"}:
        return f"{plain}_"
    return f"_{plain}" if plain[:1].isdigit() or not plain else plain


def carry(
    writer: Writer,
    group: str,
    catalogue: Catalogue,
    row: NDArray[np.int64],
    names: Mapping[str, str],
) -> None:
    """Add columns of a catalogue to a group.

    Parameters
    ----------
    row : (N,) int64
        Row of the catalogue for each row of the group; -1 for none.
    names : mapping of str to str
        As `chosen` gives them.

    Raises
    ------
    ValueError
        When a column is called as the marks of another one's missing values.
    """
    for part in _parts(catalogue, names, len(row)):
        for mine, values in _matched(catalogue, row, part).items():
            column = catalogue.columns[part[mine]]
            about: dict[str, Any] = {"catalogue_name": part[mine]}
            if values.values.dtype.kind in "iu":
                top = max((abs(int(v)) for v in _extremes(values.values)), default=0)
                about["exact_in_float"] = top <= EXACT
            writer.add_column(group, mine, _field(column), values.values, about)
            lacking = (row >= 0) & ~values.known
            if lacking.any() and values.values.dtype.kind in "iub":
                _mark(writer, group, mine, values, names)


def _mark(writer: Writer, group: str, mine: str, values: Values, names: Mapping[str, str]) -> None:
    """An integer has no NaN: a second column says where there is a value."""
    mark = f"{mine}_known"
    if mark in names:
        raise ValueError(
            f"{group}: {mine!r} has missing values, which {mark!r} would mark, a column of the "
            "catalogue; rename it in the file, or leave it out with --columns"
        )
    field = Field(dtype="u1", units="1", description=f"1 where the catalogue has {mine}")
    writer.add_column(group, mark, field, values.known.astype("u1"), {"known_of": mine})


def _parts(catalogue: Catalogue, names: Mapping[str, str], rows: int) -> Iterator[dict[str, str]]:
    """Columns in parts that may be held at once."""
    part: dict[str, str] = {}
    held = 0
    for mine, name in names.items():
        # A text is a few words of 16 bytes, and every value has its mark.
        bytes_each = 1 + catalogue.columns[name].dtype.itemsize
        if part and held + bytes_each * rows > HELD_BYTES:
            yield part
            part, held = {}, 0
        part[mine] = name
        held += bytes_each * rows
    if part:
        yield part


def _matched(
    catalogue: Catalogue, row: NDArray[np.int64], names: Mapping[str, str]
) -> dict[str, Values]:
    """Columns at the rows of the survey; empty where nothing matches."""
    found = {mine: _blank(_field(catalogue.columns[n]), len(row)) for mine, n in names.items()}
    target = np.flatnonzero(row >= 0)
    target = target[np.argsort(row[target], kind="stable")]
    source, begin = row[target], 0
    for batch in catalogue.batches(list(names.values())):
        end = begin + len(next(iter(batch.values())).values)
        low, high = np.searchsorted(source, [begin, end])
        here, there = target[low:high], source[low:high] - begin
        for mine, name in names.items():
            found[mine].values[here] = batch[name].values[there]
            found[mine].known[here] = batch[name].known[there]
        begin = end
    return found


def _blank(field: Field, rows: int) -> Values:
    values = np.full(rows, schema.empty(field), schema.dtype(field))
    return Values(values=values, known=np.zeros(rows, bool))


def _field(column: Column) -> Field:
    kinds = {"T": "str", "b": "u1", "f": "f4" if column.dtype.itemsize <= 4 else "f8"}
    return Field(
        dtype=kinds.get(column.dtype.kind, column.dtype.str[1:]),
        units=column.units or "1",
        description=column.description or "column of the catalogue",
    )


def _extremes(values: NDArray[np.integer]) -> list[np.integer]:
    return [values.min(), values.max()] if values.size else []
