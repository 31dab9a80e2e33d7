"""A catalogue in a file: its columns by name, read in batches of rows."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

BATCH_ROWS = 65_536
"Rows of a table that are held at once, where its format allows."
TEXT = np.dtypes.StringDType()


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    dtype: np.dtype[Any]
    "Of its values; texts are StringDType."
    units: str = "1"
    "As the file says; '1' where it says nothing."
    description: str = ""
    "As the file says."


@dataclass(frozen=True, kw_only=True)
class Values:
    """Rows of one column."""

    values: NDArray[Any]
    "(n,) values; NaN, 0, False or an empty text where there is none."
    known: NDArray[np.bool_]
    "(n,) rows that have a value."


class Catalogue(ABC):
    """A table in a file."""

    rows: int
    columns: dict[str, Column]
    "What can be read, in the order of the file."
    refused: dict[str, str]
    "What cannot be a column of numbers or texts, and what it is instead."

    def __init__(self, path: Path) -> None:
        """Use `pipeline.catalogue_files.open_catalogue`."""
        self.path = path

    @abstractmethod
    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Values]]:
        """The rows in their order, of these columns only."""

    def read(self, name: str) -> Values:
        """A whole column."""
        parts = [part[name] for part in self.batches([name])]
        if not parts:
            return Values(values=np.empty(0, self.columns[name].dtype), known=np.empty(0, bool))
        return Values(
            values=np.concatenate([part.values for part in parts]),
            known=np.concatenate([part.known for part in parts]),
        )

    def named(self, name: str) -> str:
        """A column as the file spells it: by its name, or by the only one that is so but for case.

        Raises
        ------
        ValueError
            When there is none, with the nearest; when it is no column of numbers or texts.
        """
        alike = [own for own in self.columns if own.lower() == name.lower()]
        if name in self.columns or len(alike) == 1:
            return name if name in self.columns else alike[0]
        if name in self.refused:
            raise ValueError(f"{self.path}: column {name!r} is {self.refused[name]}")
        near = difflib.get_close_matches(name, self.columns, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{self.path}: no column {name!r}{hint}")

    def read_key(self, name: str) -> Values:
        """A whole column, to the last digit: as text where the file is one."""
        return self.read(name)


class Arrow(Catalogue):
    """A table whose batches come from Arrow."""

    def __init__(self, path: Path, schema: pa.Schema, about: Mapping[str, Column]) -> None:
        super().__init__(path)
        self.columns, self.refused = {}, {}
        for field in schema:
            kind, known = field.type, about.get(field.name)
            if (dtype := _dtype(kind)) is None:
                self.refused[field.name] = str(kind)
            else:
                self.columns[field.name] = Column(
                    dtype=dtype,
                    units=_said(field, b"units", b"unit") or (known.units if known else "1"),
                    description=_said(field, b"description")
                    or (known.description if known else ""),
                )

    def converted(self, batch: pa.RecordBatch) -> dict[str, Values]:
        """Rows as Arrow has them, as NumPy's."""
        return {
            name: _values(batch.column(number), self.columns[name].dtype)
            for number, name in enumerate(batch.schema.names)
        }


def _said(field: pa.Field, *keys: bytes) -> str:
    about = field.metadata or {}
    return next((about[key].decode() for key in keys if about.get(key)), "")


def _dtype(kind: pa.DataType) -> np.dtype[Any] | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return TEXT
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    return None


def _values(column: pa.Array, dtype: np.dtype[Any]) -> Values:
    known = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
    if dtype.kind == "T":
        texts = column.cast(pa.string()).fill_null("").to_pylist()
        return Values(values=np.array(texts, TEXT), known=known)
    lacking = np.nan if dtype.kind == "f" else False if dtype.kind == "b" else 0
    filled = pc.fill_null(column, pa.scalar(lacking, column.type)) if column.null_count else column
    return Values(values=filled.to_numpy(zero_copy_only=False), known=known)
