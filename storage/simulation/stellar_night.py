"""A night at the telescope: seeing, airmass and Moon, and the noise they leave in a spectrum.

Anchored on the exposure time calculator of the Prime Focus Spectrograph: what it gives for an
exposure of 900 s of a star of AB 18 is met by `PFS`. The variance of one exposure of a pixel, in
electrons, is object + gain x sky + read-out + exposures x (floor x sky)^2 (a fit to it, to 5 %).

Axes: N spectra, L pixels.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from storage.grid import Float, Grid
from storage.schema import Field as Column
from storage.simulation.instrument import Arm, Instrument
from storage.simulation.night_sky import Sky

Single = np.ndarray[Any, np.dtype[np.float32]]
Range = tuple[float, float]

COLUMNS = {
    name: Column(dtype="f4", units=units, description=description)
    for name, units, description in (
        ("seeing", "arcsec", "seeing at zenith, FWHM"),
        ("zenith_angle", "deg", "distance of the star from zenith"),
        ("field_angle", "deg", "distance of the star from the centre of the field"),
        ("moon_zenith", "deg", "distance of the Moon from zenith"),
        ("moon_target", "deg", "distance of the Moon from the star"),
        ("moon_phase", "1", "phase of the Moon: 0 new, 0.5 full"),
    )
}
FRAME = Grid(kind="linear", start=7100.0 + 1750.0 / 8192, step=1750.0 / 4096, size=4096)
"4096 pixels over 7100-8850 A, 0.43 A each (Pal & Dobos 2024, table 2)."
# Airglow of OH between the lines that have names: areas in house unit x A in a 3 arcsec fibre.
_FOREST, _FOREST_AREA = 330, 22.0


def _pfs() -> Instrument:
    rng = np.random.default_rng(900)
    centre = np.sort(rng.uniform(7080.0, 8870.0, _FOREST))
    # `Sky` has peaks as SDSS sees them, sigma 57 km/s.
    peak = rng.exponential(_FOREST_AREA, _FOREST) / (centre * 57.0 / 2.998e5 * np.sqrt(2 * np.pi))
    named = Sky().lines
    # The calculator's lines are brighter than those of SDSS files, relative to the continuum.
    louder = [(where, 1.5 * height) for where, height in named]
    both = sorted([*louder, *zip(centre.tolist(), peak.tolist(), strict=True)])
    return Instrument(
        name="pfs-mr",
        arms=(
            Arm(
                name="mr",
                wavelength=(7100.0, 8850.0),
                pixel=FRAME.step,
                read_variance=52.0,
                throughput=((7100.0, 0.22), (7700.0, 0.23), (8850.0, 0.225)),
                lsf=((7100.0, 0.68), (8850.0, 0.68)),
                lsf_unit="angstrom",
            ),
        ),
        fibre=1.1,
        sky=Sky(lines=tuple(both), factor=1.5),
        masked_sky=float("inf"),
        bits=(0, 0, 0),
    )


PFS = _pfs()
"Like the medium resolution of PFS: 1.6 A FWHM; its sky and electrons meet the calculator's."
PAPER: dict[str, Any] = {
    "instrument": PFS, "coverage": (7100.0, 8850.0), "exposures": 20, "electrons": 454.0,
    "sky_gain": 1.46, "sky_floor": 0.01, "magnitude": (19.0, 22.5), "cosmics": 0.0, "gaps": 0.0,
}  # fmt: skip
"Options of the star mock that make it that of Pal & Dobos (2024), on `FRAME`."


class Sight(NamedTuple):
    """What the night does to N stars, (N,) each."""

    share: Float
    "Electrons of the star over those on the night of the anchor."
    airmass: Float
    "1 / cos of the distance from zenith, about: brightens the sky."
    moon: Float
    "Moonlight at 5500 A over the dark sky at zenith."


class Night(BaseModel):
    """Conditions, drawn uniformly (Pal & Dobos 2024, table 1), and the noise of an exposure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeing: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    "Range of seeing at zenith, FWHM; arcsec."
    zenith_angle: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 45.0)
    "Range of the distance from zenith, at most 80; deg."
    field_angle: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.65)
    "Range of the distance from the field's centre; deg."
    moon_zenith: tuple[NonNegativeFloat, NonNegativeFloat] = (30.0, 90.0)
    "Range of the Moon's distance from zenith; deg. 90: it is below the horizon."
    moon_target: tuple[NonNegativeFloat, NonNegativeFloat] = (60.0, 180.0)
    "Range of its distance from the star; deg."
    moon_phase: tuple[NonNegativeFloat, NonNegativeFloat] = (0.0, 0.25)
    "Range of its phase: 0 new, 0.5 full."
    exposures: PositiveInt = 1
    "Exposures that are stacked."
    electrons: PositiveFloat = 95.0
    "Electrons per unit of flux, of an exposure on the night of the anchor, at throughput 1."
    sky_gain: PositiveFloat = 1.0
    "Variance per electron of the sky: above 1 where the sky is measured with noise of its own."
    sky_floor: NonNegativeFloat = 0.01
    "Error of sky subtraction, a fraction of the sky, the same in all exposures."

    @model_validator(mode="after")
    def _nights_are_possible(self) -> Self:
        for name in COLUMNS:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = ({low}, {high}): the first is the lower end")
        if self.zenith_angle[1] > 80.0:
            raise ValueError(f"zenith_angle = {self.zenith_angle}: at most 80 deg is observed")
        if self.moon_phase[1] > 0.5:
            raise ValueError(f"moon_phase = {self.moon_phase}: 0 is new, 0.5 full Moon")
        return self

    def conditions(self, u: Float) -> dict[str, Float]:
        """`COLUMNS`, (N,) each, from numbers (N, 6) between 0 and 1."""
        ranges = [getattr(self, name) for name in COLUMNS]
        return {
            name: low + (high - low) * column
            for name, (low, high), column in zip(COLUMNS, ranges, u.T, strict=True)
        }

    def variance(
        self, flux: Single, grid: Grid, instrument: Instrument, night: dict[str, Float]
    ) -> Single:
        """Variance of the flux (N, L) of the stack."""
        arm = instrument.arms[0]
        sight = seen_through(night, instrument.fibre)
        each = self.electrons * sight.share[:, None]
        per_unit = instrument.electrons_per_unit(arm, grid.wavelength, grid.widths)
        gained = (each * per_unit).astype(np.float32)
        # The sky fills the fibre whatever the seeing.
        sky = (self.electrons * per_unit).astype(np.float32) * over(instrument, grid, sight)
        error = np.float32(self.exposures) * (np.float32(self.sky_floor) * sky) ** 2
        noise = gained * np.maximum(flux, 0) + np.float32(self.sky_gain) * sky + error
        noise += np.float32(arm.read_variance)
        return np.asarray(noise / (np.float32(self.exposures) * gained**2), dtype=np.float32)


def over(instrument: Instrument, grid: Grid, sight: Sight) -> Single:
    """Sky in the fibre, (N, L), house unit: airglow that grows with airmass, and moonlight."""
    # The dark continuum at 5500 A is what moonlight is told in units of.
    dark = float(np.interp(5500.0, *np.array(instrument.sky.continuum).T))
    dark *= instrument.sky.factor * (instrument.fibre / 3.0) ** 2
    sun = np.expm1(1.438777e8 / 5500.0 / 5772.0) * (grid.wavelength / 5500.0) ** -5
    sun /= np.expm1(1.438777e8 / grid.wavelength / 5772.0)
    sky = sight.airmass[:, None].astype(np.float32) * instrument.sky_over(grid).astype(np.float32)
    sky += (dark * sight.moon)[:, None].astype(np.float32) * sun.astype(np.float32)
    return np.asarray(sky)


def seen_through(night: dict[str, Float], fibre: float) -> Sight:
    """What conditions (N,) do to stars in a fibre of a diameter, arcsec."""
    airmass = _airmass(night["zenith_angle"])
    anchor = _through(fibre, 0.8, _airmass(np.array(45.0)), 0.65)
    here = _through(fibre, night["seeing"], airmass, night["field_angle"])
    return Sight(here / anchor, airmass, moonlight(night, airmass))


def _through(fibre: float, seeing: Float | float, airmass: Float, field: Float | float) -> Float:
    """Share of a star's light: in the fibre, not vignetted, not lost in the air."""
    sigma = seeing * airmass**0.6 / 2.3548
    inside = 1 - np.exp(-0.5 * (0.5 * fibre / sigma) ** 2)
    vignetted = 1 - 0.05 * (np.asarray(field) / 0.65) ** 2
    return np.asarray(inside * vignetted * 10 ** (-0.4 * 0.07 * airmass))


def moonlight(night: dict[str, Float], airmass: Float) -> Float:
    """Moonlight over the dark sky at zenith (V 21.6), (N,), after Krisciunas & Schaefer (1991)."""
    phase = np.abs(180.0 * (1 - 2 * night["moon_phase"]))
    moon = 10 ** (-0.4 * (3.84 + 0.026 * phase + 4e-9 * phase**4))
    away = night["moon_target"]
    scattered = 10**5.36 * (1.06 + np.cos(np.radians(away)) ** 2) + 10 ** (6.15 - away / 40)
    high = np.minimum(night["moon_zenith"], 90.0)
    dimmed = 10 ** (-0.4 * 0.115 * _airmass(high)) * (1 - 10 ** (-0.4 * 0.115 * airmass))
    nanolamberts = 34.08 * np.exp(20.7233 - 0.92104 * 21.6)
    return np.asarray(np.where(high < 90.0, moon * scattered * dimmed / nanolamberts, 0.0))


def _airmass(angle: Float) -> Float:
    return np.asarray((1 - 0.96 * np.sin(np.radians(angle)) ** 2) ** -0.5)
