"""Query: a survey as one lazy Dataset: spectra, columns, and indices as ``<input>.<index>``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from pipeline.accessor import LABEL, Columns, members
from pipeline.export import catalogue, export
from storage import schema
from storage.schema import Status
from storage.store import Survey
from storage.writer import COLUMN_ROWS

__all__ = ["Columns", "catalogue", "default_columns", "export", "open_survey", "query"]

BEST = "best"
"""Input name of the default value: the denoised one where a product whose verdict is passed is
done and not above its S/N ceiling, else the raw one on the same frame."""
_SAYS = "denoised where proven and below its S/N ceiling, else raw"


def open_survey(
    path: str | Path, config: str | None = None, snapshot: str | None = None
) -> xr.Dataset:
    """A survey, lazily: nothing but names and shapes is read.

    Parameters
    ----------
    path : str
        The store, a folder that ends in .icechunk.
    config : str, optional
        Instrument configuration; may be left out where there is one.
    snapshot : str, optional
        A version or tag; the newest when None.

    Returns
    -------
    Dataset
        Variables of `storage.schema.SPECTRA`; `row`, the number in the store; and for every input
        ``<input>.<index>`` and ``<input>.<index>_error``, NaN where not done: ``raw.Dn4000``,
        ``raw@fs.Dn4000``, ``ppca.Dn4000``, and with full names (``ppca-1a2b3c4d.Dn4000``).
        ``<product>.status`` and ``.flag``; ``truth.<parameter>`` for mocks. ``best.Dn4000`` is the
        default value, as `BEST` says, and ``best.input`` where it came from.

    Raises
    ------
    FileNotFoundError
        When there is no store.
    ValueError
        When the configuration is not there or must be said; lists them. When a group has other
        rows than the spectra.

    Examples
    --------
    >>> ds = open_survey("runs/demo/survey.icechunk")  # doctest: +SKIP
    >>> ds.spectra.select("z < 0.1 and snr_g > 5").spectra.stack(by="class")  # doctest: +SKIP
    """
    survey = Survey.open(str(path), snapshot=snapshot)
    config = _config(survey, config)
    spectra = survey.dataset(f"spectra/{config}", dask=True)
    rows = survey.rows(f"spectra/{config}")
    _check_rows(survey, config, rows)
    indices = {
        name: _done_only(survey.dataset(f"indices/{config}/{name}", dask=True))
        for name in members(survey, f"indices/{config}/")
    }
    products = {
        name: survey.dataset(f"denoised/{config}/{name}", dask=True)
        for name in members(survey, f"denoised/{config}/")
    }
    first = [name for name in schema.SPECTRA if name in spectra]
    found = spectra[[*first, *(str(n) for n in spectra.data_vars if n not in first)]]
    number = da.arange(rows, chunks=COLUMN_ROWS)
    return (
        found.assign_coords(row=("spectrum", number, {"units": "1", "long_name": "row of store"}))
        .assign(_truth(survey, config))
        .assign(_ledgers(products))
        .assign(_index_columns(indices))
        .assign(_best(indices, products))
        .assign_attrs(store=str(path), snapshot=survey.snapshot, config=config)
    )


def default_columns(ds: xr.Dataset) -> list[str]:
    """What a person wants to see of a spectrum first."""
    names = ["observation", "class", "z", "snr_g"]
    return names + [str(n) for n in ds.data_vars if str(n).startswith(f"{BEST}.")]


def query(
    store: str,
    expression: str,
    out: str | None = None,
    columns: Sequence[str] | None = None,
    config: str | None = None,
    limit: int = 20,
    console: Console | None = None,
) -> int:
    """Select from a store; print the first rows, or write all of them to a file.

    Parameters
    ----------
    columns : sequence of str, optional
        Columns and indices; `default_columns` on the terminal and all columns in a file, when None.
    limit : int
        Rows printed, at most.

    Returns
    -------
    int
        How many rows the expression selects.
    """
    console = console or Console()
    chosen = open_survey(store, config).spectra.select(expression)
    count = int(chosen.sizes["spectrum"])
    if out is not None:
        export(chosen, out, columns)
        console.print(f"{count} spectra -> {out}", highlight=False)
        return count
    wanted = list(columns or default_columns(chosen))
    frame = catalogue(chosen.isel(spectrum=slice(limit)), wanted)
    table = Table(*(_heading(chosen, name) for name in wanted))
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    rest = f", the first {limit} shown; --out FILE writes all" if count > limit else ""
    console.print(f"{count} spectra{rest}", highlight=False)
    return count


def _config(survey: Survey, config: str | None) -> str:
    there = members(survey, "spectra/")
    if config in there or (config is None and len(there) == 1):
        return config or there[0]
    said = "has several configurations, name one" if config is None else f"has no {config!r}"
    if not there:
        said = "holds no spectra yet, `specmill ingest` brings them"
    raise ValueError(f"{survey.path}: {said} (there: {', '.join(there) or 'none'})")


def _check_rows(survey: Survey, config: str, rows: int) -> None:
    for group in survey.groups():
        if group.split("/")[1:2] == [config] and survey.rows(group) != rows:
            raise ValueError(
                f"{survey.path}/{group}: {survey.rows(group)} rows, the spectra have {rows}; "
                "run its stage again"
            )


def _done_only(ds: xr.Dataset) -> xr.Dataset:
    """Indices with NaN where the row is not done."""
    done = ds["status"] == Status.DONE
    values = {n: ds[n].where(done).assign_attrs(ds[n].attrs) for n in ("value", "error")}
    return ds.assign(values)


def _short(names: Mapping[str, Any]) -> dict[str, str]:
    """Every full name, and the short one where it means one thing only: {name: full name}."""
    short = {full: LABEL.sub("", full) for full in names}
    count = Counter(short.values())
    alias = {s: full for full, s in short.items() if count[s] == 1}
    return alias | {full: full for full in names}


def _index_columns(indices: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    found = {}
    for name, full in _short(indices).items():
        for index in _names(indices[full]):
            for part, suffix in (("value", ""), ("error", "_error")):
                found[f"{name}.{index}{suffix}"] = _column(indices[full], index, part, full)
    return found


def _names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name in ds["index"].to_numpy()]


def _column(ds: xr.Dataset, index: str, part: str, said: str) -> xr.DataArray:
    column = ds[part].isel(index=_names(ds).index(index)).drop_vars("index", errors="ignore")
    error = "error of " if part == "error" else ""
    unit = ds.attrs.get("units", {}).get(index, "1")
    column.attrs = {"units": unit, "long_name": f"{error}{index} on {said}"}
    return column


def _ledgers(products: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    return {
        f"{name}.{part}": products[full][part]
        for name, full in _short(products).items()
        for part in ("status", "flag")
    }


def _truth(survey: Survey, config: str) -> dict[str, xr.DataArray]:
    """Parameters of a mock survey."""
    if f"truth/{config}" not in survey:
        return {}
    truth = survey.dataset(f"truth/{config}", dask=True)
    names = [n for n, v in truth.data_vars.items() if v.dims == ("spectrum",)]
    return {f"truth.{name}": truth[name] for name in names if name not in schema.LEDGER}


def _best(
    indices: Mapping[str, xr.Dataset], products: Mapping[str, xr.Dataset]
) -> dict[str, xr.DataArray]:
    """The default value of every index, its error, and where they came from, as `BEST` says."""
    raw = [name for name in indices if name.startswith("raw")]
    proven = [n for n, p in products.items() if n in indices and p.attrs["verdict"] == "passed"]
    partners = {n: f"raw@{products[n].attrs['frame']}" for n in proven}
    proven = [n for n in proven if partners[n] in indices]
    if not raw:
        return {}
    base = partners[proven[0]] if proven else max(raw, key=lambda name: "@" in name)
    inputs = list(dict.fromkeys([base, *partners.values(), *proven]))
    chosen = xr.full_like(indices[base]["status"], 0)
    # Where two products have a row the first counts, so it is put in last.
    for name in reversed(proven):
        product = products[name]
        done = (product["status"] == Status.DONE) & (indices[name]["status"] == Status.DONE)
        above = (product["flag"] & _bit(product, "above_ceiling")) > 0
        chosen = chosen.where(~(done & above), np.uint8(inputs.index(partners[name])))
        chosen = chosen.where(~(done & ~above), np.uint8(inputs.index(name)))
    chosen.attrs = {
        "units": "1",
        "long_name": "input of the default value",
        "flag_values": list(range(len(inputs))),
        "flag_meanings": " ".join(inputs),
    }
    common = [i for i in _names(indices[base]) if all(i in _names(indices[n]) for n in inputs)]
    found: dict[str, xr.DataArray] = {}
    for index in common:
        for part, suffix in (("value", ""), ("error", "_error")):
            columns = [_column(indices[name], index, part, name) for name in inputs]
            value = columns[0]
            for number, column in enumerate(columns[1:], start=1):
                value = value.where(chosen != number, column)
            value.attrs = {**columns[0].attrs, "long_name": f"{index}, {_SAYS}"}
            found[f"{BEST}.{index}{suffix}"] = value
    return {**found, f"{BEST}.input": chosen}


def _bit(product: xr.Dataset, meaning: str) -> int:
    """A bit of the flag, as its CF attributes give it."""
    attrs = product["flag"].attrs
    masks = [int(mask) for mask in np.atleast_1d(attrs["flag_masks"])]
    bits: dict[str, int] = dict(zip(attrs["flag_meanings"].split(), masks, strict=True))
    return bits[meaning]


def _heading(ds: xr.Dataset, name: str) -> str:
    unit = ds[name].attrs.get("units", "1")
    return name if unit == "1" else f"{name} [{unit}]".replace("[", "\\[")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.4g}"
    return str(value)
