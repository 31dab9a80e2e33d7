"""Spectra in the form of WEAVE's L1 and L2 files: for mocks.

One stack of an arm: counts, their ivar and a sensitivity, on the grid of the configuration and in
vacuum, and an L2 file with the redshifts. Columns that begin with MOCK_ are ours alone.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage.fits import padded
from storage.fits_write import CARD, card, primary, table
from storage.grid import Grid
from storage.schema import ObjectType
from storage.weave.table import MOCK, MOCKED

Values = dict[str, NDArray[Any]]

_GRATINGS = {"lr": "LowRes", "hr": "HighRes1"}
_USES = {ObjectType.SCIENCE: "T", ObjectType.SKY: "S", ObjectType.STANDARD: "C"}
_HOUSE = 1e-17
_STEP_ROWS = 64


def write(ds: xr.Dataset, root: str, config: str, grid: Grid) -> list[str]:
    """Write rows as `root/stack_<run>.fit` and `root/stack_<run>_APS.fits`; gives the paths.

    The run is a digest of the configuration and the observations: the same rows have the same
    file, with the same bytes. Redshifts are float64 there.

    Raises
    ------
    ValueError
        When the dataset is on another grid, or an observation is there twice.
    """
    if not np.array_equal(ds["wavelength"].to_numpy(), grid.wavelength):
        raise ValueError(f"the spectra are not on the grid of {config}; rebin them first")
    columns: Values = {str(name): variable.to_numpy() for name, variable in ds.data_vars.items()}
    names = [str(name) for name in columns["observation"]]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"observation {twice!r} is there twice; one fibre sees one target")
    run = _run(config, names)
    stack = Path(root, f"stack_{run}.fit")
    Path(root).mkdir(parents=True, exist_ok=True)
    _save(stack, _stack(columns, run, config, grid))
    results = stack.with_name(f"stack_{run}_APS.fits")
    _save(results, _results(columns, stack.name, config))
    return [str(stack), str(results)]


def _run(config: str, names: list[str]) -> str:
    digest = hashlib.blake2b("\n".join([config, *names]).encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % 10**12:012d}"


def _save(path: Path, pieces: Iterator[bytes]) -> None:
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    with whole.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    whole.replace(path)


def _stack(columns: Values, run: str, config: str, grid: Grid) -> Iterator[bytes]:
    _, resolution, arm = config.split("-")
    camera = "BLUE" if arm == "green" else arm.upper()
    grating = "HighRes2" if arm == "green" else _GRATINGS[resolution]
    yield primary(
        [
            *(card("RUN", int(run)), card("OBSMODE", "MOS"), card("CAMERA", f"WEAVE{camera}")),
            *(card("VPH", grating), card("MODE", "LOWRES" if resolution == "lr" else "HIGHRES")),
            *(card("CCDXBIN", 1), card("MJD-OBS", float(columns["mjd"].min()))),
        ]
    )
    bright = _sensitivity(grid)
    counts = columns["flux"], lambda flux: flux / (bright / _HOUSE)
    weight = columns["ivar"], lambda ivar: ivar * (bright / _HOUSE) ** 2
    same = columns["flux"], lambda flux: np.broadcast_to(bright, flux.shape)
    for name, unit, (values, change) in (
        ("DATA", "ADU", counts),
        ("IVAR", "ADU**-2", weight),
        ("SENSFUNC", "erg s-1 cm-2 Angstrom-1 adu-1", same),
    ):
        yield _header(f"{camera}_{name}", unit, values.shape, grid)
        for first in range(0, len(values), _STEP_ROWS):
            yield (
                change(values[first : first + _STEP_ROWS].astype(np.float64))
                .astype(">f4")
                .tobytes()
            )
        yield b"\0" * (padded(4 * values.size) - 4 * values.size)
    yield table("FIBTABLE", _fibres(columns))


def _sensitivity(grid: Grid) -> NDArray[np.float64]:
    """Flux of a count: least in the middle of an arm; (pixel,), exact in float32."""
    place = np.linspace(-1, 1, grid.size)
    return ((1 + place**2) * _HOUSE).astype(np.float32).astype(np.float64)


def _header(name: str, unit: str, shape: tuple[int, ...], grid: Grid) -> bytes:
    cards = [
        *(card("XTENSION", "IMAGE", "image extension"), card("BITPIX", -32), card("NAXIS", 2)),
        *(card("NAXIS1", shape[1]), card("NAXIS2", shape[0])),
        *(card("PCOUNT", 0), card("GCOUNT", 1), card("EXTNAME", name), card("BUNIT", unit)),
        *(card("CTYPE1", "WAVE"), card("CUNIT1", "Angstrom"), card("CRPIX1", 1.0)),
        *(card("CRVAL1", grid.start), card("CD1_1", grid.step)),
        b"END".ljust(CARD),
    ]
    content = b"".join(cards)
    return content.ljust(padded(len(content)))


def _fibres(columns: Values) -> NDArray[np.void]:
    n = len(columns["flux"])
    found: Values = {
        "FIBREID": np.arange(1, n + 1).astype(">i4"),
        "CNAME": _bytes(columns["target_id"]),
        "STATUS": np.full(n, b"A"),
        "TARGRA": columns["ra"].astype(">f8"),
        "TARGDEC": columns["dec"].astype(">f8"),
        "TARGUSE": _bytes([_USES[ObjectType(kind)] for kind in columns["object_type"]]),
        "NSPEC": np.arange(1, n + 1).astype(">i4"),
    }
    for name in MOCKED:
        values = columns[name]
        text = name == "observation"
        found[f"{MOCK}{name.upper()}"] = _bytes(values) if text else values.astype(">f8")
    return _structured(found)


def _results(columns: Values, stack: str, config: str) -> Iterator[bytes]:
    arm = config.rsplit("-", 1)[1][0].upper()
    yield primary([card(f"L1_REF_{arm}", stack)])
    yield table(
        "CLASS_TABLE",
        _structured(
            {
                "APS_ID": np.arange(1, len(columns["z"]) + 1).astype(">i4"),
                "CNAME": _bytes(columns["target_id"]),
                "Z": columns["z"].astype(">f8"),
                "ZERR": columns["z_err"].astype(">f8"),
                "ZWARN": columns["zwarn"].astype(">i4"),
                "CLASS": _bytes(columns["class"]),
                "SUBCLASS": _bytes(columns["subclass"]),
            }
        ),
    )


def _bytes(values: Any) -> NDArray[Any]:
    found = np.array([str(value).encode("ascii", "replace") for value in values])
    # A column of no characters is none to many a reader.
    return found.astype(f"S{max(found.dtype.itemsize, 1)}")


def _structured(columns: Values) -> NDArray[np.void]:
    rows = np.zeros(
        len(next(iter(columns.values()))), [(name, array.dtype) for name, array in columns.items()]
    )
    for name, array in columns.items():
        rows[name] = array
    return rows
