"""Plain Zarr: a survey as one folder that xarray opens without specmill; and the way back in."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr

from deploy.job import cores
from storage import schema, sky
from storage.grid import Grid
from storage.provenance import provenance
from storage.schema import SchemaError
from storage.store import Survey
from storage.writer import CHUNK_ROWS, COLUMN_ROWS, WORKER_DIMS, writing

logger = logging.getLogger(__name__)

SHARD_ROWS = 8 * CHUNK_ROWS
"Rows of one file of a (spectrum, pixel) array; what is read of it is a chunk."
STEP_ROWS = 2 * CHUNK_ROWS
"Rows of pixel arrays that are held when they come back in."
_WRITERS = 4
"Shards under way at a time, at most: what bounds the memory."
_OWN = ("rows", "chunk_rows", "steps")
"Attributes of a group that tell of its inside."


def write(ds: xr.Dataset, names: Sequence[str], path: str | Path, *, spectra: bool = True) -> None:
    """Write columns, and the spectra where wanted, as sharded Zarr v3 with consolidated metadata.

    Parameters
    ----------
    names : sequence of str
        Variables with one value a spectrum.
    """
    pixels = [str(n) for n, v in ds.data_vars.items() if v.dims != ("spectrum",)] if spectra else []
    # A selection has ragged chunks, and its encoding is that of the store.
    kept = ds[[*pixels, *names]].drop_attrs(deep=False).assign_attrs(_about(ds))
    parts = {n: v.chunk(spectrum=_step(v)) for n, v in kept.variables.items() if _by_rows(v)}
    kept = kept.assign(parts)
    for variable in kept.variables.values():
        variable.encoding.clear()
    encoding = {str(n): _encoding(v) for n, v in kept.variables.items() if _by_rows(v)}
    with warnings.catch_warnings(), dask.config.set(num_workers=min(_WRITERS, cores())):
        # It is no part of the standard yet, and every reader that does not know it does without.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        kept.to_zarr(path, mode="w", zarr_format=3, consolidated=True, encoding=encoding)


def _about(ds: xr.Dataset) -> dict[str, Any]:
    kept = {str(key): value for key, value in ds.attrs.items() if key not in _OWN}
    return {**kept, "specmill_schema": schema.SCHEMA_VERSION, "exported_by": provenance()}


def _by_rows(variable: xr.Variable) -> bool:
    return "spectrum" in variable.dims


def _step(variable: xr.Variable) -> int:
    return SHARD_ROWS if variable.ndim > 1 else COLUMN_ROWS


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """Chunks and shards; no fill value of xarray's, which would be masked when read."""
    if variable.ndim == 1:
        return {"chunks": (COLUMN_ROWS,)}
    rest = tuple(max(1, n) for dim, n in variable.sizes.items() if dim != "spectrum")
    return {"chunks": (CHUNK_ROWS, *rest), "shards": (SHARD_ROWS, *rest)}


def import_zarr(source: str | Path, store: str, config: str | None = None) -> str:
    """Read a plain Zarr folder into a new group of a store, whole or not at all; gives the group.

    Every variable of `storage.schema.SPECTRA` must be there; others with rows are taken too, but
    for those with a dot in their name, which belong to other groups. Objects and sides stay as
    they are. Memory: the pixel arrays of 1,024 rows and the columns of 65,536.

    Parameters
    ----------
    source : str
        As `write` made it, or anybody: its wavelengths in vacuum A, flux in the house unit.
    store : str
        A store that is there, or is made.
    config : str, optional
        Instrument configuration; what the source says of itself when None.

    Raises
    ------
    FileNotFoundError
        When there is no Zarr at the source.
    SchemaError
        When variables are missing or not of the schema; names them.
    ValueError
        When the store has the group already, or the configuration must be said.
    LeaseError
        When another process writes to the store.
    """
    ds = _open(source)
    _require_variables(ds, str(source))
    name = config or ds.attrs.get("config")
    if not name:
        raise ValueError(f"{source}: does not say its configuration; name one")
    group = f"spectra/{name}"
    attrs = _attrs(ds, source)
    _require_free(store, group)
    Survey.create(store)
    with writing(store, f"import {source}") as writer:
        # Of another process, between the look above and the lease.
        _require_free(store, group)
        writer.create_group(group, ds, attrs)
        for first in range(0, ds.sizes["spectrum"], COLUMN_ROWS):
            part = ds.isel(spectrum=slice(first, first + COLUMN_ROWS))
            long = part[[n for n, v in part.data_vars.items() if not WORKER_DIMS & set(v.dims)]]
            columns = long.load()
            writer.write_columns(group, first, _values(columns))
            for begin in range(0, part.sizes["spectrum"], STEP_ROWS):
                rows = slice(begin, begin + STEP_ROWS)
                pixels = part.drop_vars(list(columns.data_vars)).isel(spectrum=rows).load()
                whole = xr.merge([pixels, columns.isel(spectrum=rows)], compat="override")
                where = f"{source} rows {first + begin}:{first + begin + len(whole['flux'])}"
                schema.check(whole, where)
                writer.write_columns(group, first + begin, _values(pixels))
                writer.lease.renew()
            logger.info("%s: %d of %d rows", group, first + len(part["status"]), len(ds["status"]))
        sky.write(writer, name)
        writer.commit(f"{group}: imported from {source}", {"group": group})
    return group


def _values(ds: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(name): variable.to_numpy() for name, variable in ds.data_vars.items()}


def _open(source: str | Path) -> xr.Dataset:
    """What is imported of a source, lazily, its values as they are on the disk."""
    try:
        ds = xr.open_zarr(source, chunks=None, decode_cf=False, consolidated=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: no Zarr folder here") from error
    strange = [
        str(name)
        for name, variable in ds.variables.items()
        if "." in str(name) or name == "row" or not {"spectrum", "wavelength"} & set(variable.dims)
    ]
    found: xr.Dataset = ds.drop_vars(strange)
    for variable in found.variables.values():
        # Notes that xarray writes to itself.
        for note in ("coordinates", "_FillValue"):
            variable.attrs.pop(note, None)
    return found


def _require_variables(ds: xr.Dataset, source: str) -> None:
    missing = [name for name in (*schema.SPECTRA, "wavelength") if name not in ds.variables]
    if missing:
        raise SchemaError(
            f"{source}: no variable {', '.join(map(repr, missing))}; storage.schema.SPECTRA says "
            "what each holds, schema.blank() makes empty ones"
        )
    schema.check(ds.isel(spectrum=slice(0, 0)), source)


def _require_free(store: str, group: str) -> None:
    try:
        survey = Survey.open(store)
    except FileNotFoundError:
        return
    if group in survey:
        raise ValueError(
            f"{store}: has {group} already; import into another store, or name another config"
        )


def _attrs(ds: xr.Dataset, source: str | Path) -> Mapping[str, Any]:
    """Attributes of the group: those of the source, and that it was imported."""
    grid = ds.attrs.get("grid") or Grid.infer(ds["wavelength"].to_numpy()).model_dump()
    kept = {str(key): value for key, value in ds.attrs.items() if key not in _OWN}
    return {
        **provenance(),
        "card_digest": "",
        "complete": True,
        **kept,
        "grid": grid,
        "imported_from": str(source),
        "imported_by": provenance(),
    }
