"""Columns of emission lines, and of what they tell: by names that expressions can spell."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from pipeline.columns import short
from pipeline.flags import bits
from pipeline.lines import classes
from pipeline.lines.classes import Line, Lines
from storage.schema import Status

PARTS = {
    "flux": "flux",
    "flux_err": "flux_error",
    "ew": "ew",
    "ew_err": "ew_error",
    "sigma": "sigma",
    "sigma_err": "sigma_error",
    "velocity": "velocity",
    "velocity_err": "velocity_error",
    "limit": "limit",
    "flag": "flag",
}
"Variables of a group, and what stands behind a line's name in a column."
ABSORPTION = ("HdeltaF", "HdeltaA")
"Indices of which the first that was measured tells of Balmer absorption."

Columns = dict[str, xr.DataArray]
Function = Callable[..., Any]
_BPT = ("Halpha", "Hbeta", "OIII5007", "NII6584")
_TEXT = np.dtypes.StringDType()


def line_columns(
    groups: Mapping[str, xr.Dataset], spectra: xr.Dataset, indices: Mapping[str, xr.DataArray]
) -> Columns:
    """<input>.<line>_flux, _ew, ... and <input>.bpt, .oh_o3n2, ..., lazily; NaN where not done.

    groups : of lines, by the names of their inputs.
    spectra : of which the class is looked at.
    indices : columns of indices, as `columns.index_columns` gives them.
    """
    made = {full: _columns(ds, full, spectra, indices) for full, ds in groups.items()}
    return {
        f"{name}.{key}": column
        for name, full in short(groups).items()
        for key, column in made[full].items()
    }


def _columns(
    ds: xr.Dataset, full: str, spectra: xr.Dataset, indices: Mapping[str, xr.DataArray]
) -> Columns:
    """Columns of the lines of an input, by the names behind its own."""
    kind = spectra["class"]
    four = _Four(ds, f", on {full}")
    found = _measured(ds, full) | {
        "bpt": four.words(classes.bpt, "place in the BPT diagram"),
        "agn": four.words(classes.agn, "kind of AGN"),
        "class_sharbaf": _only(
            (kind != "QSO") & (kind != "STAR"),
            four.words(classes.sharbaf, "class by Sharbaf et al. 2023", four.ew),
        ),
        **four.number("oh_o3n2", classes.metallicity, "12 + log(O/H) by O3N2"),
        **four.number("decrement", lambda x: classes.decrement(*x[:2]), "Halpha/Hbeta"),
        **four.number("ebv_balmer", lambda x: classes.reddening(*x[:2]), "E(B-V) of gas", "mag"),
    }
    deep = next((f"{full}.{i}" for i in ABSORPTION if f"{full}.{i}" in indices), None)
    if deep is not None:
        depth = indices[deep] / indices[f"{deep}_error"]
        about = "class by Scourfield et al. 2023"
        words = four.words(classes.scourfield, about, kind == "QSO", depth)
        found["class_scourfield"] = _only(kind != "STAR", words)
    return found


def _only(rows: xr.DataArray, words: xr.DataArray) -> xr.DataArray:
    """A column of words, empty in the other rows."""
    found: xr.DataArray = words.where(rows, np.array("", _TEXT))
    return found


def _measured(ds: xr.Dataset, full: str) -> Columns:
    done, found = ds["status"] == Status.DONE, dict[str, xr.DataArray]()
    for part, suffix in PARTS.items():
        values = ds[part] if part == "flag" else ds[part].where(done)
        values = values.drop_vars("line")
        for number, line in enumerate(ds["line"].to_numpy()):
            about = {**ds[part].attrs, "long_name": f"{line} {suffix.replace('_', ' ')} on {full}"}
            found[f"{line}_{suffix}"] = _said(values.isel(line=number), about)
    for name in ("chi2", "vdisp"):
        about = {**ds[name].attrs, "long_name": f"{ds[name].attrs['long_name']}, on {full}"}
        found[f"lines_{name}"] = _said(ds[name].where(done), about)
    return found


def _said(column: xr.DataArray, about: Mapping[str, Any]) -> xr.DataArray:
    column.attrs = dict(about)
    return column


class _Four:
    """What the four lines of the BPT diagram tell, computed when it is asked for."""

    def __init__(self, ds: xr.Dataset, said: str) -> None:
        names = ds["line"].to_numpy().tolist()
        numbers = [names.index(name) for name in _BPT]
        self._flux, self._error = (
            ds[part].isel(line=numbers).drop_vars("line").astype("f8")
            for part in ("flux", "flux_err")
        )
        self._done, self._about = ds["status"] == Status.DONE, said
        self.ew = ds["ew"].isel(line=numbers[0]).drop_vars("line")
        "Of Halpha."

    def words(self, function: Function, about: str, *more: xr.DataArray) -> xr.DataArray:
        """A column of words; empty where the row is not done."""
        said = {"units": "1", "long_name": about + self._about}
        return _said(self._applied(function, np.array("", _TEXT), more), said)

    def number(self, key: str, function: Function, about: str, unit: str = "1") -> Columns:
        """Columns of a number, its error and its flag; NaN where the row is not done."""
        empty: dict[str, Any] = {"": np.array(np.nan), "_error": np.array(np.nan)}
        empty["_flag"] = np.array(0, "u1")
        found = {}
        for part, (suffix, nothing) in enumerate(empty.items()):
            column = self._applied(lambda x, at=part: function(x)[at], nothing)
            said = {"units": unit, "long_name": f"{about}{suffix.replace('_', ', ')}{self._about}"}
            if suffix == "_flag":
                said |= {"units": "1", **bits(classes.Flag)}
            found[f"{key}{suffix}"] = _said(column, said)
        return found

    def _applied(
        self, function: Function, nothing: Any, more: tuple[xr.DataArray, ...] = ()
    ) -> xr.DataArray:
        """A function of the four lines and of more columns, row by row."""

        def compute(flux: Any, error: Any, done: Any, *others: Any) -> Any:
            four = Lines(*(Line(flux[:, i], error[:, i]) for i in range(len(_BPT))))
            return np.where(done, function(four, *others), nothing)

        found: xr.DataArray = xr.apply_ufunc(
            compute,
            self._flux,
            self._error,
            self._done,
            *more,
            input_core_dims=[["line"], ["line"], *([[]] * (1 + len(more)))],
            dask="parallelized",
            output_dtypes=[nothing.dtype],
        )
        return found
