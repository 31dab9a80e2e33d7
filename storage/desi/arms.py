"""The arms B, R, Z of DESI spectra, joined on one grid.

Pixels of the arms lie on the common grid already, nothing is resampled: where two arms overlap,
flux is the mean weighted by ivar, and ivar the sum. A pixel with a mask bit has ivar 0 in its arm.
The joined mask tells why a pixel has no data: the bits of its arms where none is good, else 0.

Axes: N spectra, K diagonals, L pixels of the grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import fits_scan
from storage.border import RefusedError, single
from storage.desi import resolution as desi_resolution
from storage.desi.units import angstroms, flux_scale, ivar_scale
from storage.fits import FitsError
from storage.fits_scan import Hdu
from storage.grid import Grid
from storage.schema import Reason

BLOCK = 64
"Spectra joined at once: their resolution fits the cache of a core better than all of a file."
_OFF_GRID = 0.01  # pixels; the files are off by 1e-9
_PARTS = ("WAVELENGTH", "FLUX", "IVAR", "MASK", "RESOLUTION")
_MOST_LSF = 100.0  # pixels; above is no line spread

Values = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of a file."""

    first: int
    "Its first pixel on the grid."
    parts: dict[str, Hdu]
    "By the second half of their names; MASK may be missing."
    scale: tuple[float, float]
    "What flux and ivar are multiplied by, for house units."


def find(path: str, hdus: tuple[Hdu, ...], grid: Grid, rows: int) -> tuple[Arm, ...]:
    """The arms of a file, each complete and with that many rows.

    Raises
    ------
    RefusedError
        An extension is missing, wavelengths are off the grid, or units are wrong.
    FitsError
        Sizes do not agree, or wavelengths cannot be read.
    """
    named = {hdu.name: hdu for hdu in hdus}
    ends = [name.rpartition("_") for name in named]
    names = sorted({arm for arm, _, part in ends if arm and part in _PARTS})
    wanted = [f"{arm}_{part}" for arm in names or ("B", "R", "Z") for part in _PARTS]
    missing = [name for name in wanted if name not in named and not name.endswith("_MASK")]
    if missing:
        raise RefusedError(
            Reason.MISSING_HDU, f"no extension {', '.join(missing)}; fetch the file again"
        )
    return tuple(
        _arm(
            path,
            {part: named[f"{arm}_{part}"] for part in _PARTS if f"{arm}_{part}" in named},
            grid,
            rows,
        )
        for arm in names
    )


def _arm(path: str, parts: dict[str, Hdu], grid: Grid, rows: int) -> Arm:
    wave, flux = parts["WAVELENGTH"], parts["FLUX"]
    if len(wave.image) != 1 or len(flux.image) != 2:
        raise FitsError(f"{flux.name} has axes {flux.image}, {wave.name} {wave.image}")
    n, size = flux.image
    if n != rows:
        raise FitsError(f"{flux.name} has {n} rows, {rows} were expected as in FIBERMAP")
    resolution = parts["RESOLUTION"].image
    # An even number of diagonals has no middle.
    diagonals = resolution[1] if len(resolution) == 3 and resolution[1] % 2 else 11
    expected = {
        **{"WAVELENGTH": (size,), "IVAR": (n, size), "MASK": (n, size)},
        "RESOLUTION": (n, diagonals, size),
    }
    for part, shape in expected.items():
        if part in parts and parts[part].image != shape:
            raise FitsError(
                f"{parts[part].name} has axes {parts[part].image}, expected {shape} as {flux.name}"
            )
    for part, hdu in parts.items():
        if (_is_integer(hdu)) != (part == "MASK"):
            kind = "whole numbers" if part == "MASK" else "floats"
            raise FitsError(f"{hdu.name} has BITPIX {_bitpix(hdu)}, expected {kind}")
    if _bitpix(flux) != _bitpix(parts["IVAR"]):
        both = f"{_bitpix(flux)} and {_bitpix(parts['IVAR'])}"
        raise FitsError(f"{flux.name} and {parts['IVAR'].name} have BITPIX {both}, not the same")
    scale = flux_scale(flux.value("BUNIT"), flux.name)
    return Arm(
        first=_first(path, wave, grid),
        parts=parts,
        scale=(scale, ivar_scale(parts["IVAR"].value("BUNIT"), parts["IVAR"].name, scale)),
    )


def _bitpix(hdu: Hdu) -> str:
    return hdu.value("ZBITPIX" if hdu.compressed else "BITPIX") or ""


def _is_integer(hdu: Hdu) -> bool:
    return not _bitpix(hdu).startswith("-")


def _first(path: str, wave: Hdu, grid: Grid) -> int:
    """Where an arm begins on the grid."""
    if not 0 < wave.image[0] <= grid.size:
        raise RefusedError(
            Reason.BAD_GRID,
            f"{wave.name} has {wave.image[0]} pixels, the grid {grid.size}; "
            "use a configuration that covers it",
        )
    centre = fits_scan.rows(path, wave, 0, wave.image[0])
    pixel = grid.pixel(centre * angstroms(wave.value("BUNIT"), wave.name))
    first = int(np.rint(pixel[0])) if np.isfinite(pixel[0]) and abs(pixel[0]) < 1e6 else -1
    off = float(np.abs(pixel - (first + np.arange(pixel.size))).max())
    if first < 0 or first + pixel.size > grid.size or not off <= _OFF_GRID:
        raise RefusedError(
            Reason.BAD_GRID,
            f"{wave.name}, {centre[0]:.2f} to {centre[-1]:.2f}, is off the grid of "
            f"{grid.wavelength[0]:.1f} to {grid.wavelength[-1]:.1f} A by {grid.step} A, by up to "
            f"{off:.3g} pixel, at most {_OFF_GRID} is allowed; rebin it, or read it with a reader "
            "of your own",
        )
    return first


def join(
    path: str, arms: tuple[Arm, ...], rows: range, grid: Grid, diagonals: int
) -> Iterator[tuple[int, Values]]:
    """Joined spectra of some rows of a file in blocks: where a block begins in rows, and values.

    diagonals : how many the variable ``resolution`` has; 0 gives none.

    Raises
    ------
    RefusedError
        When a file has more diagonals than are wanted.
    FitsError
        When rows cannot be read.
    """
    # At once, 66 MB at most: to unpack some tiles astropy needs the bytes of all.
    masks = [_mask(path, arm, rows) for arm in arms]
    for start in range(0, len(rows), BLOCK):
        some = slice(start, start + BLOCK)
        bits = [mask[some] for mask in masks]
        yield start, _joined(path, arms, rows[some], bits, grid, diagonals)


def _joined(
    path: str,
    arms: tuple[Arm, ...],
    rows: range,
    masks: list[NDArray[Any]],
    grid: Grid,
    diagonals: int,
) -> Values:
    shape = (len(rows), grid.size)
    spectra = [
        (_part(arm), *_pixels(path, arm, rows), mask) for arm, mask in zip(arms, masks, strict=True)
    ]
    ivar, bits = np.zeros(shape, "f4"), np.zeros(shape, "u4")
    torn, negative = np.zeros(shape, bool), np.zeros(shape, "f4")
    for part, flux, weight, mask in spectra:
        good = np.isfinite(flux) & np.isfinite(weight)
        torn[:, part] |= ~good & (mask == 0)
        negative[:, part] = np.minimum(negative[:, part], np.where(good, weight, 0))
        weight[~(good & (weight > 0) & (mask == 0))] = 0
        flux[weight == 0] = 0
        ivar[:, part] += weight
        bits[:, part] |= mask
    covered = np.maximum(sum(_covers(part, grid) for part, *_ in spectra), 1)
    flux = np.zeros(shape, "f4")
    shares = []
    for part, values, weight, _ in spectra:
        total = ivar[:, part]
        # One arm alone has a share of exactly 1: its flux is that of the file to the last bit.
        weight = np.divide(weight, total, where=total > 0, out=weight)
        flux[:, part] += weight * values
        shares.append(np.where(total > 0, weight, np.float32(1) / covered[part]))
    none = ivar == 0
    # The border says why such a row cannot enter.
    flux[none & torn] = np.nan
    ivar[negative < 0] = negative[negative < 0]
    found = {"flux": flux, "ivar": ivar, "mask": np.where(none, bits, 0)}
    return found | _spread(path, arms, rows, shares, grid, diagonals)


def _part(arm: Arm) -> slice:
    return slice(arm.first, arm.first + arm.parts["FLUX"].image[1])


def _covers(part: slice, grid: Grid) -> NDArray[np.float32]:
    covers = np.zeros(grid.size, "f4")
    covers[part] = 1
    return covers


def _mask(path: str, arm: Arm, rows: range) -> NDArray[Any]:
    if "MASK" not in arm.parts:
        return np.zeros((len(rows), arm.parts["FLUX"].image[1]), "u4")
    return fits_scan.rows(path, arm.parts["MASK"], rows.start, rows.stop).astype("u4", copy=False)


def _pixels(path: str, arm: Arm, rows: range) -> tuple[NDArray[Any], NDArray[Any]]:
    """Flux and ivar of an arm in house units, (N, L) float32."""
    flux, ivar = (
        fits_scan.rows(path, arm.parts[part], rows.start, rows.stop) for part in ("FLUX", "IVAR")
    )
    if arm.scale != (1, 1):
        # In float64: ivar of flux without 1e-17 is beyond float32.
        flux, ivar = (
            values.astype("f8") * scale
            for values, scale in zip((flux, ivar), arm.scale, strict=True)
        )
    if flux.dtype == ivar.dtype == np.float32:
        return flux, ivar
    return single(flux), single(ivar)


def _spread(
    path: str,
    arms: tuple[Arm, ...],
    rows: range,
    shares: list[NDArray[Any]],
    grid: Grid,
    diagonals: int,
) -> Values:
    moments = np.zeros((len(rows), 3, grid.size), "f4")
    kernels = np.zeros((len(rows), diagonals, grid.size), "f4")
    for arm, share in zip(arms, shares, strict=True):
        hdu = arm.parts["RESOLUTION"]
        stored = fits_scan.rows(path, hdu, rows.start, rows.stop).astype("f4", copy=False)
        own = desi_resolution.kernels(stored)
        moments[:, :, _part(arm)] += share[:, None] * desi_resolution.moments(own)
        if diagonals:
            edge, odd = divmod(diagonals - own.shape[1], 2)
            if edge < 0 or odd:
                raise RefusedError(
                    Reason.BAD_GRID,
                    f"{hdu.name} has {own.shape[1]} diagonals, at most {diagonals} are kept; "
                    "read it with resolution = 'sigma'",
                )
            kernels[:, edge : edge + own.shape[1], _part(arm)] += share[:, None] * own
    sigma = desi_resolution.sigma(moments)
    found = {"lsf": np.where(sigma < _MOST_LSF, sigma, 0)}
    return found | ({"resolution": desi_resolution.diagonals(kernels)} if diagonals else {})
