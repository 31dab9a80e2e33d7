"""Compare: how two runs differ in what they measured, by S/N and class, and where the most."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from storage.schema import Status
from storage.store import Survey

SNR = (0.0, 2.0, 3.0, 5.0, 10.0, 20.0, np.inf)
"Edges of the bins in S/N of the g band, per pixel."
FAR = 3.0
"Differences of so many formal errors are counted apart."
_PLACE = re.compile(r"(?P<store>.+?\.icechunk)/?(@(?P<version>[^:]+))?(:(?P<input>.+))?")


@dataclass(frozen=True, kw_only=True)
class Side:
    """Indices of one input in one version of a store."""

    store: str
    version: str | None
    input: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between A and B, for the rows that both measured."""

    bins: pd.DataFrame
    "One row an index and bin (S/N or class): n, median, scatter, far; differences over errors."
    worst: pd.DataFrame
    "The rows that differ most, the worst first."
    rows: pd.DataFrame
    "One row an index: spectra that both measured, only A, only B."


def side(text: str, other: str = "") -> Side:
    """STORE[@VERSION]:INPUT; INPUT alone is of the other side's store.

    Raises
    ------
    ValueError
        When it is neither.
    """
    found = _PLACE.fullmatch(text)
    if found:
        if not found["input"]:
            raise ValueError(f"{text}: which input of it? say {text}:NAME, such as {text}:raw")
        return Side(store=found["store"], version=found["version"], input=found["input"])
    there = _PLACE.fullmatch(other)
    if not there:
        raise ValueError(f"{text}: expected STORE.icechunk[@VERSION]:INPUT")
    return Side(store=there["store"], version=there["version"], input=text)


def compare(a: Side, b: Side, config: str | None = None, worst: int = 10) -> Comparison:
    """Hold the indices of A against those of B.

    Rows are matched by the survey's name of the observation. Differences A - B are in units of the
    formal error of the raw spectrum on the frame where A's store has it, else of A's own.

    Raises
    ------
    ValueError
        When an input is not there (names those that are), or nothing is in both.
    """
    left, right = _table(a, config), _table(b, config)
    both = left.merge(right, on=["observation", "index"], suffixes=("_a", "_b"), how="outer")
    one, two = both["value_a"].notna(), both["value_b"].notna()
    if not (one & two).any():
        raise ValueError(f"nothing was measured in both {a} and {b}")
    rows = pd.DataFrame(
        {
            "index": both["index"],
            "both": one & two,
            "only A": one & ~two,
            "only B": two & ~one,
        }
    )
    shared = both[one & two].copy()
    shared["difference"] = (shared["value_a"] - shared["value_b"]) / shared["sigma_a"]
    snr = pd.cut(shared["snr_g_a"], SNR, right=False)
    parts = [_bins(shared, snr, "snr_g"), _bins(shared, shared["class_a"], "class")]
    order = shared["difference"].abs().sort_values(ascending=False, kind="stable").index[:worst]
    shown = [
        "observation",
        "class_a",
        "z_a",
        "snr_g_a",
        "index",
        "value_a",
        "value_b",
        "difference",
    ]
    return Comparison(
        bins=pd.concat(parts, ignore_index=True),
        worst=shared.loc[order, shown].reset_index(drop=True),
        rows=rows.groupby("index")[["both", "only A", "only B"]].sum().reset_index(),
    )


def _table(of: Side, config: str | None) -> pd.DataFrame:
    """One row a spectrum and index that was measured."""
    survey = Survey.open(of.store, snapshot=of.version)
    config = config or _config(survey)
    ds, sigma = survey.dataset(_group(survey, config, of.input)), _sigma(survey, config, of.input)
    done = (ds["status"] == Status.DONE).to_numpy()
    spectra, names = survey.dataset(f"spectra/{config}"), _names(ds)
    columns: dict[str, Any] = {
        name: np.repeat(spectra[name].to_numpy()[done], len(names))
        for name in ("observation", "class", "z", "snr_g")
    }
    columns["observation"] = columns["observation"].astype(object)
    columns["class"] = columns["class"].astype(object)
    found = pd.DataFrame(
        {
            **columns,
            "index": np.tile(names, int(done.sum())),
            "value": ds["value"].to_numpy()[done].ravel(),
            "sigma": sigma[done].ravel(),
        }
    )
    found = found[np.isfinite(found["value"])]
    return found.drop_duplicates(["observation", "index"])


def _sigma(survey: Survey, config: str, given: str) -> np.ndarray:
    """Errors (N, index) that differences are held against."""
    own = survey.dataset(_group(survey, config, given))
    names = _names(own)
    prefix = f"indices/{config}/raw@"
    groups = [group for group in survey.groups() if group.startswith(prefix)]
    # That of the same frame first.
    for group in sorted(groups, key=lambda group: group != prefix + _frame(survey, config, given)):
        raw = survey.dataset(group)
        if _names(raw) == names:
            return raw["error"].to_numpy()
    return own["error"].to_numpy()


def _frame(survey: Survey, config: str, given: str) -> str:
    return str(survey.dataset(_group(survey, config, given)).attrs.get("frame", ""))


def _names(ds: xr.Dataset) -> list[str]:
    return [str(name) for name in ds["index"].to_numpy()]


def _config(survey: Survey) -> str:
    there = sorted({g.split("/")[1] for g in survey.groups() if g.startswith("indices/")})
    if len(there) != 1:
        raise ValueError(
            f"{survey.path}: {', '.join(there) or 'nothing'} measured; name one with --config"
        )
    return there[0]


def _group(survey: Survey, config: str, given: str) -> str:
    """The index group of an input: by its name, its alias, or the beginning of its name."""
    head = f"indices/{config}/"
    there = [group for group in survey.groups() if group.startswith(head)]
    for fits in (
        [group for group in there if group == head + given],
        [group for group in there if survey.attrs(group).get("alias") == given],
        [group for group in there if group.startswith(head + given)],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            names = ", ".join(group.removeprefix(head) for group in fits)
            raise ValueError(f"{survey.path}: {given!r} may be {names}; give the whole name")
    names = ", ".join(group.removeprefix(head) for group in there)
    raise ValueError(f"{survey.path}: no input {given!r} in {config} (there: {names or 'none'})")


def _bins(shared: pd.DataFrame, key: pd.Series, by: str) -> pd.DataFrame:
    found = shared["difference"].groupby([shared["index"], key.rename("bin")], observed=True)
    table = found.agg(
        n="count",
        median="median",
        scatter=lambda d: (d.quantile(0.84) - d.quantile(0.16)) / 2,
        far=lambda d: float((d.abs() > FAR).mean()),
    ).reset_index()
    table["bin"] = table["bin"].astype(str)
    table.insert(1, "by", by)
    return table
