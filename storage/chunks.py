"""How a variable is cut into chunks and packed."""

from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

CODECS = (BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
"How a chunk is packed: of what is lossless, zstd saves 3 % more and takes twice the time."

CHUNK_ROWS = 512
"Rows of one chunk of a (spectrum, pixel) array."
COLUMN_ROWS = 65_536
"Rows of one chunk of a column, so that a column query is fast."
WORKER_DIMS = frozenset({"wavelength", "latent"})
"Arrays with one of these axes are written by workers, in blocks; all others by the coordinator."


def make_array(
    group: zarr.Group, name: str, variable: xr.Variable, chunk_rows: int
) -> zarr.Array[Any]:
    """An array of the variable's shape; its values are not written."""
    axes = [str(dim) for dim in variable.dims]
    rows = chunk_rows if WORKER_DIMS & set(axes) else COLUMN_ROWS
    return group.create_array(
        name,
        shape=variable.shape,
        chunks=tuple(rows if d == "spectrum" else max(n, 1) for d, n in variable.sizes.items()),
        dtype=str if variable.dtype.kind == "T" else variable.dtype,
        compressors=CODECS,
        dimension_names=axes,
        attributes=dict(variable.attrs),
        fill_value=_fill(variable),
    )


def _fill(variable: xr.Variable) -> Any:
    if variable.dtype.kind == "T":
        return ""
    # A pixel that is missing is 0, with an ivar of 0; a number that is missing is none.
    column = variable.dtype.kind == "f" and not WORKER_DIMS & set(variable.dims)
    lacking = np.nan if column else 0
    return variable.dtype.type(lacking)
