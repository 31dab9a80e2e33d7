"""Footprint: where a model applies, learnt from the rows it was trained on.

Outside it a model extrapolates, and the row is not denoised, or is flagged.
"""

from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Range = tuple[float, float]
"Lowest and highest value, both included."

LSF_MARGIN = 0.15
"Share that the range of line spreads is widened by: a galaxy's own width hides such a difference."
# The rows in the tails are too few to have taught a model anything.
_PERCENTILES = (0.5, 99.5)


class Footprint(BaseModel):
    """Ranges of the training rows, in words and numbers that a card can hold.

    Examples
    --------
    >>> Footprint(z=(0.02, 0.2), snr_g=(4, 40), classes=("GALAXY",)).missing
    0.1
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    z: Range
    "Redshifts."
    snr_g: Range
    "S/N per pixel in g. Only the lower end bounds: a higher S/N is the ceiling's affair."
    classes: tuple[str, ...]
    "Classes that were trained on, sorted."
    missing: float = Field(default=0.10, ge=0, le=1)
    "Largest fraction of frame pixels without data."
    zwarn: bool = True
    "Whether the redshift warning must be 0."
    vdisp: Range | None = None
    "Velocity dispersions, km/s; None where the training rows have none."
    lsf_kms: Range | None = None
    "Median line spread, Gaussian sigma in km/s; None where the training rows have none."
    snr_ceiling: float | None = None
    "S/N per pixel in g above which a model does harm, by its verdict; None where none was found."

    @model_validator(mode="before")
    @classmethod
    def _without_pixels(cls, said: Any) -> Any:
        """Older cards have the line spread in pixels of their survey, which bound no other one."""
        if isinstance(said, dict):
            return {name: value for name, value in said.items() if name != "lsf"}
        return said

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name in ("z", "snr_g", "vdisp", "lsf_kms"):
            found = getattr(self, name)
            if found is not None and not found[0] <= found[1]:
                raise ValueError(f"footprint: {name} is {found}; expected (lowest, highest)")
        return self

    @classmethod
    def learn(cls, columns: xr.Dataset, missing: ArrayLike) -> Self:
        """The footprint of training rows.

        Parameters
        ----------
        columns : Dataset
            z, snr_g, class of the training rows; vdisp and lsf_kms where they are known.
        missing : (N,) float
            Fraction of frame pixels without data; rows above the allowed one taught nothing,
            and are left out.

        Raises
        ------
        ValueError
            When no row is left.

        Notes
        -----
        Ranges are the 0.5-99.5 percentiles; that of z is widened by 2 % of its span on both
        sides, since lines move smoothly with z, and that of the line spread by `LSF_MARGIN`.
        """
        few = _fraction(columns, missing) <= cls.model_fields["missing"].default
        if not few.any():
            raise ValueError(
                f"footprint: none of {few.size} training rows has enough frame pixels with data; "
                "check the sample's redshifts against the frame's wavelengths"
            )
        z, snr_g = (_range(_values(columns, name)[few], name) for name in ("z", "snr_g"))
        margin = 0.02 * (z[1] - z[0])
        return cls(
            z=(z[0] - margin, z[1] + margin),
            snr_g=snr_g,
            classes=tuple(sorted({str(c) for c in columns["class"].to_numpy()[few]})),
            vdisp=_optional(columns, "vdisp", few),
            lsf_kms=_widened(_optional(columns, "lsf_kms", few)),
        )

    def judge(
        self, columns: xr.Dataset, missing: ArrayLike
    ) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
        """Which rows are inside, and why the others are not.

        Parameters
        ----------
        columns : Dataset
            z, snr_g, class, zwarn; vdisp and lsf_kms where the footprint bounds them.
        missing : (N,) float
            Fraction of frame pixels without data.

        Returns
        -------
        inside : (N,) bool
        reason : (N,) str
            In words, such as 'z 0.31 outside 0.02-0.20'; several are joined by '; '; empty inside.

        Notes
        -----
        A value that is not known (NaN) is outside for z and snr_g, and no objection for vdisp and
        lsf_kms.
        """
        fraction = _fraction(columns, missing)
        z, snr_g = _values(columns, "z"), _values(columns, "snr_g")
        kind = columns["class"].to_numpy().astype(np.dtypes.StringDType())
        tests: list[tuple[NDArray[np.bool_], str, NDArray[np.generic]]] = [
            (_outside(z, self.z), f"z {{:.4g}} outside {_words(self.z)}", z),
            (~(snr_g >= self.snr_g[0]), f"snr_g {{:.4g}} below {self.snr_g[0]:.4g}", snr_g),
            (~np.isin(kind, self.classes), f"class {{}} not of {', '.join(self.classes)}", kind),
            (
                ~(fraction <= self.missing),
                f"{{:.1%}} of the frame missing, more than {self.missing:.1%}",
                fraction,
            ),
        ]
        if self.zwarn:
            zwarn = columns["zwarn"].to_numpy()
            tests.append((zwarn != 0, "zwarn {} is not 0", zwarn))
        for name, found in (("vdisp", self.vdisp), ("lsf_kms", self.lsf_kms)):
            if found is not None:
                values = _values(columns, name)
                outside = _outside(values, found) & np.isfinite(values)
                tests.append((outside, f"{name} {{:.4g}} outside {_words(found)}", values))
        return _verdict(tests, len(z))

    def above_ceiling(self, columns: xr.Dataset) -> NDArray[np.bool_]:
        """Rows (N,) whose S/N is so high that the model does harm."""
        snr_g = _values(columns, "snr_g")
        if self.snr_ceiling is None:
            return np.zeros(snr_g.shape, dtype=bool)
        return snr_g > self.snr_ceiling


def _verdict(
    tests: list[tuple[NDArray[np.bool_], str, NDArray[np.generic]]], n: int
) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
    reasons = np.full(n, "", dtype=object)
    for fails, words, values in tests:
        # Words cost a loop, over the rows that fail alone.
        for row in np.flatnonzero(fails):
            said = words.format(values[row])
            reasons[row] = f"{reasons[row]}; {said}" if reasons[row] else said
    inside = ~np.logical_or.reduce([fails for fails, _, _ in tests])
    return inside, reasons.astype(str)


def _values(columns: xr.Dataset, name: str) -> NDArray[np.float64]:
    """(N,) of a column; the median over pixels of one that has them."""
    if name not in columns:
        raise ValueError(f"footprint: no column {name!r} among {sorted(map(str, columns))}")
    values = columns[name].to_numpy().astype(np.float64)
    if values.ndim == 2:
        # 0 is no data; a row of it has no median, and no warning is due.
        values[values <= 0] = np.nan
        medians = np.full(len(values), np.nan)
        some = np.isfinite(values).any(axis=1)
        medians[some] = np.nanmedian(values[some], axis=1)
        return medians
    return values


def _fraction(columns: xr.Dataset, missing: ArrayLike) -> NDArray[np.float64]:
    fraction = np.asarray(missing, dtype=np.float64)
    n = columns.sizes["spectrum"]
    if fraction.shape != (n,):
        raise ValueError(f"footprint: missing has shape {fraction.shape}; expected ({n},)")
    return fraction


def _range(values: NDArray[np.float64], name: str) -> Range:
    known = values[np.isfinite(values)]
    if known.size == 0:
        raise ValueError(f"footprint: {name} is finite in no training row; it bounds nothing")
    low, high = np.percentile(known, _PERCENTILES)
    return float(low), float(high)


def _optional(columns: xr.Dataset, name: str, rows: NDArray[np.bool_]) -> Range | None:
    if name not in columns:
        return None
    values = _values(columns, name)[rows]
    # Mocks and stars have no velocity dispersion: it stands at 0 or NaN there.
    values = values[np.isfinite(values) & (values > 0)]
    return _range(values, name) if values.size else None


def _widened(found: Range | None) -> Range | None:
    return found and (found[0] * (1 - LSF_MARGIN), found[1] * (1 + LSF_MARGIN))


def _outside(values: NDArray[np.float64], allowed: Range) -> NDArray[np.bool_]:
    return ~((values >= allowed[0]) & (values <= allowed[1]))


def _words(allowed: Range) -> str:
    return f"{allowed[0]:.4g}-{allowed[1]:.4g}"
