"""The `.spectra` accessor: select, stack, denoised, observed, on any part of a survey's Dataset.

Rows keep their number in the store (the coordinate `row`), so that a selection still finds its
products, in any order.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.expression import Circle, circle, evaluate
from storage import sky
from storage.store import Survey

LABEL = re.compile(r"-[0-9a-f]{8}$")
"What a product's or a frame's full name has behind its short one."
# A text in quotes, which stays as it is, or the hyphen of a full name before a column.
_HYPHEN = re.compile(r"('[^']*'|\"[^\"]*\")|(?<=\w)-(?=[0-9a-f]{8}\.[A-Za-z_])")


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of a Dataset, each loaded when it is asked for."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds
        # Python's syntax has no hyphens in names: ppca-1a2b3c4d.Mgb is spelled with an underscore.
        self._names = {name.replace("-", "_"): name for name in column_names(ds)}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Values of a column."""
        return np.asarray(self._ds[self._names[name]].to_numpy())

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def column_names(ds: xr.Dataset) -> list[str]:
    """Variables with one value a spectrum."""
    return [str(name) for name, v in ds.variables.items() if v.dims == ("spectrum",)]


@xr.register_dataset_accessor("spectra")  # type: ignore[no-untyped-call]  # xarray's is untyped
class Spectra:
    """What one does with the spectra of a survey; see `pipeline.query.open_survey`."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def select(self, expression: str) -> xr.Dataset:
        """The rows that an expression selects, lazily: only the columns it names are read.

        A cone(ra, dec, radius) that is joined to the rest by and is answered from the sky index:
        of the columns, only the chunks that have rows of the circle are read.

        Parameters
        ----------
        expression : str
            As `pipeline.expression.evaluate` reads it, over the columns and indices:
            ``z < 0.1 and class == 'GALAXY' and best.Dn4000 > 1.6``.

        Raises
        ------
        ValueError
            When it is no such expression, or names a column that is not there.
        """
        plain = _HYPHEN.sub(lambda match: match[1] or "_", expression)
        where = circle(plain)
        if where is None or not self._is_survey():
            chosen = evaluate(plain, Columns(self._ds), self._ds.sizes["spectrum"])
            return self._ds.isel(spectrum=np.flatnonzero(chosen))
        places = self._places(where)
        part = self._ds.isel(spectrum=places)
        chosen = evaluate(plain, Columns(part), len(places), inside=where)
        return self._ds.isel(spectrum=places[chosen])

    def _is_survey(self) -> bool:
        """Whether these are rows of a store, at the positions that it has for them."""
        known = {"store", "snapshot", "config"} <= self._ds.attrs.keys()
        return known and {"row", "ra", "dec"} <= {str(name) for name in self._ds.variables}

    def _places(self, where: Circle) -> NDArray[np.int64]:
        """Where in this Dataset the rows of a circle on the sky are."""
        rows = sky.cone(self._survey(), self._ds.attrs["config"], *where)
        own = self._ds["row"].to_numpy()
        # Of the whole survey the rows are their own places: nothing is looked up.
        if np.array_equal(own, np.arange(len(own))):
            return rows[rows < len(own)]
        return np.flatnonzero(np.isin(own, rows))

    def stack(
        self, by: str | None = None, how: Literal["mean", "median"] = "mean", frame: str = "fs"
    ) -> xr.Dataset:
        """Mean or median of the normalised rest-frame spectra; see `pipeline.stack.stack`."""
        # The frame brings torch, which takes seconds: a catalogue query does without.
        from pipeline.stack import stack

        return stack(self._ds, by, how, frame)

    def denoised(self, name: str) -> xr.Dataset:
        """A product for these rows, lazily, with the columns beside it.

        Parameters
        ----------
        name : str
            ``ppca``, or ``ppca-1a2b3c4d`` where several products have that short name.

        Raises
        ------
        ValueError
            When there is none of that name, or several; lists them.
        """
        survey, found = self._survey(), self._product(name)
        product = survey.dataset(f"denoised/{self._ds.attrs['config']}/{found}", dask=True)
        rows = self._ds["row"].to_numpy()
        if not np.array_equal(rows, np.arange(product.sizes["spectrum"])):
            product = product.isel(spectrum=rows)
        ours = [n for n in column_names(self._ds) if n not in product.variables]
        about = {key: self._ds.attrs[key] for key in ("store", "snapshot", "config")}
        return self._ds[ours].assign(product.variables).assign_attrs(product.attrs, **about)

    def observed(self, name: str) -> xr.Dataset:
        """A product as the telescope would see it: reddened, on the survey's own pixels; lazily."""
        from pipeline.stack import observed

        return observed(self.denoised(name), self._ds)

    def _survey(self) -> Survey:
        return Survey.open(self._ds.attrs["store"], snapshot=self._ds.attrs["snapshot"])

    def _product(self, name: str) -> str:
        there = products(self._survey(), self._ds.attrs["config"])
        if name in there:
            return name
        same = [product for product in there if LABEL.sub("", product) == name]
        if len(same) == 1:
            return same[0]
        listed = ", ".join(there) or "none; `specmill denoise` makes them"
        what = "several products are" if same else "no product is"
        raise ValueError(f"{self._ds.attrs['store']}: {what} called {name!r} (there: {listed})")


def products(survey: Survey, config: str) -> list[str]:
    """Full names of the products of a configuration, the newest first."""
    there = members(survey, f"denoised/{config}/")
    changed = [str(version.metadata.get("group", "")) for version in survey.history()]
    # The newest version that changed a group comes first; of one by another hand nothing is known.
    age = {group: number for number, group in reversed(list(enumerate(changed)))}
    return sorted(there, key=lambda n: (age.get(f"denoised/{config}/{n}", len(changed)), n))


def members(survey: Survey, folder: str) -> list[str]:
    """Names of the groups right below one."""
    return [path.removeprefix(folder) for path in survey.groups() if path.startswith(folder)]
