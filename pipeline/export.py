"""Export: columns of a survey's Dataset as a table in memory or a file, and its spectra."""

import difflib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from pipeline import plain, spectra_table
from pipeline.accessor import column_names
from storage.writer import COLUMN_ROWS

_DIGEST = re.compile(r"-[0-9a-f]{8}\.")


def catalogue(ds: xr.Dataset, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of a survey as a table in memory; all of them when None.

    Raises
    ------
    ValueError
        When there is no such column.
    """
    return pd.DataFrame(_values(ds, _named(ds, columns)))


def export(
    ds: xr.Dataset,
    out: str | Path,
    columns: Sequence[str] | None = None,
    spectra: bool | None = None,
) -> Path:
    """Write the columns to a file, by its suffix, whole or not at all.

    Parameters
    ----------
    columns : sequence of str, optional
        All when None.
    spectra : bool, optional
        Whether the pixel arrays are written too, to .zarr or .fits; to .zarr only when None.

    Raises
    ------
    ValueError
        When the suffix is unknown (lists those there are) or takes no spectra, or a column is not
        there.
    FileExistsError
        When a .zarr folder is there already.
    """
    target = Path(out)
    if target.suffix not in WRITERS:
        raise ValueError(f"{out}: unknown suffix {target.suffix!r}, expected {', '.join(WRITERS)}")
    if spectra and target.suffix not in WITH_SPECTRA:
        raise ValueError(
            f"{out}: {target.suffix} takes columns only; spectra go to {', '.join(WITH_SPECTRA)}"
        )
    names = _named(ds, columns)
    if target.is_dir():
        raise FileExistsError(f"{out}: is there already; remove it, or give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        WRITERS[target.suffix](
            ds, names, partial, target.suffix == ".zarr" if spectra is None else spectra
        )
        partial.replace(target)
    finally:
        _remove(partial)
    return target


def _named(ds: xr.Dataset, columns: Sequence[str] | None) -> list[str]:
    there = column_names(ds)
    if columns is None:
        # What has a short name is not written a second time under its full one.
        short = {name: _DIGEST.sub(".", name) for name in there}
        return [name for name in there if short[name] == name or short[name] not in there]
    for name in columns:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no column {name!r}{hint}")
    return list(columns)


def _values(ds: xr.Dataset, names: Sequence[str]) -> dict[str, Any]:
    loaded = ds[list(names)].compute()
    found = {name: loaded[name].to_numpy() for name in names}
    # Variable-length strings of NumPy are not known to every table format yet.
    return {n: v.astype(object) if v.dtype.kind == "T" else v for n, v in found.items()}


def _write_parquet(ds: xr.Dataset, names: Sequence[str], path: Path, _: bool) -> None:
    """A row group at a time: memory does not grow with the survey."""
    writer = None
    for first in range(0, max(ds.sizes["spectrum"], 1), COLUMN_ROWS):
        part = pa.table(_values(ds.isel(spectrum=slice(first, first + COLUMN_ROWS)), names))
        if writer is None:
            fields = [
                field.with_type(
                    pa.string() if pa.types.is_null(field.type) else field.type
                ).with_metadata({"units": _unit(ds, field.name)})
                for field in part.schema
            ]
            writer = pq.ParquetWriter(path, pa.schema(fields, metadata=_about(ds)))
        writer.write_table(part.cast(writer.schema))
    assert writer is not None
    writer.close()


def _write_csv(ds: xr.Dataset, names: Sequence[str], path: Path, _: bool) -> None:
    for first in range(0, max(ds.sizes["spectrum"], 1), COLUMN_ROWS):
        part = catalogue(ds.isel(spectrum=slice(first, first + COLUMN_ROWS)), names)
        part.to_csv(path, index=False, header=first == 0, mode="a")


def _write_fits(ds: xr.Dataset, names: Sequence[str], path: Path, spectra: bool) -> None:
    spectra_table.write(ds, names, path, _about(ds), spectra=spectra)


def _write_zarr(ds: xr.Dataset, names: Sequence[str], path: Path, spectra: bool) -> None:
    plain.write(ds, names, path, spectra=spectra)


def _unit(ds: xr.Dataset, name: str) -> str:
    return str(ds[name].attrs.get("units", "1"))


def _about(ds: xr.Dataset) -> dict[str, str]:
    return {key: str(ds.attrs[key]) for key in ("store", "snapshot", "config") if key in ds.attrs}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


WITH_SPECTRA = (".zarr", ".fits")
"Suffixes of files that hold spectra, too."
WRITERS: dict[str, Callable[[xr.Dataset, Sequence[str], Path, bool], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".fits": _write_fits,
    ".zarr": _write_zarr,
}
"What writes a file of that suffix."
