"""The emission lines that are measured, with what ties them to each other.

Wavelengths are of vacuum: those of the SDSS line table (linestable of DR6), which are NIST's;
[NeIII], HeI and HeII from NIST. Fixed ratios are of lines that leave one upper level, and so
follow from atomic physics: [OIII] and [NII] of Storey & Zeippen (2000), [OI] and [NeIII] of
Osterbrock & Ferland (2006).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["balmer", "forbidden", "helium"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One emission line."""

    name: str
    "As columns of products carry it, such as OIII5007: the wavelength in a name is of air."
    wavelength: float
    "Rest frame, vacuum A."
    kind: Kind
    "Balmer and helium lines share their velocity and width, and so do forbidden ones."
    tie: tuple[str, float] | None = None
    "The line whose flux, times a ratio, is the flux of this one; None: it is free."


def _line(
    name: str, wavelength: float, kind: Kind = "forbidden", tie: tuple[str, float] | None = None
) -> Line:
    return Line(name=name, wavelength=wavelength, kind=kind, tie=tie)


LINES: tuple[Line, ...] = (
    _line("OII3726", 3727.092),
    _line("OII3729", 3729.875),
    _line("NeIII3869", 3869.860),
    _line("NeIII3968", 3968.590, tie=("NeIII3869", 1 / 3.32)),
    _line("Hepsilon", 3971.195, "balmer"),
    _line("Hdelta", 4102.892, "balmer"),
    _line("Hgamma", 4341.684, "balmer"),
    _line("OIII4363", 4364.436),
    _line("HeII4686", 4687.015, "helium"),
    _line("Hbeta", 4862.683, "balmer"),
    _line("OIII4959", 4960.295, tie=("OIII5007", 1 / 2.98)),
    _line("OIII5007", 5008.240),
    _line("HeI5876", 5877.249, "helium"),
    _line("OI6300", 6302.046),
    _line("OI6364", 6365.536, tie=("OI6300", 1 / 3)),
    _line("NII6548", 6549.860, tie=("NII6584", 1 / 3.05)),
    _line("Halpha", 6564.614, "balmer"),
    _line("NII6584", 6585.268),
    _line("SII6716", 6718.294),
    _line("SII6731", 6732.674),
)
"In the order of every array that has a line axis."


def names() -> list[str]:
    """Names of the lines, in their order."""
    return [line.name for line in LINES]


@lru_cache(maxsize=1)
def _numbers() -> dict[str, int]:
    return {line.name: number for number, line in enumerate(LINES)}


def number(name: str) -> int:
    """Place of a line on the line axis.

    Raises
    ------
    ValueError
        When there is no line of that name.
    """
    if name not in _numbers():
        raise ValueError(f"no emission line {name!r}; there are {', '.join(names())}")
    return _numbers()[name]
