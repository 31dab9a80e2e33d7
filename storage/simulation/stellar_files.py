"""Model spectra in files: a grid of them, read when they are needed, whatever their format.

An adapter says which file is which model and how one is read; what is the same for all is here.
"""

import io
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.grid import Float, Grid
from storage.simulation.stellar_grid import PARAMETERS, Index, Single

Parameters = tuple[float, float, float, float]
"`PARAMETERS` of a model."
Read = Callable[[Path], tuple[Float, Float]]
"Wavelength (vacuum A, ascending) and flux per A of one model."


class Library:
    """Models in files; see `storage.simulation.stellar_grid.StellarGrid`."""

    def __init__(
        self, physics: str, models: Iterable[tuple[Parameters, Path]], where: str, read: Read
    ) -> None:
        self.physics = physics
        self._where, self._read = where, read
        self._paths: dict[Parameters, Path] = {}
        for parameters, path in models:
            if parameters in self._paths:
                raise ValueError(
                    f"{where}: {self._paths[parameters].name} and {path.name} are the same model, "
                    f"{_told(parameters)}; keep one resolution and one kind of atmosphere"
                )
            self._paths[parameters] = path
        if not self._paths:
            raise ValueError(f"{where}: no model of format {physics} is there; give its folder")

    @cached_property
    def axes(self) -> tuple[Float, ...]:
        """The nodes along each of `PARAMETERS`, ascending."""
        every = np.array(list(self._paths))
        return tuple(np.unique(every[:, number]) for number in range(len(PARAMETERS)))

    @cached_property
    def there(self) -> NDArray[np.bool_]:
        """Whether there is a model, with an axis for each of `PARAMETERS`."""
        found = np.zeros([nodes.size for nodes in self.axes], bool)
        every = np.array(list(self._paths))
        places = [np.searchsorted(a, v) for a, v in zip(self.axes, every.T, strict=True)]
        found[tuple(places)] = True
        return found

    def spectra(self, nodes: Index, axis: Grid) -> Single:
        """Flux (K, M) of nodes by number; see `StellarGrid.spectra`."""
        places = np.stack(np.unravel_index(nodes, self.there.shape), axis=1)
        out = np.empty((len(nodes), axis.size), np.float32)
        for row, place in zip(out, places, strict=True):
            parameters = tuple(float(a[i]) for a, i in zip(self.axes, place, strict=True))
            row[:] = self._one(parameters, axis)
        return out

    def _one(self, parameters: tuple[float, ...], axis: Grid) -> Float:
        path = self._paths.get(parameters)  # type: ignore[arg-type]  # four of them
        if path is None:
            raise ValueError(
                f"{self._where}: there is no model with {_told(parameters)}; nothing is "
                "interpolated over a hole, so add its file"
            )
        wavelength, flux = self._read(path)
        checked(path, wavelength, flux)
        if wavelength[0] > axis.edges[0] or wavelength[-1] < axis.edges[-1]:
            raise ValueError(
                f"{path}: {wavelength[0]:.0f}-{wavelength[-1]:.0f} A; the mock needs "
                f"{axis.edges[0]:.0f}-{axis.edges[-1]:.0f} A on this grid, in vacuum"
            )
        return onto(axis, wavelength, flux)


def checked(path: Path, wavelength: Float, flux: Float) -> None:
    """Refuse what is no spectrum.

    Raises
    ------
    ValueError
        When lengths differ, wavelengths do not ascend, or a flux is negative or not finite.
    """
    if wavelength.shape != flux.shape or wavelength.size < 3:
        raise ValueError(
            f"{path}: {flux.size} fluxes for {wavelength.size} wavelengths; the file is truncated, "
            "or of another resolution: fetch it again"
        )
    if not (np.diff(wavelength) > 0).all():
        raise ValueError(f"{path}: wavelengths do not ascend; the file is damaged, fetch it again")
    if not (np.isfinite(flux) & (flux >= 0)).all():
        raise ValueError(f"{path}: flux is negative or not finite; fetch the file again")


def onto(axis: Grid, wavelength: Float, flux: Float) -> Float:
    """Mean flux over the pixels of an axis, (M,), of straight lines between the samples."""
    step = np.diff(wavelength)
    below = np.concatenate([[0.0], np.cumsum(0.5 * (flux[1:] + flux[:-1]) * step)])
    left = np.clip(np.searchsorted(wavelength, axis.edges, side="right") - 1, 0, step.size - 1)
    part = axis.edges - wavelength[left]
    slope = (flux[left + 1] - flux[left]) / step[left]
    return np.asarray(np.diff(below[left] + part * (flux[left] + 0.5 * slope * part)) / axis.widths)


def opened(path: Path | str) -> list[tuple[Any, Any]]:
    """Data and header of every extension of a FITS file.

    Raises
    ------
    ValueError
        When the file is truncated, or not FITS.
    """
    from astropy.io import fits
    from astropy.io.fits.verify import VerifyError

    garbage = (OSError, EOFError, TypeError, ValueError, LookupError, UserWarning, VerifyError)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(may have been truncated|File may be)")
        try:
            # From memory: astropy leaves a damaged file open.
            with fits.open(io.BytesIO(Path(path).read_bytes())) as hdus:
                return [(hdu.data, hdu.header) for hdu in hdus]
        except garbage as error:
            raise ValueError(f"{path}: truncated, or not FITS ({error}); fetch it again") from error


def folder(path: str, physics: str) -> Path:
    """The folder of a grid.

    Raises
    ------
    ValueError
        When there is none.
    """
    if not path or not Path(path).is_dir():
        raise ValueError(f"models = {path!r}: no such folder; give that of the {physics} files")
    return Path(path)


def _told(parameters: tuple[float, ...]) -> str:
    return ", ".join(f"{n} {v:g}" for n, v in zip(PARAMETERS, parameters, strict=True))
