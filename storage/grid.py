"""Grid: a wavelength axis of pixel centres, in vacuum, with linear or logarithmic steps."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

Float = NDArray[np.float64]


class Grid(BaseModel):
    """Pixel centres at ``start + step * arange(size)``, in A or in log10(A); always vacuum.

    Examples
    --------
    >>> Grid(kind="linear", start=3700, step=1, size=3800).wavelength[-1]
    np.float64(7499.0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "log"]
    start: float
    "Centre of the first pixel; A when linear, log10(A) when log."
    step: PositiveFloat
    "Distance of pixel centres; A when linear, dex when log."
    size: PositiveInt
    "Number of pixels."

    # pydantic compares what is cached, too, and an array is neither true nor false.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A grid with other values; pydantic would take the old axis along."""
        return type(self)(**self.model_dump() | dict(update or {}))

    def _key(self) -> tuple[str, float, float, int]:
        return self.kind, self.start, self.step, self.size

    @cached_property
    def wavelength(self) -> Float:
        """Pixel centres, (L,) float64, vacuum A."""
        return self._unscaled(np.arange(self.size))

    @cached_property
    def edges(self) -> Float:
        """Pixel edges, (L + 1,) float64, vacuum A."""
        return self._unscaled(np.arange(self.size + 1) - 0.5)

    @cached_property
    def widths(self) -> Float:
        """Pixel widths, (L,) float64, A."""
        return np.diff(self.edges)

    def pixel(self, wavelength: ArrayLike) -> Float:
        """Fractional pixel number of vacuum wavelengths; 0 is the centre of the first pixel."""
        value = np.asarray(wavelength, dtype=np.float64)
        scaled = np.log10(value) if self.kind == "log" else value
        return np.asarray((scaled - self.start) / self.step)

    def _unscaled(self, pixel: ArrayLike) -> Float:
        value = self.start + self.step * np.asarray(pixel, dtype=np.float64)
        return np.asarray(10.0**value if self.kind == "log" else value)

    @classmethod
    def infer(cls, wavelength: ArrayLike, tolerance: float = 0.01) -> Self:
        """The grid whose pixel centres these are.

        Parameters
        ----------
        wavelength : (L,) float
            Vacuum A, ascending.
        tolerance : float
            Largest departure from even steps, in pixels.

        Raises
        ------
        ValueError
            When the steps are neither even in A nor in log10(A).
        """
        centre = np.asarray(wavelength, dtype=np.float64)
        if centre.ndim != 1 or centre.size < 3 or not np.all(np.diff(centre) > 0):
            raise ValueError(
                f"wavelength: expected an ascending axis of 3 or more, got shape {centre.shape}"
            )
        scales: tuple[tuple[Literal["linear", "log"], Float], ...] = (
            ("linear", centre),
            ("log", np.log10(centre)),
        )
        for kind, axis in scales:
            step = float((axis[-1] - axis[0]) / (axis.size - 1))
            even = axis[0] + step * np.arange(axis.size)
            if np.abs(axis - even).max() <= tolerance * step:
                return cls(kind=kind, start=float(axis[0]), step=step, size=axis.size)
        raise ValueError(
            f"wavelength: {centre[0]:.2f}-{centre[-1]:.2f} A is even neither in A nor in log10(A); "
            "rebin it to one of the two first"
        )


def vacuum_to_air(wavelength: ArrayLike) -> Float:
    """Air wavelength of a vacuum one, both in A (IAU standard; Morton 1991; above 2000 A).

    Examples
    --------
    >>> round(float(vacuum_to_air(5001.39)), 1)
    5000.0
    """
    vacuum = np.asarray(wavelength, dtype=np.float64)
    return vacuum / (1.0 + 2.735182e-4 + 131.4182 / vacuum**2 + 2.76249e8 / vacuum**4)


def air_to_vacuum(wavelength: ArrayLike) -> Float:
    """Vacuum wavelength of an air one, both in A: the inverse of `vacuum_to_air` to 1e-9 A."""
    air = np.asarray(wavelength, dtype=np.float64)
    vacuum = air
    # Contraction by about 1e-7 a step: three are exact to float64.
    for _ in range(3):
        vacuum = air * vacuum / vacuum_to_air(vacuum)
    return vacuum
