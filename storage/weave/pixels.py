"""Flux and ivar of WEAVE spectra: counts, sensitivity, and what is not data."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.border import RefusedError, single
from storage.fits_scan import Hdu, rows
from storage.schema import Reason

Single = NDArray[np.float32]

STEP_ROWS = 128
"Spectra that are read at once: temporary arrays stay small."
_GAP = 16
"Rows between two wanted ones that are read along, instead of seeking."


@dataclass(frozen=True, kw_only=True)
class Images:
    """The three images of an arm, of one shape."""

    path: str
    "The file, without gzip."
    data: Hdu
    "Counts, (fibre, pixel) or (pixel,)."
    ivar: Hdu
    "Inverse variance of the counts, as `data`."
    sensitivity: Hdu
    "Flux of a count, as `data` or (pixel,)."
    scale: float
    "Of counts x sensitivity, to the house unit."

    def __post_init__(self) -> None:
        shape = self.data.image
        if (
            len(shape) not in (1, 2)
            or self.ivar.image != shape
            or self.sensitivity.image not in (shape, shape[-1:], (1, *shape[-1:]))
        ):
            raise RefusedError(
                Reason.BAD_GRID,
                f"{self.data.name} is {shape}, {self.ivar.name} {self.ivar.image}, "
                f"{self.sensitivity.name} {self.sensitivity.image}; expected (fibre, pixel) of "
                "both, and of the last or (pixel,); fetch the file again, or leave a cube out",
            )

    @property
    def count(self) -> int:
        """Number of spectra."""
        return self.data.image[0] if len(self.data.image) == 2 else 1

    @property
    def step(self) -> int:
        """How many spectra to read at once; compressed images are unpacked each time."""
        packed = any(hdu.compressed for hdu in (self.data, self.ivar, self.sensitivity))
        return self.count if packed else STEP_ROWS

    def read(self, wanted: NDArray[np.int64]) -> tuple[Single, Single]:
        """Flux and ivar (n, L) of rows of the images, in house units.

        flux = DATA x SENSFUNC and ivar = IVAR / SENSFUNC^2. Where SENSFUNC is not above 0, or
        IVAR is 0, there is no data. A negative IVAR stays negative, NaN stays NaN: others judge.
        """
        with np.errstate(all="ignore"):
            counts, weight = (_some(self.path, hdu, wanted) for hdu in (self.data, self.ivar))
            bright = self._sensitivity(wanted)
            blind = ~(bright > 0) | ~np.isfinite(bright) | (weight == 0)
            bright = np.where(blind, 1, bright * self.scale)
            flux = np.where(blind, 0, counts * bright)
            ivar = np.where(blind, 0, weight / bright**2)
            return single(flux), single(ivar)

    def _sensitivity(self, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
        own = self.sensitivity.image == self.data.image
        lines = wanted if own else np.zeros(1, np.int64)
        # In cgs it is about 1e-17: float32 holds that, its square not.
        return np.asarray(_some(self.path, self.sensitivity, lines), np.float64)


def _some(path: str, hdu: Hdu, wanted: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of an image, in any order; near ones are read in one piece."""
    if len(hdu.image) == 1:
        return rows(path, hdu, 0, hdu.image[0])[None]
    ordered, inverse = np.unique(wanted, return_inverse=True)
    if hdu.compressed:
        pieces = [ordered]
    else:
        pieces = np.split(ordered, np.flatnonzero(np.diff(ordered) > _GAP) + 1)
    found = [
        rows(path, hdu, int(piece[0]), int(piece[-1]) + 1)[piece - piece[0]]
        for piece in pieces
        if piece.size
    ]
    return np.concatenate(found)[inverse]
