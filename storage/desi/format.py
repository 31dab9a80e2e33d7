"""Rows as DESI healpix files: `coadd-` or `spectra-`, and redrock's; for mocks.

Survey sv9 and a programme named after the rows: the same rows give the same files. Where two arms
overlap both hold the flux with half the ivar, so that joining them gives back what was written.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from storage import schema
from storage.border import NO_REDSHIFT
from storage.desi import resolution
from storage.desi.columns import STANDARD
from storage.fits import padded
from storage.fits_write import CARD, card, primary, table
from storage.grid import Grid
from storage.schema import ObjectType

ARMS = {"B": (3600.0, 5800.0), "R": (5760.0, 7620.0), "Z": (7520.0, 9824.0)}
"First and last pixel of the arms, vacuum A."
NSIDE = 64
"Of the healpix pixels in nested order, as DESI has them."

_DIAGONALS, _BLOCK = 11, 64
_FLUX = "10**-17 erg/(s cm2 Angstrom)"
_IVAR = "10**+34 (s2 cm4 Angstrom2) / erg2"

Columns = dict[str, NDArray[Any]]


def write(ds: xr.Dataset, root: str, exposures: bool, grid: Grid) -> list[str]:
    """Write rows as `root/PIXEL // 100/PIXEL/coadd-sv9-mock...-PIXEL.fits`; gives their paths.

    A target_id that is no whole number of 64 bits becomes one, its digest: the same text gives the
    same TARGETID; an empty one is that of the place. Names of observations are kept, in a column
    that DESI has not. A target that is there twice stands in two coadds. Mask bits are written
    where ivar is 0, the model is not. E(B-V) is float32: it comes back to 1e-7 of its value.

    Raises
    ------
    ValueError
        When a row has no position; no file is written then.
    """
    names = [*schema.SPECTRA, *(name for name in ("fiberstatus",) if name in ds)]
    columns = {name: ds[name].to_numpy() for name in names}
    pixel = _pixels(columns["ra"], columns["dec"])
    columns["target_id"] = _targets(columns)
    again = np.zeros(len(pixel), int) if exposures else _again(columns["target_id"])
    groups = sorted(set(zip(pixel.tolist(), again.tolist(), strict=True)))
    return [
        _save(root, number, _take(columns, (pixel == number) & (again == turn)), exposures, grid)
        for number, turn in groups
    ]


def _targets(columns: Columns) -> NDArray[np.int64]:
    """TARGETIDs; a row without a target_id is named by its place."""
    names = zip(*(columns[name] for name in ("target_id", "ra", "dec")), strict=True)
    return np.array([_target(str(name) or f"{ra:.5f}{dec:+.5f}") for name, ra, dec in names], "i8")


def _target(name: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,19}", name) and -(1 << 63) <= int(name) < 1 << 63:
        return int(name)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def _pixels(ra: NDArray[Any], dec: NDArray[Any]) -> NDArray[np.int64]:
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    lost = np.flatnonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90)))
    if lost.size:
        raise ValueError(
            f"rows {schema.summary(lost)} have no position; DESI files are named by it, "
            "write rows that have one"
        )
    found = lonlat_to_healpix(ra * units.deg, dec * units.deg, NSIDE, order="nested")
    return np.asarray(found, "i8")


def _again(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often a target was there before, for each row."""
    order = np.argsort(ids, kind="stable")
    _, begins, which = np.unique(ids[order], return_index=True, return_inverse=True)
    found = np.empty(len(ids), "i8")
    found[order] = np.arange(len(ids)) - begins[which]
    return found


def _take(columns: Columns, rows: NDArray[np.bool_]) -> Columns:
    return {name: column[rows] for name, column in columns.items()}


def _save(root: str, pixel: int, rows: Columns, exposures: bool, grid: Grid) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for name in ("target_id", "ra", "dec", "mjd", "flux", "ivar"):
        digest.update(rows[name].tobytes())
    kind = "spectra" if exposures else "coadd"
    name = f"sv9-mock{digest.hexdigest()}-{pixel}.fits"
    folder = Path(root, str(pixel // 100), str(pixel))
    folder.mkdir(parents=True, exist_ok=True)
    expid = int(digest.hexdigest(), 16) % 10**8
    path = folder / f"{kind}-{name}"
    _replace(folder / f"redrock-{name}", iter([primary([]), _redshifts(rows)]))
    _replace(path, _file(rows, pixel, expid if exposures else None, grid))
    return str(path)


def _replace(path: Path, content: Iterator[bytes]) -> None:
    whole = path.with_name(f".{path.name}.{os.getpid()}")
    with whole.open("wb") as file:
        file.writelines(content)
    whole.replace(path)


def _file(rows: Columns, pixel: int, expid: int | None, grid: Grid) -> Iterator[bytes]:
    cards = [card("SURVEY", "sv9"), card("PROGRAM", "mock"), card("SPGRP", "healpix")]
    cards += [card("HPXPIXEL", pixel), card("HPXNSIDE", NSIDE), card("HPXNEST", True)]
    yield primary(cards)
    yield table("FIBERMAP", _fibermap(rows, expid))
    if expid is None:
        yield table("EXP_FIBERMAP", _exposures(rows))
    parts = {name: _part(grid, edges) for name, edges in ARMS.items()}
    cover = np.zeros(grid.size, "f4")
    for part in parts.values():
        cover[part] += 1
    n = len(rows["flux"])
    for name, part in parts.items():
        wave, lsf = grid.wavelength[part], rows["lsf"][:, part]
        ivar = rows["ivar"][:, part]
        bits = np.where(ivar > 0, 0, rows["mask"][:, part]).astype("u4")
        yield _image(f"{name}_WAVELENGTH", wave.astype(">f8"), "Angstrom")
        yield _image(f"{name}_FLUX", rows["flux"][:, part].astype(">f4"), _FLUX)
        yield _image(f"{name}_IVAR", (ivar / cover[part]).astype(">f4"), _IVAR)
        # The sign bit is turned: so FITS stores unsigned numbers.
        yield _image(f"{name}_MASK", (bits ^ np.uint32(1 << 31)).view("i4").astype(">i4"), "", True)
        yield from _resolution(f"{name}_RESOLUTION", lsf, n)


def _part(grid: Grid, edges: tuple[float, float]) -> slice:
    first, last = np.rint(grid.pixel(edges)).astype(int)
    return slice(int(first), int(last) + 1)


def _resolution(name: str, lsf: NDArray[Any], n: int) -> Iterator[bytes]:
    # In blocks: the matrix is twelve times as large as the flux.
    shape = (n, _DIAGONALS, lsf.shape[1])
    yield _header(name, shape, -32, [])
    for start in range(0, n, _BLOCK):
        block = resolution.gaussian(lsf[start : start + _BLOCK].astype("f4"), _DIAGONALS)
        yield block.astype(">f4").tobytes()
    size = 4 * n * _DIAGONALS * lsf.shape[1]
    yield b"\0" * (padded(size) - size)


def _image(name: str, pixels: NDArray[Any], unit: str, unsigned: bool = False) -> bytes:
    bitpix = pixels.dtype.itemsize * (-8 if pixels.dtype.kind == "f" else 8)
    cards = [card("BUNIT", unit)] if unit else []
    if unsigned:
        cards += [card("BSCALE", 1), card("BZERO", 1 << 31)]
    content = pixels.tobytes()
    return _header(name, pixels.shape, bitpix, cards) + content.ljust(padded(len(content)), b"\0")


def _header(name: str, shape: tuple[int, ...], bitpix: int, cards: list[bytes]) -> bytes:
    axes = [card(f"NAXIS{number}", size) for number, size in enumerate(shape[::-1], start=1)]
    lines = [
        *(card("XTENSION", "IMAGE"), card("BITPIX", bitpix), card("NAXIS", len(shape)), *axes),
        *(card("PCOUNT", 0), card("GCOUNT", 1), card("EXTNAME", name), *cards),
    ]
    content = b"".join(lines) + b"END".ljust(CARD)
    return content.ljust(padded(len(content)))


def _fibermap(rows: Columns, expid: int | None) -> NDArray[np.void]:
    sky = rows["object_type"] == ObjectType.SKY
    standard = rows["object_type"] == ObjectType.STANDARD
    n = len(sky)
    known = rows["ebv_known"] > 0
    status = rows.get("fiberstatus", np.zeros(n, "i4"))
    columns = {
        "TARGETID": rows["target_id"].astype(">i8"),
        ("COADD_FIBERSTATUS" if expid is None else "FIBERSTATUS"): status.astype(">i4"),
        "TARGET_RA": rows["ra"].astype(">f8"),
        "TARGET_DEC": rows["dec"].astype(">f8"),
        "FIBER": np.arange(n, dtype=">i4"),
        "OBSERVATION": _bytes(rows["observation"], 1),
        "OBJTYPE": np.where(sky, b"SKY", b"TGT").astype("S3"),
        "EBV": np.where(known, rows["ebv"], np.nan).astype(">f4"),
        "DESI_TARGET": np.where(standard, STANDARD & -STANDARD, 0).astype(">i8"),
        ("MEAN_MJD" if expid is None else "MJD"): rows["mjd"].astype(">f8"),
    }
    if expid is not None:
        columns["EXPID"] = np.full(n, expid, ">i4")
    return _rows(columns)


def _exposures(rows: Columns) -> NDArray[np.void]:
    ids, mjd = rows["target_id"].astype(">i8"), rows["mjd"].astype(">f8")
    return _rows({"TARGETID": ids, "MJD": mjd})


def _redshifts(rows: Columns) -> bytes:
    # One row a target, the first, as redrock fits all exposures of a target at once.
    first = np.sort(np.unique(rows["target_id"], return_index=True)[1])
    names = ("target_id", "z", "z_err", "zwarn", "class", "subclass", "vdisp")
    rows = {name: rows[name][first] for name in names}
    columns = {
        "TARGETID": rows["target_id"].astype(">i8"),
        "Z": rows["z"].astype(">f8"),
        "ZERR": rows["z_err"].astype(">f8"),
        "ZWARN": np.where(np.isnan(rows["z"]), NO_REDSHIFT, rows["zwarn"]).astype(">i8"),
        "SPECTYPE": _bytes(rows["class"], 6),
        "SUBTYPE": _bytes(rows["subclass"], 20),
        # Not redrock's: mocks know it.
        "VDISP": rows["vdisp"].astype(">f4"),
    }
    return table("REDSHIFTS", _rows(columns))


def _bytes(texts: NDArray[Any], least: int) -> NDArray[np.bytes_]:
    found = np.array([str(text).encode("ascii", "replace") for text in texts], "S")
    return found.astype(f"S{max(least, found.dtype.itemsize)}")


def _rows(columns: dict[str, NDArray[Any]]) -> NDArray[np.void]:
    kinds = [(name, column.dtype) for name, column in columns.items()]
    found = np.zeros(len(next(iter(columns.values()))), kinds)
    for name, column in columns.items():
        found[name] = column
    return found
