"""Indices of anybody's tables: TOML or ECSV files that say name, kind, bands, units and medium.

Air or vacuum has no default. What is read becomes the same definitions as those on the shelf, its
bands in air, so that it may be sent to workers and compared.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from pipeline.card_table import Table
from pipeline.card_words import CardError
from pipeline.definition import Atomic, Break
from pipeline.index import Medium
from pipeline.index_composite import Composite
from pipeline.index_generic import Generic
from pipeline.index_names import Index, catalogue, find
from pipeline.user_bands import faults, same
from pipeline.window import Band
from storage.grid import vacuum_to_air

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class _Entry(Table):
    """What all kinds of index have."""

    name: Name
    "Letters, digits and _: columns are called by it."
    reference: str = Field(min_length=1)
    "Who defines it."
    medium: Medium
    "Of the bands."

    def air(self, band: Band) -> Band:
        """A band in air."""
        if self.medium == "air":
            return band
        return float(vacuum_to_air(band[0])), float(vacuum_to_air(band[1]))


class AtomicEntry(_Entry):
    """Equivalent width or magnitude below the line through two side bands."""

    kind: Literal["atomic"]
    units: Literal["Angstrom", "mag"]
    blue: Band
    feature: Band
    red: Band

    def index(self) -> Atomic:
        """The definition."""
        return Atomic(
            name=self.name,
            blue=self.air(self.blue),
            feature=self.air(self.feature),
            red=self.air(self.red),
            units=self.units,
            reference=self.reference,
        )


class BreakEntry(_Entry):
    """Mean flux density of the red band over that of the blue one."""

    kind: Literal["break"]
    units: Literal["1"] = "1"
    blue: Band
    red: Band
    density: Literal["nu", "lambda"]

    def index(self) -> Break:
        """The definition."""
        return Break(
            name=self.name,
            blue=self.air(self.blue),
            red=self.air(self.red),
            density=self.density,
            reference=self.reference,
        )


class GenericEntry(_Entry):
    """Features, each with its factor, below the line fitted to bands of continuum."""

    kind: Literal["generic"]
    units: Literal["Angstrom"]
    continuum: tuple[Band, ...] = Field(min_length=2)
    features: tuple[Band, ...] = Field(min_length=1)
    factors: tuple[FiniteFloat, ...]
    weighted: bool = True

    def index(self) -> Generic:
        """The definition."""
        if len(self.factors) != len(self.features):
            raise ValueError(f"{len(self.features)} features, but {len(self.factors)} factors")
        return Generic(
            name=self.name,
            continuum=tuple(self.air(band) for band in self.continuum),
            features=tuple(self.air(band) for band in self.features),
            factors=self.factors,
            weighted=self.weighted,
            reference=self.reference,
        )


_ENTRY: TypeAdapter[AtomicEntry | BreakEntry | GenericEntry] = TypeAdapter(
    Annotated[AtomicEntry | BreakEntry | GenericEntry, Field(discriminator="kind")]
)


def load(path: str) -> tuple[Index, ...]:
    """The indices of a table.

    Parameters
    ----------
    path : str
        A ``.toml`` or ``.ecsv`` file; docs/indices.md says what is in one.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    CardError
        When the medium is not stated, a unit or kind is unknown, bands are reversed, out of order
        or in the wrong medium, a name is there twice or means something else on the shelf.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such table of indices")
    readers = {".toml": _toml, ".ecsv": _ecsv}
    if file.suffix not in readers:
        raise CardError(f"{path}: a table of indices is a .toml or an .ecsv file")
    found: dict[str, Index] = {}
    for number, entry in enumerate(readers[file.suffix](file), start=1):
        index = _index(f"{path}: index {entry.get('name', number)}", entry)
        if index.name in found:
            raise CardError(f"{path}: index {index.name!r} is there twice")
        found[index.name] = index
    if not found:
        raise CardError(f"{path}: no [[index]] in it")
    return tuple(found.values())


def chosen(names: Iterable[str], tables: Iterable[str] = ()) -> tuple[Index, ...]:
    """The indices that names mean, with those of some tables beside the shelf.

    Raises
    ------
    FileNotFoundError, CardError
        As `load`; when two tables define one name differently, an index is there twice, or one of
        anybody's module is wrong as it would be in a table.
    ValueError
        When a name is neither in a table nor on the shelf.
    """
    known: dict[str, Index] = {}
    for path in tables:
        for index in load(path):
            if index.name in known and not same(index, known[index.name]):
                raise CardError(f"{path}: index {index.name!r} is another one in another table")
            known.setdefault(index.name, index)
    found = [known[name] if name in known else _found(name, known) for name in names]
    twice = {index.name for index in found if [one.name for one in found].count(index.name) > 1}
    if twice:
        raise CardError(f"index {', '.join(sorted(twice))}: asked for twice, or by two names")
    return tuple(found)


def definitions(indices: Sequence[Index]) -> dict[str, Any]:
    """What defines those of some indices that are not on the shelf, as JSON: it makes stale."""
    return {
        index.name: {"kind": type(index).__name__.lower(), **_plain(index)}
        for index in indices
        if catalogue().get(index.name) != index
    }


def _plain(index: Index) -> dict[str, Any]:
    if isinstance(index, Atomic | Break | Generic | Composite):
        return {name: _lists(said) for name, said in asdict(index).items() if name != "reference"}
    return {"bands": _lists(index.bands), "units": index.units}


def _lists(value: Any) -> Any:
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


def _found(name: str, known: Mapping[str, Index]) -> Index:
    try:
        index = find(name)
    except ValueError as error:
        raise ValueError(f"{error}; in tables: {', '.join(known) or 'none'}") from None
    if catalogue().get(index.name) != index:
        for fault in faults(index):
            raise CardError(f"index {name}: {fault}")
    return index


def _index(where: str, entry: Mapping[str, Any]) -> Index:
    if "medium" not in entry:
        raise CardError(f'{where}: say medium = "air" or medium = "vacuum"; there is no default')
    try:
        index: Index = _ENTRY.validate_python(entry).index()
    except ValidationError as error:
        raise CardError("\n".join(_words(where, item) for item in error.errors())) from error
    except ValueError as error:
        raise CardError(f"{where}: {error}") from error
    for fault in faults(index):
        raise CardError(f"{where}: {fault}")
    return catalogue().get(index.name, index) if _shelved(index) else index


def _shelved(index: Index) -> bool:
    """Whether it says again what the shelf says."""
    known = catalogue().get(index.name)
    return known is not None and same(index, known)


def _words(where: str, item: Any) -> str:
    if item["type"].startswith("union_tag"):
        return f"{where}: kind: expected 'atomic', 'break' or 'generic'"
    # The first part is the kind, which tells the models apart.
    place = ".".join(str(part) for part in item["loc"][1:])
    given = "" if item["type"] == "missing" else f", found {item['input']!r}"
    return f"{where}: {place}: {item['msg']}{given}"


def _toml(file: Path) -> list[dict[str, Any]]:
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{file}: not TOML ({error})") from error
    entries = content.pop("index", [])
    common: dict[str, Any] = {n: content.pop(n) for n in ("medium", "reference") if n in content}
    if content:
        raise CardError(
            f"{file}: unknown {', '.join(content)}; known: medium, reference, [[index]]"
        )
    return [{**common, **entry} for entry in entries]


def _ecsv(file: Path) -> list[dict[str, Any]]:
    """Rows of name, kind, units, reference, and blue_start, blue_end, feature_start ... red_end."""
    from astropy.table import Table as Columns

    try:
        columns = Columns.read(file, format="ascii.ecsv")
    except ValueError as error:
        raise CardError(f"{file}: not ECSV ({error})") from error
    common = {name: columns.meta[name] for name in ("medium", "reference") if name in columns.meta}
    ends = [name for name in columns.colnames if name.endswith(("_start", "_end"))]
    edges = {name: _angstrom(f"{file}: column {name!r}", columns[name]) for name in ends}
    found = []
    for number, row in enumerate(columns):
        entry = {n: row[n].item() for n in columns.colnames if n not in ends and row[n]}
        for band in dict.fromkeys(name.rpartition("_")[0] for name in ends):
            pair = [edges[name][number] for name in (f"{band}_start", f"{band}_end")]
            # A break has no feature: its cells are empty.
            if not all(math.isnan(edge) for edge in pair):
                entry[band] = pair
        found.append({**common, **entry})
    return found


def _angstrom(where: str, column: Any) -> list[float]:
    """Wavelengths of a column; NaN where a cell is empty."""
    from astropy.units import UnitConversionError

    try:
        scale = column.unit.to("Angstrom")
    except (UnitConversionError, AttributeError) as error:
        raise CardError(f"{where}: unit {column.unit}; expected one of length") from error
    values = np.ma.filled(np.ma.asarray(column, float), np.nan) * scale
    return [round(float(value), 6) for value in values]
