"""The same lines by pPXF (Cappellari 2023), one spectrum after the other: a second opinion.

pPXF is not free software, so it is no dependency: who wants it installs it. Spectra are rebinned
to their rest frame first. Fluxes are 0 or above, which biases faint ones; errors are formal, for
starlight that is known.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pipeline.lines.block import DETECTED
from pipeline.lines.fit import Matrix, Medium
from pipeline.lines.line_list import LINES
from pipeline.lines.result import LineFlag, Lines
from pipeline.lines.templates import DEGREE, FINE, Basis, analytic, broadened
from storage.grid import Float, Grid, air_to_vacuum
from storage.resample import rebinner
from storage.simulation.nebula import add_lines
from storage.velocity import C_KMS

REST = Grid(kind="log", start=FINE.start + FINE.step / 2, step=2 * FINE.step, size=FINE.size // 2)
"Where pPXF fits: two pixels of the templates each."
_WAVELENGTH = np.array([line.wavelength for line in LINES])
_FREE = [line.name for line in LINES if line.tie is None]
_OF = np.array([_FREE.index(line.tie[0] if line.tie else line.name) for line in LINES])
_SHARE = np.array([line.tie[1] if line.tie else 1.0 for line in LINES])
_GROUP = np.array([1 + (line.kind == "forbidden") for line in LINES])


def measure_lines(
    wavelength: ArrayLike,
    flux: Matrix,
    ivar: Matrix,
    z: Matrix,
    *,
    lsf: Matrix | None = None,
    templates: Basis | None = None,
    medium: Medium = "vacuum",
) -> Lines:
    """Emission lines by pPXF; arguments and result are those of `pipeline.lines.fit`.

    Raises
    ------
    ModuleNotFoundError
        When pPXF is not installed.
    """
    fit = _ppxf()
    axis = np.asarray(wavelength, dtype=np.float64)
    grid = Grid.infer(air_to_vacuum(axis) if medium == "air" else axis)
    flux, ivar, z = (torch.as_tensor(np.asarray(part)) for part in (flux, ivar, z))
    known = torch.isfinite(z) & (z > -1)
    stretches = 1 + torch.where(known, z, 0).double()
    # Neighbours share noise: errors of sums, which a line is, and not those of one pixel.
    rebin = rebinner(grid, REST)
    seen = rebin(flux.float(), ivar.float() * known[:, None], stretches, min_good=0.75, smooth=True)
    pixels = np.broadcast_to(0.0 if lsf is None else np.asarray(lsf, float), flux.shape)
    kms = pixels * (grid.widths / grid.wavelength * C_KMS)
    stars = broadened((templates or analytic()).flux, 0.0).T
    rows = []
    for row, stretch in enumerate(stretches.numpy()):
        place = grid.pixel(_WAVELENGTH * stretch)
        outside = (place < -0.5) | (place > grid.size - 0.5) | (not known[row])
        spectrum = (seen.flux[row].double().numpy(), seen.ivar[row].double().numpy())
        if not spectrum[1].any():
            rows.append(_none(outside))
            continue
        blur = np.interp(_WAVELENGTH * stretch, grid.wavelength, kms[row])
        rows.append(_one(fit, stars, *spectrum, blur, stretch, outside))
    columns = [torch.as_tensor(np.stack(part)) for part in zip(*rows, strict=True)]
    return Lines(*columns)


def _ppxf() -> Callable[..., Any]:
    try:
        return importlib.import_module("ppxf.ppxf").ppxf  # type: ignore[no-any-return]  # untyped
    except ModuleNotFoundError as error:
        if error.name not in ("ppxf", "ppxf.ppxf"):
            raise
        raise ModuleNotFoundError(
            "pPXF is not installed, and its licence keeps it out of this project: pip install "
            "ppxf, or measure lines with pipeline.lines.fit"
        ) from None


def _none(outside: NDArray[np.bool_]) -> tuple[Any, ...]:
    """What is said of a spectrum without data."""
    bits = np.where(outside, int(LineFlag.OUTSIDE), int(LineFlag.FEW_PIXELS)).astype(np.uint16)
    numbers = (np.full(len(LINES), np.nan),) * len(Lines._fields[: Lines._fields.index("flag")])
    return (*numbers, bits, np.float64(np.nan), np.float64(np.nan))


def _one(
    fit: Callable[..., Any], stars: Float, flux: Float, ivar: Float, blur: Float, stretch: float,
    outside: NDArray[np.bool_],
) -> tuple[Any, ...]:  # fmt: skip
    """One spectrum: the columns of `Lines` up to the dispersion."""
    good, unit = np.flatnonzero(ivar > 0), max(float(np.abs(flux).mean()), 1e-30)
    gas = np.zeros((len(_FREE), FINE.size), np.float32)
    for line, centre in enumerate(_WAVELENGTH):
        sigma = np.array([centre * max(blur[line], 20.0) / C_KMS])
        mine = gas[_OF[line] : _OF[line] + 1]
        add_lines(mine, FINE, np.array([centre]), sigma, _SHARE[line : line + 1])
    seen = np.abs(np.rint(REST.pixel(_WAVELENGTH))[:, None] - good).min(axis=1, initial=9) < 2
    group = np.array([_GROUP[list(_OF).index(k)] for k in range(len(_FREE))])
    noise = np.where(ivar > 0, 1 / np.sqrt(np.maximum(ivar, 1e-30)), flux.max() + 1) / unit
    found = fit(
        np.column_stack([stars, gas.T]), flux / unit, noise, REST.step * np.log(10) * C_KMS,
        [[0, 150], [0, 100], [0, 100]], goodpixels=good, moments=[2, 2, 2], degree=-1,
        mdegree=DEGREE, velscale_ratio=2, quiet=True, lam=REST.wavelength,
        component=[0] * stars.shape[1] + list(group),
        gas_component=np.r_[np.zeros(stars.shape[1], bool), group > 0], gas_names=_FREE,
    )  # fmt: skip
    matrix = found.matrix[:, stars.shape[1] : stars.shape[1] + len(_FREE)]
    scale = unit * stretch * _SHARE
    value = found.weights[stars.shape[1] : stars.shape[1] + len(_FREE)][_OF] * scale
    error = (found.gas_flux_error / np.abs(matrix.sum(axis=0)))[_OF] * scale
    light = found.bestfit - found.gas_bestfit
    continuum = np.interp(_WAVELENGTH, REST.wavelength, light) * unit
    missed = ~(value >= DETECTED * error)
    seen &= ~outside
    bits = np.where(seen, 0, np.where(outside, LineFlag.OUTSIDE, LineFlag.FEW_PIXELS))
    bits |= np.where(missed & seen, LineFlag.NOT_DETECTED, 0)
    bits |= np.where(_SHARE < 1, int(LineFlag.TIED), 0)
    velocity, sigma = (np.array([found.sol[g][k] for g in _GROUP]) for k in (0, 1))
    errors = (np.array([found.error[g][k] for g in _GROUP]) for k in (0, 1))
    rest = continuum * stretch
    columns = (value, error, value / rest, error / rest, sigma, velocity, continuum)
    flux_, error_, ew, ew_err, sigma, velocity, continuum = (
        np.where(seen, column, np.nan) for column in columns
    )
    velocity_err, sigma_err = (np.where(seen, each, np.nan) for each in errors)
    limit = np.where(missed & seen, DETECTED * error_, np.nan)
    return (
        flux_, error_, ew, ew_err, sigma, sigma_err, velocity, velocity_err, continuum, limit,
        bits.astype(np.uint16), np.float64(found.chi2), np.float64(found.sol[0][1]),
    )  # fmt: skip
