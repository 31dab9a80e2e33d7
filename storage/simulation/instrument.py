"""A spectrograph: its arms, line spread, throughput, fibre and sky, from a TOML file.

The files beside this one (``instruments/*.toml``) are presets; anybody's own file is given by path.
"""

import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from storage.grid import Float, Grid
from storage.simulation.night_sky import Curve, Sky

C_KMS = 299792.458
SDSS_PIXEL_KMS = 1e-4 * np.log(10) * C_KMS
G_BAND, R_BAND = (4000.0, 5400.0), (5600.0, 6900.0)
"Observed A, of S/N per pixel."
_FWHM = 2.3548200450309493
_SKY_FIBRE = 3.0

Band = tuple[PositiveFloat, PositiveFloat]


class Arm(BaseModel):
    """One arm, as its own detector sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    wavelength: Band
    "First and last pixel with data; vacuum A."
    pixel: PositiveFloat
    "Width of its pixels at 5500 A (log) or everywhere (linear); A."
    read_variance: NonNegativeFloat
    "Electrons squared per pixel."
    throughput: Curve
    "(A, share of photons detected)."
    rise: tuple[float, PositiveFloat] | None = None
    "Centre and width (A) of a logistic that multiplies the throughput."
    dips: tuple[tuple[float, PositiveFloat, float], ...] = ()
    "Centre, width (A) and depth of Gaussian dips in it."
    lsf: Curve
    "(A, line spread), in the unit below."
    lsf_unit: Literal["sdss_pixel", "kms", "angstrom", "R"]
    "Sigma in pixels of 1e-4 dex, in km/s or in A; or the resolution, wavelength over FWHM."

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.wavelength[0] >= self.wavelength[1]:
            raise ValueError(f"arm {self.name}: wavelength = {self.wavelength} must ascend")
        for name in ("throughput", "lsf"):
            where, value = np.array(getattr(self, name)).T
            if not (np.diff(where) > 0).all():
                raise ValueError(f"arm {self.name}: the wavelengths of {name} must ascend")
            if not (value > 0).all():
                raise ValueError(f"arm {self.name}: {name} must be above 0 everywhere")
        return self

    def lsf_kms(self, wavelength: Float) -> Float:
        """Sigma of the line spread, km/s; any shape."""
        value = np.interp(wavelength, *np.array(self.lsf).T)
        if self.lsf_unit == "R":
            return np.asarray(C_KMS / (_FWHM * value))
        if self.lsf_unit == "angstrom":
            return np.asarray(value / wavelength * C_KMS)
        return np.asarray(value * (SDSS_PIXEL_KMS if self.lsf_unit == "sdss_pixel" else 1.0))

    def detected(self, wavelength: Float) -> Float:
        """Share of photons detected, any shape; by wavelength, whatever the arm's range."""
        whole = np.interp(wavelength, *np.array(self.throughput).T)
        if self.rise is not None:
            whole = whole / (1 + np.exp(-(wavelength - self.rise[0]) / self.rise[1]))
        for centre, width, depth in self.dips:
            whole = whole * (1 - depth * np.exp(-(((wavelength - centre) / width) ** 2)))
        return np.asarray(whole)


class Instrument(BaseModel):
    """A spectrograph, fibre and sky included.

    Examples
    --------
    >>> [arm.name for arm in load("desi").arms]
    ['b', 'r', 'z']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arms: tuple[Arm, ...] = Field(min_length=1)
    "By wavelength."
    joined: bool = True
    "Whether the survey joins arms where they overlap, by inverse variance; else a grid has one."
    fibre: PositiveFloat
    "Diameter; arcsec."
    sky: Sky = Sky()
    "What shines into it besides the object."
    masked_sky: PositiveFloat
    "A pixel whose sky is brighter than this (house unit) has no data."
    bits: tuple[int, int, int]
    "The survey's mask bits: lost pixel, bright sky, no data."
    broaden: Band | None = None
    "The two widths (km/s) that starlight is mixed from; by default the ends of the line spread."

    def lsf_kms(self, wavelength: Float) -> Float:
        """Sigma of the line spread at observed wavelengths, km/s; any shape.

        Where arms overlap, the mean of their variances, by throughput.
        """
        if len(self.arms) == 1:
            return self.arms[0].lsf_kms(wavelength)
        # Between two arms there is nothing to see: the nearest arm's spread goes on.
        away = np.stack([_outside(wavelength, arm.wavelength) for arm in self.arms])
        share = np.stack([arm.detected(wavelength) for arm in self.arms])
        share = np.where(away == away.min(axis=0), share, 0.0)
        variance = np.stack([arm.lsf_kms(wavelength) ** 2 for arm in self.arms])
        return np.asarray(np.sqrt((share * variance).sum(axis=0) / share.sum(axis=0)))

    def lsf_pixels(self, grid: Grid) -> Float:
        """Sigma of the line spread in pixels of a grid, (L,)."""
        return np.asarray(self.lsf_kms(grid.wavelength) * grid.wavelength / C_KMS / grid.widths)

    def on(self, grid: Grid) -> "Instrument":
        """What is seen on a grid: all arms where they are joined, else the one that fills it best.

        Raises
        ------
        ValueError
            When no arm is on the grid.
        """
        return _on(self, grid)

    def covers(self, wavelength: Float) -> NDArray[np.bool_]:
        """Whether an arm sees it, (L,)."""
        each = [within(wavelength, arm.wavelength) for arm in self.arms]
        return np.asarray(np.any(each, axis=0))

    def sky_over(self, grid: Grid) -> Float:
        """Brightness of the sky in the fibre, (L,), house unit."""
        return _sky(self, grid)

    def electrons_per_unit(self, arm: Arm, wavelength: Float, widths: Float | float) -> Float:
        """Electrons of one pixel per unit of flux and exposure, (L,), in one arm."""
        return np.asarray(arm.detected(wavelength) * wavelength / 5500.0 * widths / 1.27)


@lru_cache(maxsize=8)
def _on(instrument: Instrument, grid: Grid) -> Instrument:
    filled = [within(grid.wavelength, arm.wavelength).sum() for arm in instrument.arms]
    if not any(filled):
        raise ValueError(
            f"instrument {instrument.name}: its arms see nothing of the grid "
            f"{grid.edges[0]:.0f}-{grid.edges[-1]:.0f} A; take the survey's own grid"
        )
    if instrument.joined:
        return instrument
    return instrument.model_copy(update={"arms": (instrument.arms[int(np.argmax(filled))],)})


@lru_cache(maxsize=8)
def _sky(instrument: Instrument, grid: Grid) -> Float:
    centre, peak = np.array(instrument.sky.lines).T
    # The peaks are as SDSS sees them; what another spectrograph keeps is the area.
    area = peak * (centre * load("sdss").lsf_kms(centre) / C_KMS) * np.sqrt(2 * np.pi)
    whole = instrument.sky.over(grid, area, centre * instrument.lsf_kms(centre) / C_KMS)
    return np.asarray(whole * (instrument.sky.factor * (instrument.fibre / _SKY_FIBRE) ** 2))


def load(name: str | Instrument) -> Instrument:
    """A preset by name, or the instrument of a TOML file by its path.

    Raises
    ------
    ValueError
        When there is no such preset or file, or the file describes no instrument.
    """
    return _load(name) if isinstance(name, str) else name


@lru_cache(maxsize=16)
def _load(name: str) -> Instrument:
    if not name.endswith(".toml"):
        shelf = files("storage.simulation") / "instruments"
        known = sorted(each.name.removesuffix(".toml") for each in shelf.iterdir())
        if name not in known:
            raise ValueError(
                f"instrument = {name!r}: there are {', '.join(known)}; "
                "or give the path of a .toml file of your own"
            )
        return Instrument(**_table(name, (shelf / f"{name}.toml").read_text("utf-8")))
    if not Path(name).is_file():
        raise ValueError(f"instrument = {name!r}: there is no such file")
    return Instrument(**_table(name, Path(name).read_text("utf-8")))


def _table(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"instrument = {name!r}: not TOML: {error}") from error


def _outside(wavelength: Float, band: Band) -> Float:
    """Distance from a band, 0 inside; A."""
    return np.asarray(np.maximum(np.maximum(band[0] - wavelength, wavelength - band[1]), 0.0))


def within(wavelength: Float, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Pixels whose centres are in a band, (L,)."""
    return np.asarray((wavelength >= band[0]) & (wavelength <= band[1]))
