"""FITS images compressed in tiles: rows of one, by astropy; and whether the tiles are all there."""

import io
import warnings
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits
from storage.fits_blocks import FitsError


def tile_of(header: bytes, image: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the tiles of an image of a shape, both as numpy has them; a line if not told.

    Raises
    ------
    FitsError
        It is no number.
    """
    usual = (*(1 for _ in image[1:]), *image[-1:])
    keys = [f"ZTILE{axis}" for axis in range(len(image), 0, -1)]
    told = [fits.value(header, key) or each for key, each in zip(keys, usual, strict=True)]
    try:
        return tuple(map(int, told))
    except ValueError:
        raise FitsError(f"{', '.join(keys)} are {told}, expected whole numbers") from None


def require_tiles(header: bytes, image: tuple[int, ...], rows: int, name: str) -> None:
    """Refuse a compressed image that has not one row for each tile: it would be filled with others.

    Raises
    ------
    FitsError
        Says how many there are.
    """
    tile = tile_of(header, image)
    if min(tile, default=1) < 1:
        raise FitsError(f"{name}: compressed in tiles of {tile} pixels")
    expected = prod(-(-size // of) for size, of in zip(image, tile, strict=True))
    if rows != expected:
        raise FitsError(f"{name}: compressed in {expected} tiles, and has {rows} rows of them")


def tiled_rows(content: bytes, first: int, last: int, name: str) -> NDArray[Any]:
    """Entries first:last of the slowest axis of the compressed image in extension 1 of a file.

    content : the file, its sizes checked; name : of the extension, for messages.

    Raises
    ------
    FitsError
        When astropy cannot unpack it.
    """
    from astropy.io import fits as astropy_fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*(may have been truncated|File may be)")
        try:
            with astropy_fits.open(io.BytesIO(content)) as hdus:
                found = np.asarray(hdus[1].section[first:last])
        # Garbage raises all kinds, and those of the decompressors in C have no public name.
        except Exception as error:
            raise FitsError(
                f"{name}: astropy cannot unpack it: {type(error).__name__}: {error}"
            ) from error
    return found.astype(found.dtype.newbyteorder("="), copy=False)
