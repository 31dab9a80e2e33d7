"""What line fluxes tell of a galaxy: its class, the metallicity and the dust of its gas.

Pure functions of arrays (N,), errors propagated to first order with lines taken as independent.
Emission is positive. Where an answer is not defined it is NaN, and a flag says why.
"""

from enum import IntFlag
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.dust import Law, curve

Floats = NDArray[np.float64]
Words = NDArray[Any]

FAINTEST = 3.0
"Flux over error below which a line does not count as seen."
CASE_B = 2.86
"Halpha over Hbeta without dust: case B, 10,000 K, 100 electrons per cm^3 (Osterbrock 1989)."
O3N2_RANGE = (-1.0, 1.9)
"Where O3N2 was calibrated; above, it says nothing of the metallicity (Pettini & Pagel 2004)."
QUIESCENT_EW = 1.0
"Equivalent width of Halpha below which there is no star formation to speak of, A."
_HALPHA, _HBETA = 6564.61, 4862.68
_TEXT = np.dtypes.StringDType()


class Flag(IntFlag):
    """What to know of a derived number."""

    FAINT = 1
    "A line is not seen at S/N 3, or was not measured: NaN."
    OUTSIDE = 2
    "Beyond the range that the calibration is valid in: NaN."
    NOT_STARS = 4
    "Above the curve of Kewley et al. 2001, where stars cannot ionise the gas: NaN."
    BELOW_CASE_B = 8
    "The decrement is below that of no dust: E(B-V) is negative, as noise makes it."


class Line(NamedTuple):
    """One emission line of N spectra."""

    flux: Floats
    "(N,) emission positive, any unit that the lines share."
    error: Floats
    "(N,) one standard deviation."

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,) whether it is there at S/N `FAINTEST`; not where there is no error."""
        return np.asarray(self.snr >= FAINTEST)

    @property
    def snr(self) -> Floats:
        """(N,) flux over error, NaN where either is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.flux / self.error, np.float64)


class Derived(NamedTuple):
    """A number that lines give."""

    value: Floats
    "(N,) NaN where it is not defined."
    error: Floats
    "(N,) one standard deviation of its own lines' noise."
    flag: NDArray[np.uint8]
    "(N,) bits of `Flag`."


class Lines(NamedTuple):
    """The four lines of the diagram of Baldwin, Phillips & Terlevich (1981)."""

    halpha: Line
    hbeta: Line
    oiii: Line
    "[OIII] 5007."
    nii: Line
    "[NII] 6584."

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,) whether all four are."""
        return np.asarray(np.logical_and.reduce([line.seen for line in self]))

    @property
    def place(self) -> tuple[Floats, Floats]:
        """log([NII]/Halpha) and log([OIII]/Hbeta); -inf where only the metal line is not there."""
        return _log(self.nii, self.halpha), _log(self.oiii, self.hbeta)


def above_kewley(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Whether places of the diagram are beyond all starbursts (Kewley et al. 2001, eq. 5)."""
    return _above(x, y, 0.47, 1.19)


def above_kauffmann(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Whether places of the diagram are off the star-forming sequence (Kauffmann et al. 2003)."""
    return _above(x, y, 0.05, 1.30)


def bpt(lines: Lines) -> Words:
    """star-forming, composite or AGN; unclassified where one of the four lines is not seen.

    Kauffmann et al. 2003 and Kewley et al. 2001 divide them; a place on a curve is below it.
    """
    x, y = lines.place
    return _first(
        (~lines.seen, "unclassified"),
        (above_kewley(x, y), "AGN"),
        (above_kauffmann(x, y), "composite"),
        rest="star-forming",
    )


def agn(lines: Lines) -> Words:
    """Seyfert or LINER where `bpt` says AGN, else empty (Schawinski et al. 2007)."""
    x, y = lines.place
    return _first((bpt(lines) != "AGN", ""), (y > 1.05 * x + 0.45, "Seyfert"), rest="LINER")


def scourfield(lines: Lines, quasar: NDArray[np.bool_], absorption: Floats) -> Words:
    """The five classes of Scourfield et al. 2023, section 2.

    Parameters
    ----------
    lines : Lines
        A metal line without flux counts as infinitely faint: only Halpha and Hbeta must be seen.
    quasar : (N,) bool
        What the survey's pipeline calls a QSO.
    absorption : (N,) float
        S/N of the Balmer absorption; where it is not known there is no class, unless the lines
        have given one.
    """
    emits = (lines.halpha.snr > FAINTEST) & (lines.hbeta.snr > FAINTEST)
    x, y = lines.place
    return _first(
        (quasar, "broad-line AGN"),
        (emits & (np.isnan(x) | np.isnan(y)), "unclassified"),
        (emits & above_kewley(x, y), "narrow-line AGN"),
        (emits, "emission-line"),
        (np.isnan(lines.halpha.snr) | np.isnan(lines.hbeta.snr), "unclassified"),
        (np.isnan(absorption), "unclassified"),
        (absorption > FAINTEST, "absorption"),
        rest="quiescent",
    )


def sharbaf(lines: Lines, halpha_ew: Floats) -> Words:
    """quiescent, star-forming or AGN, as Camilleri et al. 2025 colour them after Sharbaf et al.

    Quiescent: EW(Halpha) below `QUIESCENT_EW`, or Halpha or [NII] not seen. Star-forming: below
    the curve of Kauffmann; AGN: above that of Kewley. What is between has no class, nor has what
    [OIII] or Hbeta are too faint to place.
    """
    unknown = np.isnan(halpha_ew) | np.isnan(lines.halpha.snr) | np.isnan(lines.nii.snr)
    quiet = (halpha_ew < QUIESCENT_EW) | ~lines.halpha.seen | ~lines.nii.seen
    x, y = lines.place
    return _first(
        (unknown, "unclassified"),
        (quiet, "quiescent"),
        (~lines.seen, "unclassified"),
        (above_kewley(x, y), "AGN"),
        (above_kauffmann(x, y), "unclassified"),
        rest="star-forming",
    )


def metallicity(lines: Lines) -> Derived:
    """12 + log(O/H) by O3N2 (Pettini & Pagel 2004, eq. 3): 8.73 - 0.32 O3N2, for O3N2 of -1 to 1.9.

    O3N2 = log([OIII] 5007/Hbeta) - log([NII] 6584/Halpha). The error is of the lines alone; the
    calibration itself scatters by 0.14 dex.
    """
    x, y = lines.place
    with np.errstate(invalid="ignore"):
        o3n2 = y - x
        inside = (o3n2 > O3N2_RANGE[0]) & (o3n2 < O3N2_RANGE[1])
    return _derived(
        8.73 - 0.32 * o3n2,
        0.32 * _log_error(*lines),
        (~lines.seen, Flag.FAINT),
        (lines.seen & ~inside, Flag.OUTSIDE),
        (lines.seen & above_kewley(x, y), Flag.NOT_STARS),
    )


def decrement(halpha: Line, hbeta: Line) -> Derived:
    """Halpha over Hbeta."""
    value = 10 ** _log(halpha, hbeta)
    with np.errstate(invalid="ignore"):
        error = value * np.log(10) * _log_error(halpha, hbeta)
    return _derived(value, error, (~(halpha.seen & hbeta.seen), Flag.FAINT))


def reddening(halpha: Line, hbeta: Line, law: Law = "CCM89") -> Derived:
    """E(B-V) of the gas, mag, that turns `CASE_B` into the decrement, behind a screen of dust.

    Lines must be free of the Milky Way's own dust. R_V is 3.1. AGN have an intrinsic decrement of
    their own, near 3.1.
    """
    slope = 2.5 / _difference(law)
    log = _log(halpha, hbeta) - np.log10(CASE_B)
    dusty, seen = slope * log, halpha.seen & hbeta.seen
    return _derived(
        dusty,
        slope * _log_error(halpha, hbeta),
        (~seen, Flag.FAINT),
        (seen & (dusty < 0), Flag.BELOW_CASE_B),
    )


@cache
def _difference(law: Law) -> float:
    """A(Hbeta) - A(Halpha) in units of E(B-V)."""
    blue, red = curve(law, [_HBETA, _HALPHA])
    return float(blue - red)


def _above(x: Floats, y: Floats, asymptote: float, height: float) -> NDArray[np.bool_]:
    with np.errstate(divide="ignore", invalid="ignore"):
        # Right of its asymptote the hyperbola comes back from above, and divides nothing.
        return np.asarray((x >= asymptote) | (y > 0.61 / (x - asymptote) + height))


def _log(top: Line, bottom: Line) -> Floats:
    """log10 of a ratio; -inf where the upper line has no flux, NaN where the lower has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(bottom.flux > 0, np.maximum(top.flux, 0) / bottom.flux, np.nan)
        return np.asarray(np.log10(ratio), np.float64)


def _log_error(*lines: Line) -> Floats:
    """Error of the log10 of a product of powers 1 and -1 of lines."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(sum(line.snr**-2.0 for line in lines)) / np.log(10))


def _derived(value: Floats, error: Floats, *cases: tuple[NDArray[np.bool_], Flag]) -> Derived:
    flag = np.zeros(np.shape(value), np.uint8)
    for holds, bit in cases:
        flag |= holds * np.uint8(bit)
    lost = flag & np.uint8(Flag.FAINT | Flag.OUTSIDE | Flag.NOT_STARS) > 0
    return Derived(np.where(lost, np.nan, value), np.where(lost, np.nan, error), flag)


def _first(*cases: tuple[NDArray[np.bool_], str], rest: str) -> Words:
    """The word of the first case that holds."""
    words = np.full(np.shape(cases[0][0]), rest, _TEXT)
    for holds, word in reversed(cases):
        words[holds] = word
    return words
