"""The border of a survey: what holds for every row, whatever format it comes from.

A reader fills in what it found; here each row is admitted or quarantined with its reason.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import schema
from storage.grid import Grid
from storage.schema import ObjectType, Reason, Status

Z_RANGE = (-0.02, 10.0)
"Redshifts that can be: a star of the halo comes at 1000 km/s, no object is known beyond 10."
MOST_FLUX = 1e10
"""House units: three times Sirius in the blue. No survey has more, while a damaged exponent, or
bytes that are no numbers, mostly give more."""
MOST_IVAR = 1e16
"""House units: an error of 1e-25 erg s-1 cm-2 A-1, thousands of times less than in the deepest
spectra; one flipped bit, the highest of the exponent, mostly gives more."""
MOST = {"flux": MOST_FLUX, "ivar": MOST_IVAR, "model": MOST_FLUX}
"Of the pixels of each variable."
EBV_RANGE = (-1.0, 1000.0)
"E(B-V) that can be, mag: maps have hundreds behind the Galactic centre, and noise below 0."
UNSURE, MOST_NUMBER = ("mjd", "z_err", "vdisp"), 1e6
"Columns that a spectrum can do without, each in its unit: a larger number is none, and NaN."
NO_REDSHIFT = 1 << 30
"Bit of zwarn of a row without a redshift; the surveys' own end at 1 << 11."
_HUGE = 1e30
G_BAND, R_BAND = (4000.0, 5400.0), (5600.0, 6900.0)
"Observed vacuum A, of `snr_g` and `snr_r`."

Flags = NDArray[np.bool_]


class RefusedError(ValueError):
    """A spectrum that must not enter the survey."""

    def __init__(self, code: Reason, message: str):
        super().__init__(message)
        self.code = code


def single(values: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers as float32; finite ones stay so, for the border to judge."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(values), values, np.clip(values, -_HUGE, _HUGE)).astype(np.float32)


def beyond(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """How many pixels of spectra (..., L) of finite numbers are larger than the variable can be."""
    # The extremes first: they are sound in all but a few rows of a survey.
    if not values.size or max(values.max(), -values.min()) <= MOST[name]:
        return np.zeros(values.shape[:-1], np.int64)
    return np.asarray((np.abs(values) > MOST[name]).sum(axis=-1))


def require_sizes(flux: NDArray[Any], ivar: NDArray[Any]) -> None:
    """Refuse a spectrum (L,) that is rebinned, where one absurd pixel would be lost in a mean.

    Raises
    ------
    RefusedError
        Where there is data beyond `MOST`; says how much.
    """
    good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    for name, values in (("flux", flux), ("ivar", ivar)):
        if count := int(beyond(name, np.where(good, values, 0))):
            raise RefusedError(Reason.ABSURD, too_large(name, count))


def too_large(name: str, count: int) -> str:
    """What is said of a spectrum with that many pixels `beyond`."""
    most = f"{MOST[name]:g} in house units"
    return f"{name} is beyond {most}, where no spectrum is, in {count} pixels; fetch the file again"


def admit(ds: xr.Dataset, grid: Grid, relative: bool = False) -> xr.Dataset:
    """The rows that a reader filled in, each done or quarantined; changed in place, and given back.

    Parameters
    ----------
    ds : Dataset
        As `storage.schema.blank` with values. Rows that the reader refused have their status,
        reason code and reason; of the others the status is pending. Pixels without data may be
        anything with an ivar of 0, and those that are not finite count as such.
    grid : Grid
        Its wavelengths, for S/N in g and r.
    relative : bool
        Whether flux is in units of its own, where no number is too large.

    Notes
    -----
    Quarantined: ivar negative, no good pixel (not finite, or none), a position off the sphere, a
    redshift outside `Z_RANGE` (sky fibres may have any), E(B-V) outside `EBV_RANGE`, and a row
    with one pixel or more beyond `MOST_FLUX` or `MOST_IVAR`: its other pixels are of the same
    bytes. `snr`, `snr_g`, `snr_r` are filled in; zwarn has `NO_REDSHIFT` where z is NaN.
    """
    flux, ivar = ds["flux"].to_numpy(), ds["ivar"].to_numpy()
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(flux) & np.isfinite(ivar)
        negative = (finite & (ivar < 0)).sum(axis=1)
    lost = ~finite | ~(ivar > 0)
    flux[lost], ivar[lost] = 0, 0
    model = ds["model"].to_numpy()
    model[~np.isfinite(model)] = 0
    nothing = lost.all(axis=1)
    torn = (~finite).sum(axis=1)
    _quarantine(
        ds,
        negative > 0,
        Reason.NEGATIVE_IVAR,
        lambda row: f"ivar is negative in {negative[row]} pixels; fetch the file again",
    )
    _quarantine(
        ds,
        nothing & (torn > 0),
        Reason.NOT_FINITE,
        lambda row: (
            f"flux or ivar is not finite in {torn[row]} of {grid.size} pixels and no other is "
            "good; fetch the file again"
        ),
    )
    _quarantine(ds, nothing, Reason.NO_DATA, lambda _: "no pixel has ivar > 0; leave it out")
    if not relative:
        _admit_sizes(ds)
    _admit_columns(ds)
    # Before the signal to noise, which numbers that were refused would overflow.
    empty_refused(ds)
    _admit_snr(ds, grid)
    fresh = ds["status"].to_numpy() == Status.PENDING
    ds["status"].to_numpy()[fresh] = Status.DONE
    return schema.check(ds)


def _admit_sizes(ds: xr.Dataset) -> None:
    for name in MOST:
        count = beyond(name, ds[name].to_numpy())
        words = partial(_too_large, name, count)
        _quarantine(ds, count > 0, Reason.ABSURD, words)


def _too_large(name: str, count: NDArray[np.int64], row: int) -> str:
    return too_large(name, int(count[row]))


def _admit_columns(ds: xr.Dataset) -> None:
    ra, dec, z = (ds[name].to_numpy() for name in ("ra", "dec", "z"))
    sky = ds["object_type"].to_numpy() == ObjectType.SKY
    with np.errstate(invalid="ignore"):
        placed = (ra >= 0) & (ra <= 360) & (dec >= -90) & (dec <= 90)
        # A survey without redshifts has none to be absurd.
        possible = np.isnan(z) | sky | ((z >= Z_RANGE[0]) & (z <= Z_RANGE[1]))
    _quarantine(
        ds,
        ~placed,
        Reason.BAD_POSITION,
        lambda row: (
            f"ra {ra[row]}, dec {dec[row]}; expected 0 to 360 and -90 to 90 deg; fetch it again"
        ),
    )
    _quarantine(
        ds,
        ~possible,
        Reason.BAD_REDSHIFT,
        lambda row: f"z is {z[row]}, expected {Z_RANGE[0]} to {Z_RANGE[1]}; leave it out",
    )
    ebv, known = ds["ebv"].to_numpy(), ds["ebv_known"].to_numpy()
    with np.errstate(invalid="ignore"):
        dusty = ~(ebv >= EBV_RANGE[0]) | ~(ebv <= EBV_RANGE[1])
    _quarantine(
        ds,
        dusty & (known > 0),
        Reason.ABSURD,
        lambda row: (
            f"E(B-V) is {ebv[row]}, expected {EBV_RANGE[0]} to {EBV_RANGE[1]} mag; fetch the file "
            "again"
        ),
    )
    for name in UNSURE:
        values = ds[name].to_numpy()
        values[~(np.abs(values) <= MOST_NUMBER)] = np.nan
    z[~np.isfinite(z)] = np.nan
    ds["zwarn"].to_numpy()[np.isnan(z)] |= NO_REDSHIFT
    ra[placed] %= 360


def _quarantine(ds: xr.Dataset, bad: Flags, code: Reason, words: Callable[[int], str]) -> None:
    """Refuse rows that nobody refused before."""
    for row in np.flatnonzero(bad & (ds["status"].to_numpy() == Status.PENDING)):
        refuse(ds, int(row), code, words(int(row)))


def refuse(ds: xr.Dataset, row: int, code: Reason, words: str) -> None:
    """Quarantine a row of a dataset: names its file, and its row where the file has many."""
    source, number = str(ds["source"].to_numpy()[row]), int(ds["source_row"].to_numpy()[row])
    where = f"{source} row {number}" if number else source
    ds["status"].to_numpy()[row] = Status.QUARANTINED
    ds["reason_code"].to_numpy()[row] = code
    ds["reason"].to_numpy()[row] = f"{where}: {words}"


KEPT = ("source", "source_row", "digest", "observation", "status", "reason_code", "reason")
"What a quarantined row still says."


def empty_refused(ds: xr.Dataset) -> None:
    """Make every other value of quarantined rows empty."""
    bad = ds["status"].to_numpy() == Status.QUARANTINED
    if not bad.any():
        return
    for name, variable in ds.data_vars.items():
        if name in KEPT or variable.dims[:1] != ("spectrum",):
            continue
        field = schema.SPECTRA.get(str(name))
        missing: Any = schema.empty(field) if field is not None else 0
        variable.to_numpy()[bad] = missing


def _admit_snr(ds: xr.Dataset, grid: Grid) -> None:
    for name, values in snr(ds["flux"].to_numpy(), ds["ivar"].to_numpy(), grid).items():
        ds[name].to_numpy()[:] = values


def snr(flux: NDArray[Any], ivar: NDArray[Any], grid: Grid) -> dict[str, NDArray[np.float32]]:
    """S/N per pixel of spectra (N, L): ``snr``, ``snr_g``, ``snr_r``, each (N,); NaN without data.

    The median of all good pixels, and the means over g and r (Camilleri et al. 2025, section 2).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        each = flux * np.sqrt(ivar)
    good = ivar > 0
    found = {"snr": _median(each, good)}
    for name, band in (("snr_g", G_BAND), ("snr_r", R_BAND)):
        inside = slice(*pixels_in(grid, band))
        count = good[:, inside].sum(axis=1)
        total = each[:, inside].sum(axis=1, dtype=np.float64)
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("f4")
    return found


def _median(values: NDArray[Any], good: Flags) -> NDArray[np.float32]:
    # Bad pixels sort behind the good ones: the median then stands at half of their number.
    ordered = np.sort(np.where(good, values, np.inf), axis=1)
    count = good.sum(axis=1)
    rows = np.arange(len(values))
    # Without a good pixel (-1) is the last one, which is infinite.
    low, high = ordered[rows, (count - 1) // 2], ordered[rows, count // 2 - (count == 0)]
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, (low + high) / 2, np.nan).astype("f4")


@lru_cache
def pixels_in(grid: Grid, band: tuple[float, float]) -> tuple[int, int]:
    """First pixel within a band (A), and the one behind the last."""
    first, last = np.searchsorted(grid.wavelength, list(band), side="left")
    return int(first), int(last)
