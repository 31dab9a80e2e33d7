"""FITS images compressed in tiles: rows of one, by astropy."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.fits import FitsError


def tiled_rows(content: bytes, first: int, last: int, name: str) -> NDArray[Any]:
    """Entries first:last of the slowest axis of the compressed image in extension 1 of a file.

    content : the file, its sizes checked; name : of the extension, for messages.

    Raises
    ------
    FitsError
        When astropy cannot unpack it.
    """
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", ".*(may have been truncated|File may be)")
        try:
            with fits.open(io.BytesIO(content)) as hdus:
                found = np.asarray(hdus[1].section[first:last])
        # Garbage raises all kinds, and those of the decompressors in C have no public name.
        except Exception as error:
            raise FitsError(
                f"{name}: astropy cannot unpack it: {type(error).__name__}: {error}"
            ) from error
    return found.astype(found.dtype.newbyteorder("="), copy=False)
