"""Columns of stars: by names that expressions can spell."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from pipeline.columns import short
from storage.schema import Status

NUMBERS = {
    "vrad": "velocity",
    "teff": "teff",
    "logg": "logg",
    "feh": "feh",
    "alpha_m": "alpha_m",
}
"What stands behind `star_` in a column, and the variable of the group; each has an error."
_COUNTS = ("pixels", "iterations", "flag")
_RAW = "raw"

Columns = dict[str, xr.DataArray]


def star_columns(groups: Mapping[str, xr.Dataset]) -> Columns:
    """<input>.star_vrad, .star_teff, ... with their errors, lazily; NaN where not done.

    Of a product also `_difference`, from the fit that starts from the observed spectrum, where
    both are done.

    groups : of stars, by the names of their inputs.
    """
    made = {full: _measured(ds, full) for full, ds in groups.items()}
    if _RAW in made:
        for full in made.keys() - {_RAW}:
            made[full] |= _differences(made[full], made[_RAW], full)
    return {
        f"{name}.star_{key}": column
        for name, full in short(groups).items()
        for key, column in made[full].items()
    }


def _measured(ds: xr.Dataset, full: str) -> Columns:
    done = ds["status"] == Status.DONE
    names = NUMBERS | {f"{key}_error": f"{name}_err" for key, name in NUMBERS.items()}
    found = {key: ds[name].where(done) for key, name in {**names, "chi2": "chi2"}.items()}
    found |= {name: ds[name] for name in _COUNTS}
    return {key: column.assign_attrs(_about(column, full)) for key, column in found.items()}


def _differences(own: Columns, raw: Columns, full: str) -> Columns:
    found = {}
    for key in NUMBERS:
        column = own[key] - raw[key]
        said = {"long_name": f"{key} from {full} minus that from {_RAW}"}
        found[f"{key}_difference"] = column.assign_attrs(units=own[key].attrs["units"], **said)
    return found


def _about(column: xr.DataArray, full: str) -> dict[str, Any]:
    return {**column.attrs, "long_name": f"{column.attrs['long_name']}, on {full}"}
