"""Spectra as a file has them, and the usual names of their parts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.border import RefusedError
from storage.schema import Reason
from storage.table.options import Kind, Options, Scale

Float = NDArray[np.float64]
Cards = Mapping[str, Any]

WAVELENGTH = (
    *("wavelength", "wave", "lambda", "lam", "wl", "spectral_axis", "wavelengths"),
    *("loglam", "loglambda", "log_lambda", "logwave", "ln_wave"),
)
FLUX = ("flux", "flux_lambda", "flam", "flux_density", "spectrum", "spec", "intensity")
UNCERTAINTY: dict[str, Kind] = {
    **{"ivar": "ivar", "invvar": "ivar", "inverse_variance": "ivar", "weight": "ivar"},
    **{"variance": "variance", "var": "variance"},
    **{"error": "std", "err": "std", "sigma": "std", "uncertainty": "std", "std": "std"},
    **{"flux_err": "std", "flux_error": "std", "eflux": "std", "noise": "std", "stddev": "std"},
}
MASK = ("mask", "and_mask", "andmask", "dq", "quality", "flags")


@dataclass(frozen=True, kw_only=True)
class Spectra:
    """N spectra of L pixels, in the units of their file."""

    wavelength: Float
    "(L,) for all, or (N, L)."
    scale: Scale
    "Whether `wavelength` are logarithms."
    wavelength_unit: str
    "Empty where the file does not say it."
    flux: Float
    "(N, L)."
    flux_unit: str
    "Empty where the file does not say it."
    uncertainty: Float | None = None
    "(N, L)."
    kind: Kind | None = None
    "What the uncertainty is."
    uncertainty_unit: str = ""
    "Empty where the file does not say it."
    mask: NDArray[np.uint32] | None = None
    "(N, L)."
    total: int = 1
    "Spectra in the whole file."
    cards: Cards = field(default_factory=dict)
    "Header of the file; keywords in capitals."
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    "(N,) values of each spectrum; names in capitals."


def find(names: Iterable[str], asked: str, usual: Iterable[str], what: str) -> str | None:
    """The name that was asked for, else the first usual one that is there; in any case of letters.

    Raises
    ------
    RefusedError
        When the name that was asked for is not there.
    """
    there = {name.lower(): name for name in reversed([*names])}
    if asked:
        if asked.lower() not in there:
            raise RefusedError(
                Reason.MISSING_HDU,
                f"no {what} {asked!r} (there: {', '.join([*there.values()][::-1]) or 'none'}); set "
                f"survey.options.{what} to one of them",
            )
        return there[asked.lower()]
    return next((there[name] for name in usual if name in there), None)


def kind_of(name: str, options: Options) -> Kind:
    """What an uncertainty of this name is: as the options say, else as its name does."""
    kind = options.uncertainty_kind or UNCERTAINTY.get(name.lower())
    if not kind:
        raise RefusedError(
            Reason.BAD_UNITS,
            f"what uncertainty {name!r} is, its name does not tell; set "
            "survey.options.uncertainty_kind to 'ivar', 'variance' or 'std'",
        )
    return kind


def scale_of(name: str, cards: Cards, options: Options) -> Scale:
    """Whether wavelengths under this name are logarithms."""
    if options.wavelength_scale:
        return options.wavelength_scale
    if name.lower().startswith("log") or str(cards.get("LOGSCALE")) == "True":
        return "log10"
    return "ln" if name.lower().startswith("ln") else "linear"


def _stacked(values: Any) -> Any:
    """Values as they are; lists of one length, as they come from variable ones, as (N, L)."""
    array = np.ma.asarray(values)
    if array.dtype != object:
        return array
    lengths = {np.size(each) for each in array}
    if len(lengths) != 1:
        raise RefusedError(
            Reason.BAD_GRID,
            f"rows have {len(lengths)} numbers of pixels, {min(lengths)} to {max(lengths)}; "
            "expected one for the file, write one file for each",
        )
    return np.stack([np.asarray(each) for each in array])


def bits(values: Any) -> NDArray[np.uint32]:
    """Mask bits of numbers of any kind; what is not finite has all of them."""
    array = np.asarray(_stacked(values))
    if array.dtype.kind == "f":
        array = np.where(np.isfinite(array), array, -1)
    return np.asarray(array.astype(np.int64) & 0xFFFFFFFF, dtype=np.uint32)


def plain(values: Any) -> Float:
    """Numbers as float64; what is masked is NaN.

    Raises
    ------
    RefusedError
        They are the bits of floats, read as whole numbers: BITPIX or TFORM lies.
    """
    found = _stacked(values)
    _refuse_bits(np.asarray(found))
    array = np.ma.asarray(found, dtype=np.float64)
    return np.asarray(array.filled(np.nan), dtype=np.float64)


def _refuse_bits(array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 4 or not array.any():
        return
    size = float(np.median(np.abs(array[array != 0].astype(np.float64))))
    if size > 2.0 ** (8 * array.dtype.itemsize - 4):
        raise RefusedError(
            Reason.ABSURD,
            f"whole numbers of {size:.3g} in the median: they look like the bits of floats, of "
            "another type than the header says; fetch the file again",
        )


def from_columns(
    columns: Mapping[str, Any],
    units: Mapping[str, str],
    cards: Cards,
    options: Options,
    axis: tuple[Float, Scale, str] | None = None,
    total: int = 1,
) -> Spectra:
    """Spectra of a table: one of its (L,) columns, or one a row of its (N, L) columns.

    axis : wavelengths, scale and unit from elsewhere; total : spectra in the whole file.
    """
    name = find(columns, options.flux, FLUX, "flux")
    if name is None:
        raise RefusedError(
            Reason.MISSING_HDU,
            f"no column of flux (columns: {', '.join(columns) or 'none'}); set survey.options.flux",
        )
    flux = plain(columns[name])
    many = flux.ndim == 2
    wave = None if axis else find(columns, options.wavelength, WAVELENGTH, "wavelength")
    if axis is None:
        if wave is None:
            raise RefusedError(
                Reason.BAD_GRID,
                f"no column of wavelength (columns: {', '.join(columns)}); set "
                "survey.options.wavelength",
            )
        axis = plain(columns[wave]), scale_of(wave, cards, options), units.get(wave, "")
    error = find(columns, options.uncertainty, UNCERTAINTY, "uncertainty")
    mask = find(columns, options.mask, MASK, "mask")
    return Spectra(
        wavelength=axis[0],
        scale=axis[1],
        wavelength_unit=axis[2],
        flux=flux if many else flux[None],
        flux_unit=units.get(name, ""),
        uncertainty=None if error is None else np.atleast_2d(plain(columns[error])),
        kind=None if error is None else kind_of(error, options),
        uncertainty_unit="" if error is None else units.get(error, ""),
        mask=None if mask is None else np.atleast_2d(bits(columns[mask])),
        total=total,
        cards=cards,
        columns={
            title.upper(): np.array(values)
            for title, values in columns.items()
            if many and np.ndim(values) == 1
        },
    )


def check(spectra: Spectra) -> Spectra:
    """Spectra whose parts have one shape.

    Raises
    ------
    RefusedError
        When they have not.
    """
    shape = spectra.flux.shape
    if spectra.flux.ndim != 2:
        raise RefusedError(Reason.BAD_GRID, f"flux has {spectra.flux.ndim} axes, expected 1 or 2")
    if spectra.wavelength.shape not in (shape, shape[1:]):
        raise RefusedError(
            Reason.BAD_GRID,
            f"wavelength is {spectra.wavelength.shape}, flux {shape}; expected one for each pixel",
        )
    for what, array in (("uncertainty", spectra.uncertainty), ("mask", spectra.mask)):
        if array is not None and array.shape != shape:
            raise RefusedError(
                Reason.BAD_GRID, f"{what} is {array.shape}, flux {shape}; expected the same"
            )
    for name, column in spectra.columns.items():
        if len(column) != shape[0]:
            raise RefusedError(
                Reason.BAD_GRID,
                f"column {name!r} has {len(column)} rows, flux {shape[0]}; expected one for each "
                "spectrum, check survey.options.rows_hdu",
            )
    return spectra
