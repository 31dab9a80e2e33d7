"""Catalogues in FITS, Parquet, CSV and ECSV files; see `pipeline.catalogue`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.table.meta import get_header_from_yaml

from pipeline.catalogue import BATCH_ROWS, TEXT, Arrow, Catalogue, Column, Values

_YAML = b"table_meta_yaml"
"Where astropy leaves units in a Parquet file."


def open_catalogue(path: str | Path) -> Catalogue:
    """A table, by the suffix of its file; of a FITS file the first table.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the suffix is unknown (lists those there are), or it holds no table.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS or (file.suffix == ".gz" and FORMATS[suffix] is not Fits):
        raise ValueError(f"{path}: unknown suffix {file.suffix!r}, expected {', '.join(FORMATS)}")
    try:
        return FORMATS[suffix](file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read as {suffix} ({_line(error)})") from error


class Parquet(Arrow):
    """A Parquet file; memory holds one batch."""

    def __init__(self, path: Path) -> None:
        with pq.ParquetFile(path) as file:
            self.rows = int(file.metadata.num_rows)
            schema = file.schema_arrow
        yaml = (schema.metadata or {}).get(_YAML, b"").decode().splitlines()
        super().__init__(path, schema, _columns(yaml))
        # astropy keeps what is masked in a second column.
        there = [f"{name}.mask" for name in self.columns] if yaml else []
        self._masks = {name.removesuffix(".mask") for name in there if name in self.columns}
        self.columns = {n: c for n, c in self.columns.items() if n not in there}

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Values]]:
        """As `Catalogue.batches`."""
        masks = {name: f"{name}.mask" for name in names if name in self._masks}
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=[*names, *masks.values()]):
                for name, mask in masks.items():
                    values = pc.if_else(batch.column(mask), None, batch.column(name))
                    batch = batch.set_column(batch.schema.names.index(name), name, values)
                yield self.converted(batch.select(list(names)))


class Csv(Arrow):
    """A CSV or ECSV file, with names in the first line; memory holds all of it."""

    def __init__(self, path: Path) -> None:
        self.path, header = path, []
        with path.open(encoding="utf-8") as lines:
            # A name may begin with # in a CSV, where it is no comment.
            for line in lines if path.suffix.lower() == ".ecsv" else []:
                if not line.startswith("#"):
                    break
                header.append(line[1:].strip("\n").removeprefix(" "))
        self._skip = len(header)
        body = [line for line in header if not line.startswith("%ECSV")]
        about = get_header_from_yaml(body) if body else {}
        self._delimiter = str(about.get("delimiter", " ")) if body else ","
        listed = about.get("datatype", [])
        self._types = {str(column["name"]): _arrow(column) for column in listed}
        # The types of its columns are known when all of it is read.
        self._found = self._read(None)
        self.rows = int(self._found.num_rows)
        super().__init__(path, self._found.schema, _columns(body))
        for column in listed:
            if column.get("subtype"):
                self.columns.pop(column["name"], None)
                self.refused[column["name"]] = f"of {column['subtype']} values"

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Values]]:
        """As `Catalogue.batches`."""
        for batch in self._found.select(list(names)).to_batches(BATCH_ROWS):
            yield self.converted(batch)

    def read_key(self, name: str) -> Values:
        """A whole column as text: 00123 stays what it is, and no digit is lost."""
        [batch] = self._read([name], {name: pa.string()}).combine_chunks().to_batches() or [None]
        texts = [] if batch is None else [str(text or "").strip() for text in batch[0].to_pylist()]
        values = np.array(texts, TEXT)
        return Values(values=values, known=values != "")

    def _read(
        self, names: list[str] | None, types: Mapping[str, pa.DataType] | None = None
    ) -> pa.Table:
        convert = pa_csv.ConvertOptions(
            include_columns=names,
            column_types={**self._types, **(types or {})},
            strings_can_be_null=True,
            null_values=["", "nan", "NaN", "NULL", "null"],
        )
        return pa_csv.read_csv(
            self.path,
            read_options=pa_csv.ReadOptions(skip_rows=self._skip),
            parse_options=pa_csv.ParseOptions(delimiter=self._delimiter),
            convert_options=convert,
        )


class Fits(Catalogue):
    """The first table of a FITS file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.columns, self.refused = {}, {}
        with self._open() as hdus:
            table = self._table(hdus)
            self.rows = len(table.data)
            some = table.data[:1]
            for column in table.columns:
                values = some.field(column.name)
                dtype = TEXT if values.dtype.kind in "SU" else values.dtype.newbyteorder("=")
                if values.ndim > 1 or dtype.kind not in "biufT":
                    self.refused[column.name] = f"of FITS format {column.format}"
                else:
                    self.columns[column.name] = Column(dtype=dtype, units=column.unit or "1")

    def batches(self, names: Sequence[str]) -> Iterator[dict[str, Values]]:
        """As `Catalogue.batches`."""
        with self._open() as hdus:
            table = self._table(hdus)
            for first in range(0, self.rows, BATCH_ROWS):
                part = table.data[first : first + BATCH_ROWS]
                yield {name: self._values(part, table.columns[name]) for name in names}

    def _values(self, part: Any, column: Any) -> Values:
        values = np.asarray(part.field(column.name))
        known = np.ones(len(values), bool)
        if column.null is not None:
            known = values != column.null + int(column.bzero or 0)
        dtype = self.columns[column.name].dtype
        if dtype.kind == "T":
            values = np.char.rstrip(values)
        values = values.astype(dtype)
        if not known.all():
            values[~known] = 0
        return Values(values=values, known=known)

    def _open(self) -> Any:
        return fits.open(self.path, memmap=self.path.suffix != ".gz", character_as_bytes=False)

    def _table(self, hdus: Any) -> Any:
        tables = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise ValueError(f"{self.path}: holds no table, only images")
        return tables[0]


FORMATS: dict[str, Callable[[Path], Catalogue]] = {
    ".fits": Fits,
    ".fit": Fits,
    ".parquet": Parquet,
    ".csv": Csv,
    ".ecsv": Csv,
}
"What reads a file of that suffix."


def _columns(yaml: list[str]) -> dict[str, Column]:
    """Units and descriptions of a header that astropy wrote."""
    listed = get_header_from_yaml(yaml)["datatype"] if yaml else []
    return {
        str(column["name"]): Column(
            dtype=TEXT,
            units=str(column.get("unit", "1")),
            description=str(column.get("description", "")),
        )
        for column in listed
    }


def _arrow(column: Mapping[str, Any]) -> pa.DataType:
    kind = str(column["datatype"])
    known = {"bool": pa.bool_(), "float16": pa.float32(), "float128": pa.float64()}
    if kind in known:
        return known[kind]
    return pa.string() if kind == "string" else pa.type_for_alias(kind)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
