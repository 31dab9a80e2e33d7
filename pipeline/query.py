"""Query: a survey as one lazy Dataset: spectra, columns, and indices as ``<input>.<index>``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.accessor import LABEL, members
from pipeline.accessor import products as newest_first
from pipeline.columns import BEST, best, catalogues, done_only, index_columns, ledgers, truth
from pipeline.export import catalogue, export
from pipeline.line_columns import line_columns
from pipeline.star_columns import star_columns
from storage import schema
from storage.store import Survey
from storage.writer import COLUMN_ROWS

__all__ = ["catalogue", "choose_config", "default_columns", "export", "open_survey", "query"]


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
        ``<product>.status`` and ``.flag``; ``truth.<parameter>`` for mocks;
        ``<prefix>.<column>`` of joined catalogues, empty where nothing matches. Where lines were
        measured, ``<input>.Halpha_flux`` and the like, and ``<input>.bpt``; see docs/lines.md.
        Where stars were, ``<input>.star_vrad`` and the like; see docs/stars.md.
        ``best.Dn4000`` is the default value, as `BEST` says, and ``best.input`` where it came from.

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
    config = choose_config(survey, config)
    spectra = survey.dataset(f"spectra/{config}", dask=True)
    rows = survey.rows(f"spectra/{config}")
    _check_rows(survey, config, rows)
    indices = {
        name: done_only(survey.dataset(f"indices/{config}/{name}", dask=True))
        for name in members(survey, f"indices/{config}/")
    }
    products = {
        name: survey.dataset(f"denoised/{config}/{name}", dask=True)
        for name in newest_first(survey, config)
    }
    lines, stars = (
        {
            name: survey.dataset(f"{kind}/{config}/{name}", dask=True)
            for name in members(survey, f"{kind}/{config}/")
        }
        for kind in ("lines", "stars")
    )
    measured = index_columns(indices)
    first = [name for name in schema.SPECTRA if name in spectra]
    found = spectra[[*first, *(str(n) for n in spectra.data_vars if n not in first)]]
    number = da.arange(rows, chunks=COLUMN_ROWS)
    return (
        found.assign_coords(row=("spectrum", number, {"units": "1", "long_name": "row of store"}))
        .assign(truth(survey, config))
        .assign(catalogues(survey, config))
        .assign(ledgers(products))
        .assign(measured)
        .assign(line_columns(lines, spectra, measured))
        .assign(star_columns(stars))
        .assign(best(indices, products))
        .assign_attrs(store=str(path), snapshot=survey.snapshot, config=config)
    )


def default_columns(ds: xr.Dataset) -> list[str]:
    """What a person wants to see of a spectrum first."""
    own = [str(n) for n in ds.data_vars if str(n).startswith(f"{BEST}.")]
    return ["observation", "class", "z", "snr_g", *own]


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
    # Where nobody looks (a pipe, a log), rich would take 80 columns and cut the rest.
    console = console or Console(width=None if sys.stdout.isatty() else 160)
    chosen = open_survey(store, config).spectra.select(expression)
    count = int(chosen.sizes["spectrum"])
    if out is not None:
        export(chosen, out, columns)
        console.print(f"{count} spectra -> {out}", highlight=False)
        return count
    wanted = list(columns or default_columns(chosen))
    console.print(_table(chosen.isel(spectrum=slice(limit)), wanted))
    rest = f", the first {limit} shown; --out FILE writes all" if count > limit else ""
    console.print(f"{count} spectra{rest}", highlight=False)
    return count


def choose_config(survey: Survey, config: str | None) -> str:
    """The configuration that is meant; it may be left out where there is one.

    Raises
    ------
    ValueError
        When it is not there, or must be said; lists them.
    """
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


def _table(ds: xr.Dataset, names: Sequence[str]) -> Table:
    """Rows for people: an error beside its value, a code in words, units in the heading."""
    errors = {name: f"{name}_error" for name in names if f"{name}_error" in names}
    shown = [name for name in names if name not in errors.values()]
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in shown:
        unit = ds[name].attrs.get("units", "1").replace("Angstrom", "Å")
        table.add_column(name if unit == "1" else f"{name}\n({unit})", no_wrap=True)
    meaning = {name: _meanings(ds[name]) for name in shown}
    for row in catalogue(ds, names).to_dict("records"):
        found = [meaning[n].get(row[n]) or _cell(row[n], row.get(errors.get(n))) for n in shown]
        table.add_row(*(escape(cell) for cell in found))
    return table


def _meanings(column: xr.DataArray) -> dict[Any, str]:
    """The words of a code, by its CF attributes; products and frames by their short names."""
    if "flag_values" not in column.attrs:
        return {}
    values = np.atleast_1d(column.attrs["flag_values"]).tolist()
    words = [LABEL.sub("", word) for word in column.attrs["flag_meanings"].split()]
    return dict(zip(values, words, strict=True))


def _cell(value: Any, error: float | None = None) -> str:
    """A value, and its error to two digits where there is one."""
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "-"
    if error is None or not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f}±{error:.{digits}f}"
