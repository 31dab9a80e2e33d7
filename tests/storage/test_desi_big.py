"""DESI files larger than memory: rows of one are read without the others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from astropy.io import fits

from storage.readers import desi
from tests.storage import desi_mock as mock

ROWS = 10_500
MOST_MIB = 2048
READ = """
import json, resource, sys
from storage.readers import desi
limit = int(sys.argv[2]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
reader = desi.build()
sources = list(reader.find(sys.argv[1], "desi"))
ds = reader.read(sources[-1].part(sources[-1].rows - 3, sources[-1].rows), sys.argv[1], "desi")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({
    "sources": len(sources), "peak": peak, "row": ds["source_row"].values.tolist(),
    "flux": ds["flux"][:, 3000].values.tolist(), "reason": ds["reason"].values.tolist(),
}))
"""


def sparse(path: Path) -> int:
    """A file of full arms and many rows, of which the last one has data; its size in bytes."""
    size = {"B": (0, 2751), "R": (2700, 5026), "Z": (4900, 7781)}
    fits.HDUList([fits.PrimaryHDU(), mock.table("FIBERMAP", mock.fibermap(ROWS))]).writeto(path)
    with path.open("r+b") as file:
        file.seek(0, 2)
        for arm, (first, last) in size.items():
            wave = fits.ImageHDU(3600 + 0.8 * np.arange(first, last), name=f"{arm}_WAVELENGTH")
            file.write(_bytes(wave))
            for part, shape in (("FLUX", ()), ("IVAR", ()), ("RESOLUTION", (11,))):
                _hole(file, f"{arm}_{part}", (ROWS, *shape, last - first))
        file.truncate(file.tell())
    return path.stat().st_size


def _bytes(hdu: fits.ImageHDU) -> bytes:
    data = hdu.data.astype(">f8").tobytes()
    return hdu.header.tostring().encode() + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


def _hole(file: IO[bytes], name: str, shape: tuple[int, ...]) -> None:
    header = fits.Header([("XTENSION", "IMAGE"), ("BITPIX", -32), ("NAXIS", len(shape))])
    for number, axis in enumerate(shape[::-1], start=1):
        header[f"NAXIS{number}"] = axis
    header["PCOUNT"], header["GCOUNT"], header["EXTNAME"] = 0, 1, name
    if name.endswith("FLUX"):
        header["BUNIT"] = mock.FLUX_UNIT
    file.write(header.tostring().encode())
    size = 4 * int(np.prod(shape))
    file.seek(size - 4 * shape[-1], 1)
    file.write(np.full(shape[-1], 2, ">f4").tobytes())
    file.seek(-size % 2880, 1)


@pytest.mark.slow
def test_the_last_rows_of_a_file_larger_than_memory_are_read(tmp_path: Path) -> None:
    size = sparse(tmp_path / mock.NAME)
    assert size > 4 << 30
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), str(MOST_MIB)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert found["row"] == [ROWS - 3, ROWS - 2, ROWS - 1]
    assert found["flux"] == [0, 0, 2]
    assert "no pixel has ivar > 0" in found["reason"][0]
    assert found["sources"] == -(-ROWS // ((256 << 20) // (18 * desi.GRID.size)))
    assert found["peak"] < MOST_MIB // 4
