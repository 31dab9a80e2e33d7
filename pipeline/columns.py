"""Columns: indices, ledgers and truth of the groups of a survey, by the names one asks for them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.accessor import LABEL, members
from storage import schema
from storage.schema import Reason, Status
from storage.store import Survey

BEST = "best"
"""Input name of the default value: the denoised one where a product whose verdict is passed is
done, not above its S/N ceiling and no misfit of its input, else the raw one on the same frame."""
_SAYS = "denoised where proven, below its S/N ceiling and no misfit, else raw"
DOUBTS = ("above_ceiling", "misfit")
"Flags of a product that make the raw value the default."
PARTS = {
    "value": "",
    "error": "_error",
    "deshrunk": "_deshrunk",
    "deshrunk_error": "_deshrunk_error",
    "difference": "_difference",
}
"Variables of an index group, and what stands behind an index's name in a column."


def done_only(ds: xr.Dataset) -> xr.Dataset:
    """Indices with NaN where the row is not done."""
    done = ds["status"] == Status.DONE
    there = [name for name in PARTS if name in ds]
    return ds.assign({n: ds[n].where(done).assign_attrs(ds[n].attrs) for n in there})


def short(names: Mapping[str, Any]) -> dict[str, str]:
    """Every full name, and the short one where it means one thing only: {name: full name}."""
    short = {full: LABEL.sub("", full) for full in names}
    count = Counter(short.values())
    alias = {s: full for full, s in short.items() if count[s] == 1}
    return alias | {full: full for full in names}


def index_columns(indices: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    """<input>.<index> and <input>.<index>_error, by full and by unambiguous short names.

    Of a product `_deshrunk`, with its error, and `_difference` from the raw one, too.
    """
    found = {}
    for name, full in short(indices).items():
        for index in _names(indices[full]):
            for part, suffix in PARTS.items():
                if part in indices[full]:
                    found[f"{name}.{index}{suffix}"] = _column(indices[full], index, part, full)
    return found


def _names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name in ds["index"].to_numpy()]


def _column(ds: xr.Dataset, index: str, part: str, said: str) -> xr.DataArray:
    column = ds[part].isel(index=_names(ds).index(index)).drop_vars("index", errors="ignore")
    words = {
        "value": "",
        "error": "error of ",
        "deshrunk": "de-shrunk ",
        "deshrunk_error": "error of de-shrunk ",
        "difference": "difference from the raw ",
    }
    unit = ds.attrs.get("units", {}).get(index, "1")
    about = f"{words[part]}{index} on {said}"
    column.attrs = {"units": unit, "long_name": about, "index_name": index}
    return column


def ledgers(products: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    """<product>.status and <product>.flag."""
    return {
        f"{name}.{part}": products[full][part]
        for name, full in short(products).items()
        for part in ("status", "flag")
    }


def truth(survey: Survey, config: str) -> dict[str, xr.DataArray]:
    """Parameters of a mock survey."""
    if f"truth/{config}" not in survey:
        return {}
    truth = survey.dataset(f"truth/{config}", dask=True)
    names = [n for n, v in truth.data_vars.items() if v.dims == ("spectrum",)]
    return {f"truth.{name}": truth[name] for name in names if name not in schema.LEDGER}


def catalogues(survey: Survey, config: str) -> dict[str, xr.DataArray]:
    """<prefix>.<column> of the catalogues that were joined, and <prefix>.matched."""
    found = {}
    for prefix in members(survey, f"catalog/{config}/"):
        ds = survey.dataset(f"catalog/{config}/{prefix}", dask=True)
        matched = ds["status"] == Status.DONE
        matched.attrs = {"units": "1", "long_name": f"whether {prefix} has the spectrum"}
        found[f"{prefix}.matched"] = matched
        marks = {str(v.attrs["known_of"]): v > 0 for v in ds.values() if "known_of" in v.attrs}
        for name in map(str, ds.data_vars):
            if name not in schema.LEDGER and "known_of" not in ds[name].attrs:
                known = matched & marks[name] if name in marks else matched
                found[f"{prefix}.{name}"] = _where_known(ds[name], known)
    return found


def _where_known(column: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    """A column with NaN where there is no value, so that no comparison holds there.

    Ids of more digits than a float keeps stay integers: 0 where there is none. Texts are empty.
    """
    if column.name == "catalogue_row":
        return column.where(known, -1).assign_attrs(column.attrs)
    whole = column.dtype.kind in "iu" and not column.attrs.get("exact_in_float", True)
    if whole or column.dtype.kind not in "iuf":
        return column
    return column.where(known).assign_attrs(column.attrs)


def best(
    indices: Mapping[str, xr.Dataset], products: Mapping[str, xr.Dataset]
) -> dict[str, xr.DataArray]:
    """The default value of every index, its error, and where they came from, as `BEST` says."""
    inputs, chosen = _choice(indices, products)
    if not inputs:
        return {}
    common = [i for i in _names(indices[inputs[0]]) if all(i in _names(indices[n]) for n in inputs)]
    found: dict[str, xr.DataArray] = {}
    for index in common:
        for part, suffix in (("value", ""), ("error", "_error")):
            value, *others = [_column(indices[name], index, part, name) for name in inputs]
            attrs = {**value.attrs, "long_name": f"{index}{suffix}, {_SAYS}"}
            for number, column in enumerate(others, start=1):
                value = value.where(chosen != number, column)
            found[f"{BEST}.{index}{suffix}"] = value.assign_attrs(attrs)
    chosen.attrs = {
        "units": "1",
        "long_name": "input of the default value",
        "flag_values": list(range(len(inputs))),
        "flag_meanings": " ".join(inputs),
    }
    return {**found, f"{BEST}.input": chosen}


def _choice(
    indices: Mapping[str, xr.Dataset], products: Mapping[str, xr.Dataset]
) -> tuple[list[str], xr.DataArray]:
    """Inputs of the default value, and for every row which of them it is."""
    raw = [name for name in indices if name.startswith("raw")]
    proven = [n for n, p in products.items() if n in indices and p.attrs["verdict"] == "passed"]
    partner = {name: f"raw@{products[name].attrs['frame']}" for name in proven}
    proven = [name for name in proven if partner[name] in indices]
    if not raw:
        return [], xr.DataArray()
    base = partner[proven[0]] if proven else max(raw, key=lambda name: "@" in name)
    inputs = list(dict.fromkeys([base, *(partner[name] for name in proven), *proven]))
    chosen = xr.zeros_like(indices[base]["status"])
    # Where two products have a row the first counts, so it is put in last.
    for name in reversed(proven):
        product = products[name]
        done = (product["status"] == Status.DONE) & (indices[name]["status"] == Status.DONE)
        doubt = doubtful(product)
        outside = product["reason_code"] == Reason.OUTSIDE_FOOTPRINT
        chosen = chosen.where(~outside, np.uint8(inputs.index(partner[name])))
        chosen = chosen.where(~(done & doubt), np.uint8(inputs.index(partner[name])))
        chosen = chosen.where(~(done & ~doubt), np.uint8(inputs.index(name)))
    return inputs, chosen


def doubtful(product: xr.Dataset) -> xr.DataArray:
    """Rows (N,) bool whose flag, by its CF attributes, bears one of `DOUBTS`."""
    flag = product["flag"]
    bits = sum(mask for meaning, mask in _bits(flag).items() if meaning in DOUBTS)
    found: xr.DataArray = (flag & np.uint8(bits)) > 0
    return found


def flagged(flag: xr.DataArray) -> list[str]:
    """The flags of each row in words; empty where none is set."""
    meanings = _bits(flag)
    return [
        ", ".join(meaning.replace("_", " ") for meaning, mask in meanings.items() if value & mask)
        for value in flag.to_numpy().tolist()
    ]


def _bits(flag: xr.DataArray) -> dict[str, int]:
    masks = [int(mask) for mask in np.atleast_1d(flag.attrs["flag_masks"])]
    return dict(zip(flag.attrs["flag_meanings"].split(), masks, strict=True))
