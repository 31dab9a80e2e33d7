"""What needs the frame of a model: stacks of rest-frame spectra, and products put back.

Axes: N spectra, L observed pixels, P frame pixels, G groups of a stack.
"""

from collections.abc import Iterator
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import schema
from storage.grid import Grid
from storage.schema import Status
from training.frame import Frame, Mapper
from training.frames import named

Float = NDArray[np.float32]

STEP_ROWS = 2048
"Spectra in memory at a time."
MEDIAN_BYTES = 2 << 30
"What a median may hold: it needs all values of a pixel at once."
MOST_GROUPS = 64


def stack(ds: xr.Dataset, by: str | None, how: Literal["mean", "median"], frame: str) -> xr.Dataset:
    """Mean or median spectrum, each spectrum counting once.

    Parameters
    ----------
    ds : Dataset
        Of `open_survey`, or a product of `.spectra.denoised`, which stays on its own frame.
    by : str, optional
        A column: one stack for each of its values.
    how : {"mean", "median"}
        Of the good pixels of each wavelength.
    frame : str
        Rest wavelengths and normalisation, by name.

    Returns
    -------
    Dataset
        flux (by, wavelength), mean of the frame's window 1; NaN where nothing was good. count
        (by, wavelength) and spectra (by): how many good pixels and spectra. Rows that are not
        done, or cannot be normalised, do not count.

    Raises
    ------
    ValueError
        When `how` is unknown, there is no such column, or it has more than 64 values.
    MemoryError
        When a median would hold more than 2 GiB; shows the arithmetic.
    """
    if how not in ("mean", "median"):
        raise ValueError(f"stack: how is {how!r}, expected 'mean' or 'median'")
    ours = _frame_of(ds) or named(frame)
    if not ours.rest:
        raise ValueError(
            f"stack: frame {ours.label} is of observed wavelengths; stack spectra on one at rest, "
            "such as frame='fs'"
        )
    values, label_N = _groups(ds, by)
    combine = _mean if how == "mean" else _median
    flux, count, spectra = combine(ds, ours, label_N, len(values))
    axes = ("group", "wavelength")
    found = xr.Dataset(
        {
            "flux": (axes, flux, {"units": "1", "long_name": f"{how} normalised flux"}),
            "count": (axes, count, {"units": "1", "long_name": "good pixels"}),
            "spectra": ("group", spectra, {"units": "1", "long_name": "spectra stacked"}),
        },
        coords={"group": values, "wavelength": schema.wavelength(ours.grid)},
        attrs={"frame": ours.label, "how": how, "window": list(ours.window)},
    )
    return found.isel(group=0, drop=True) if by is None else found.rename(group=by)


def observed(product: xr.Dataset, spectra: xr.Dataset) -> xr.Dataset:
    """A product on the pixels of the spectra that it was made from, lazily; 0 where it has none."""
    grid = Grid(**spectra.attrs["grid"])
    mapper = Frame(**product.attrs["frame_json"]).on(grid)
    rows = product["flux"].chunks[0] if product["flux"].chunks else (product.sizes["spectrum"],)
    beside = [
        da.asarray(product[name].data).rechunk((rows,))[:, None] for name in ("scale", "z", "ebv")
    ]
    made: dict[str, Any] = {}
    for name in ("flux", "sigma"):
        if name in product:
            # The mean of sigma is taken, as Mapper.back does: a model's errors are correlated.
            flux = da.map_blocks(
                _back,
                da.asarray(product[name].data),
                *beside,
                mapper=mapper,
                dtype=np.float32,
                chunks=(rows, (grid.size,)),
            )
            made[name] = (("spectrum", "wavelength"), flux, product[name].attrs)
    columns = product.drop_vars(
        [str(n) for n, v in product.variables.items() if v.dims != ("spectrum",)]
    )
    return columns.assign(made).assign_coords(wavelength=schema.wavelength(grid))


def _back(flux: Float, scale: Float, z: Float, ebv: Float, mapper: Mapper) -> Float:
    usable = np.isfinite(scale) & (scale > 0)
    x = flux / np.where(usable, scale, 1)
    found, _ = mapper.back(x, np.where(usable, scale, 0)[:, 0], z[:, 0], ebv[:, 0])
    return np.asarray(found.numpy())


def _frame_of(ds: xr.Dataset) -> Frame | None:
    """The frame of a product; None for spectra."""
    return Frame(**ds.attrs["frame_json"]) if "frame_json" in ds.attrs else None


def _groups(ds: xr.Dataset, by: str | None) -> tuple[list[Any], NDArray[np.intp]]:
    """The values of a column, and for every row which of them it has."""
    if by is None:
        return [""], np.zeros(ds.sizes["spectrum"], np.intp)
    if by not in ds.variables or ds[by].dims != ("spectrum",):
        raise ValueError(f"stack: no column {by!r} to stack by")
    values, label_N = np.unique(ds[by].to_numpy(), return_inverse=True)
    if len(values) > MOST_GROUPS:
        raise ValueError(
            f"stack: {by!r} has {len(values)} values, at most {MOST_GROUPS}; select ranges of it "
            "and stack each, or stack by a class"
        )
    return values.tolist(), label_N


def _normalised(ds: xr.Dataset, frame: Frame) -> Iterator[tuple[slice, Float, NDArray[np.bool_]]]:
    """Rows, x (n, P) and its good pixels, a bounded number of spectra at a time."""
    product = _frame_of(ds) is not None
    needed = ["flux", "scale"] if product else ["flux", "ivar", "z", "ebv"]
    for first in range(0, ds.sizes["spectrum"], STEP_ROWS):
        rows = slice(first, first + STEP_ROWS)
        part = ds[[*needed, "status"]].isel(spectrum=rows).compute()
        done = part["status"].to_numpy() == Status.DONE
        if product:
            flux, scale = (part[name].to_numpy() for name in needed)
            x = np.asarray(flux / np.where(done, scale, 1)[:, None], np.float32)
            yield rows, x, np.broadcast_to(done[:, None], x.shape)
        else:
            flux, ivar, z, ebv = (part[name].to_numpy() for name in needed)
            batch = frame.on(Grid(**ds.attrs["grid"])).to(flux, ivar, z, ebv)
            yield rows, batch.x.numpy(), (batch.weight.numpy() > 0) & done[:, None]


def _mean(ds: xr.Dataset, frame: Frame, label_N: NDArray[np.intp], groups: int) -> Any:
    total = np.zeros((groups, frame.grid.size))
    count, spectra = np.zeros(total.shape, np.int64), np.zeros(groups, np.int64)
    for rows, x, good in _normalised(ds, frame):
        for group in np.unique(label_N[rows]):
            mine = label_N[rows] == group
            total[group] += np.where(good[mine], x[mine], 0).sum(axis=0, dtype=np.float64)
            count[group] += good[mine].sum(axis=0)
            spectra[group] += good[mine].any(axis=1).sum()
    with np.errstate(invalid="ignore"):
        return total / count, count, spectra


def _median(ds: xr.Dataset, frame: Frame, label_N: NDArray[np.intp], groups: int) -> Any:
    n, pixels = ds.sizes["spectrum"], frame.grid.size
    if 4 * n * pixels > MEDIAN_BYTES:
        raise MemoryError(
            f"stack: a median of {n} spectra holds {n} x {pixels} x 4 = {4 * n * pixels} bytes, at "
            f"most {MEDIAN_BYTES}; select fewer, or take how='mean', which holds no spectra"
        )
    x_NP = np.full((n, pixels), np.nan, np.float32)
    for rows, x, good in _normalised(ds, frame):
        x_NP[rows] = np.where(good, x, np.nan)
    good = np.isfinite(x_NP)
    flux = np.full((groups, pixels), np.nan)
    for group in range(groups):
        seen = good[label_N == group].any(axis=0)
        flux[group, seen] = np.nanmedian(x_NP[label_N == group][:, seen], axis=0)
    count = np.stack([good[label_N == group].sum(axis=0) for group in range(groups)])
    spectra = np.bincount(label_N[good.any(axis=1)], minlength=groups)
    return flux, count, spectra
