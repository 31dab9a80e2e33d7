"""The wavelengths of WEAVE spectra, and the way onto a vacuum grid.

Files have even steps in A, in air or in vacuum. The pixels of a vacuum grid have edges in air that
are not even: flux is taken between those, exactly, so that none is lost.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.border import RefusedError
from storage.fits_scan import Hdu
from storage.grid import Float, Grid, vacuum_to_air
from storage.schema import Reason

if TYPE_CHECKING:
    from storage.resample import Rebinner

Medium = Literal["air", "vacuum"]
Single = NDArray[np.float32]

_OFF_GRID = 0.01
"How far from a grid's pixels those of a file may lie to be the same; pixels."
_CTYPES: dict[str, Medium] = {"AWAV": "air", "WAVE": "vacuum"}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Pixels of a file."""

    grid: Grid
    "Their centres, in the medium of the file, whatever `Grid` says of itself; A."
    medium: Medium
    "What they are measured in."

    @property
    def ends(self) -> tuple[float, float]:
        """First and last pixel centre, A, in its own medium."""
        return float(self.grid.wavelength[0]), float(self.grid.wavelength[-1])


def axis_of(hdu: Hdu, medium: Medium | None) -> Axis:
    """The wavelengths of an image: CRVAL1 + CD1_1 (number of the pixel - CRPIX1).

    Parameters
    ----------
    medium
        What the card says of it; CTYPE1 is asked when None.

    Raises
    ------
    RefusedError
        When a card is missing or absurd, or nobody says whether it is air or vacuum.
    """
    kind = (hdu.value("CTYPE1") or "").strip().upper()[:4]
    found = medium or _CTYPES.get(kind)
    if found is None:
        raise _refused(
            f"CTYPE1 of {hdu.name} is {hdu.value('CTYPE1')!r}, which says neither air (AWAV) nor "
            "vacuum (WAVE); set survey.options.medium to 'air' or 'vacuum' (the survey's own L2 "
            "software takes these files to be in air)"
        )
    scale = _angstroms(hdu)
    first, step, pixel = (
        _number(hdu, *keys) for keys in (("CRVAL1",), ("CD1_1", "CDELT1"), ("CRPIX1", "1"))
    )
    start, step = scale * (first + step * (1 - pixel)), scale * step
    size = hdu.image[-1] if hdu.image else 0
    if not (step > 0 and start > 1000 and size and start + step * size < 30000):
        raise _refused(
            f"{hdu.name} has {size} pixels from {start:g} A in steps of {step:g} A; expected 3000 "
            "to 10000 A, ascending; correct its header"
        )
    return Axis(grid=Grid(kind="linear", start=start, step=step, size=size), medium=found)


def _number(hdu: Hdu, key: str, other: str = "") -> float:
    text = hdu.value(key)
    if text is None and other:
        text = other if other.isdigit() else hdu.value(other)
    try:
        return float((text or "").replace("D", "E"))
    except ValueError:
        raise _refused(
            f"{key} of {hdu.name} is {text!r}, expected a number; correct its header"
        ) from None


def _angstroms(hdu: Hdu) -> float:
    from astropy import units

    text = (hdu.value("CUNIT1") or "").strip() or "Angstrom"
    try:
        # "Angstroms" and "ANGSTROM" are no FITS, and written all the same.
        word = "Angstrom" if text.upper().rstrip("S") == "ANGSTROM" else text
        return float(units.Unit(word).to(units.AA))
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(
            f"CUNIT1 of {hdu.name} is {text!r}, no unit of length: {error}; correct its header"
        ) from error


def _refused(words: str) -> RefusedError:
    return RefusedError(Reason.BAD_GRID, words)


def require_overlap(axis: Axis, grid: Grid, config: str) -> None:
    """Refuse wavelengths that share nothing with the grid.

    Raises
    ------
    RefusedError
        Says both ranges.
    """
    first, last = axis.ends
    if last < grid.wavelength[0] or first > grid.wavelength[-1]:
        raise _refused(
            f"{first:.1f} to {last:.1f} A has nothing of {config}, {grid.wavelength[0]:.0f} to "
            f"{grid.wavelength[-1]:.0f} A; correct the header's VPH and CRVAL1, or leave it out"
        )


def onto(axis: Axis, grid: Grid, flux: Single, ivar: Single) -> tuple[Single, Single]:
    """Spectra (N, L) of a file on a vacuum grid, (N, P); ivar is 0 beyond the ends of the file.

    Notes
    -----
    Pixels that are the grid's are copied. Others are rebinned: flux is conserved, neighbours
    become correlated, and ivar is that of sums over pixels (`storage.resample.Rebinner`, smooth):
    a sum, a mean or a fit over pixels that takes them for independent has the right error, while
    single pixels scatter less than ivar says, by up to a factor of 2 in variance.
    """
    first = _first(axis, grid)
    if first is None:
        return _rebinned(axis, grid, flux, ivar)
    found = np.zeros((2, len(flux), grid.size), np.float32)
    here = slice(max(first, 0), min(first + axis.grid.size, grid.size))
    there = slice(here.start - first, here.stop - first)
    found[0, :, here], found[1, :, here] = flux[:, there], ivar[:, there]
    return found[0], found[1]


def _first(axis: Axis, grid: Grid) -> int | None:
    """The pixel of the grid that the file's first one is; None where its pixels are others."""
    if axis.medium == "air":
        return None
    first, last = grid.pixel(axis.ends)
    start = round(float(first))
    off = max(abs(first - start), abs(last - start - (axis.grid.size - 1)))
    return start if off <= _OFF_GRID else None


class _InAir(Grid):
    """A vacuum grid whose pixels are told by where they begin and end in air."""

    @cached_property
    def edges(self) -> Float:
        """Pixel edges, (L + 1,), air A."""
        return vacuum_to_air(self._unscaled(np.arange(self.size + 1) - 0.5))


def _rebinned(axis: Axis, grid: Grid, flux: Single, ivar: Single) -> tuple[Single, Single]:
    import torch

    rebin, shrunk = _rebinner(axis.grid, grid, axis.medium)
    found = rebin(
        torch.from_numpy(flux), torch.from_numpy(ivar), torch.ones(len(flux)).double(), smooth=True
    )
    return found.flux.numpy() * shrunk, found.ivar.numpy() / shrunk**2


@lru_cache(maxsize=8)
def _rebinner(source: Grid, target: Grid, medium: Medium) -> tuple["Rebinner", NDArray[Any]]:
    """The rebinner, and the width of target pixels in the file's medium over that in vacuum."""
    from storage.resample import Rebinner

    if medium == "vacuum":
        return Rebinner(source, target), np.ones(1, np.float32)
    inside = _InAir(**target.model_dump())
    return Rebinner(source, inside), (inside.widths / target.widths).astype(np.float32)
