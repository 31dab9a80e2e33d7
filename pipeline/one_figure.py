"""Pictures of spectra from a file: one of them in full, or a sheet of the first few."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline import index
from pipeline.canvas import NOISY, PALETTE, TRUTH, canvas
from pipeline.columns import flagged
from pipeline.examples import ZOOMS
from pipeline.figures import NAMES
from pipeline.one_indices import DENOISED, RAW, names_of
from storage.grid import air_to_vacuum
from storage.schema import Status
from training.checkpoint import Checkpoint

Float = NDArray[np.float64]
Bands = tuple[tuple[float, float], ...]

MOST_ZOOMS, MOST_SHOWN = 4, 12
_MARGIN = 25.0  # A beside the bands of an index
_FLUX = "flux density\n(10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$)"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One spectrum, at rest wavelengths."""

    title: str
    "Observation, z, S/N."
    doubts: str
    "Flags and their reasons; empty where there are none."
    wavelength: Float
    "(P,) vacuum A."
    noisy: Float
    "(P,) NaN where there is no data."
    noise: Float
    "(P,) standard deviation of noisy, as it counts in sums; NaN where there is no data."
    denoised: Float
    "(P,)"
    sigma: Float | None
    "(P,) standard deviation of a pixel of denoised."
    indices: dict[str, str]
    "Denoised and raw value of each index that was measured, in words."
    unit: str
    "Label of the flux axis."


def picture(product: xr.Dataset, model: Checkpoint, verdict: str) -> bytes:
    """A PNG of the denoised spectra of a file: the only one in full, or a sheet of the first.

    Raises
    ------
    ValueError
        When none is denoised.
    """
    rows = np.flatnonzero(product["status"].to_numpy() == Status.DONE)
    if not len(rows):
        raise ValueError("no spectrum is denoised: there is nothing to draw")
    about = f"{model.label}   verdict {verdict.partition(':')[0]}"
    some = [_shown(product, int(row), model) for row in rows[:MOST_SHOWN]]
    drawn = _portrait(some[0], about) if len(rows) == 1 else _sheet(some, len(rows), about)
    return base64.b64decode(drawn.partition(",")[2])


def _shown(product: xr.Dataset, row: int, model: Checkpoint) -> Shown:
    one = product.isel(spectrum=row)
    z = float(one["z"])
    weight = one["weight"].to_numpy().astype(float)
    has = weight > 0
    marks = flagged(product["flag"].isel(spectrum=[row]))[0]
    marks = marks.replace("misfit", f"misfit {float(one['misfit']):.1f}")
    reason = str(one["reason"].to_numpy())
    relative = product["flux"].attrs["units"] == "1"
    return Shown(
        title=f"{one['observation'].to_numpy()}   z = {z:.4f}   S/N(g) = {float(one['snr_g']):.1f}",
        doubts=f"{marks}: {reason}" if marks and reason else marks,
        wavelength=model.frame.grid.wavelength / (1 if model.frame.rest else 1 + z),
        noisy=np.where(has, one["input"].to_numpy(), np.nan),
        noise=np.where(has, 1 / np.sqrt(np.where(has, weight, 1)), np.nan),
        denoised=one["flux"].to_numpy().astype(float),
        sigma=one["sigma"].to_numpy().astype(float) if "sigma" in one else None,
        indices=dict(_measured(one)),
        unit="flux density" if relative else _FLUX,
    )


def _measured(one: xr.Dataset) -> Iterator[tuple[str, str]]:
    for short in names_of(one.data_vars):
        values = (
            float(one[f"{said}.{short}{s}"]) for said in (DENOISED, RAW) for s in ("", "_error")
        )
        own, own_error, raw, raw_error = values
        if np.isfinite(own):
            yield short, f"{_value(own, own_error)}  (raw {_value(raw, raw_error)})"


def _value(value: float, error: float) -> str:
    return f"{value:.2f} ± {error:.2f}" if np.isfinite(error) else f"{value:.2f}, no error"


def _portrait(given: Shown, about: str) -> str:
    """A spectrum whole, what is left over of its input, and the windows of its indices."""
    zooms = _zooms(given)
    with canvas(12, 7.2 if zooms else 5, "png") as (fig, out):
        upper, *lower = fig.subfigures(
            2 if zooms else 1, 1, height_ratios=[3, 2][: 1 + bool(zooms)], squeeze=False
        )[:, 0]
        top, left = upper.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        whole = (float(given.wavelength[0]), float(given.wavelength[-1]))
        _spectrum(top, given, whole)
        _residual(left, given, whole)
        top.set_title(f"{given.title}   {about}", loc="left")
        if given.doubts:
            upper.suptitle(
                given.doubts, x=0.02, ha="left", color=PALETTE[1], size=10, weight="bold"
            )
        top.set_ylabel(given.unit)
        left.set(xlabel="rest wavelength in vacuum (Å)", ylabel="residual\n(noise σ)")
        top.legend(loc="upper right", ncols=3)
        for place in lower:
            _draw_zooms(place, given, zooms)
    return out[0]


def _draw_zooms(place: Any, given: Shown, zooms: dict[str, Bands]) -> None:
    panels = place.subplots(1, len(zooms), squeeze=False)[0]
    for axes, (name, bands) in zip(panels, zooms.items(), strict=True):
        margin = _MARGIN if len(bands) > 1 else 0
        span = (min(map(min, bands)) - margin, max(map(max, bands)) + margin)
        for low, high in bands if len(bands) > 1 else ():
            axes.axvspan(low, high, color=PALETTE[5], alpha=0.15, lw=0)
        _spectrum(axes, given, span, close=True)
        words = given.indices.get(name, "")
        axes.set_title(f"{NAMES.get(name, name)}\n{words}" if words else name, loc="left")
    panels[0].set_ylabel("flux density")


def _sheet(some: list[Shown], total: int, about: str) -> str:
    """Small panels, three in a row."""
    columns = min(3, len(some))
    rows = -(-len(some) // columns)
    with canvas(4.6 * columns, 0.5 + 2.3 * rows, "png") as (fig, out):
        fig.suptitle(
            f"{about}   {len(some)} of {total} denoised spectra", x=0.01, ha="left", size=10
        )
        panels = fig.subplots(rows, columns, squeeze=False).ravel()
        for axes, given in zip(panels, some, strict=False):
            whole = (float(given.wavelength[0]), float(given.wavelength[-1]))
            _spectrum(axes, given, whole)
            colour = PALETTE[1] if given.doubts else TRUTH
            flag = f"\n{shorten(given.doubts, 70, placeholder=' ...')}" if given.doubts else ""
            axes.set_title(f"{given.title}{flag}", loc="left", fontsize=8, color=colour)
        for axes in panels[len(some) :]:
            axes.set_visible(False)
        _label(fig, panels[0], some[0].unit)
    return out[0]


def _label(fig: Figure, axes: Axes, unit: str) -> None:
    fig.supxlabel("rest wavelength in vacuum (Å)", size=9)
    fig.supylabel(unit.replace("\n", " "), size=9)
    fig.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)


def _zooms(given: Shown) -> dict[str, Bands]:
    """Vacuum bands of the measured indices, and where none is covered what may be shown larger."""
    first, last = given.wavelength[[0, -1]]
    found: dict[str, Bands] = {}
    for name in given.indices:
        bands = getattr(index.find(name), "bands", ())
        if bands:
            found[name] = tuple((float(a), float(b)) for a, b in air_to_vacuum(bands))
    known = {name: (span,) for name, span in ZOOMS.items() if first <= span[0] and span[1] <= last}
    return dict(list((found or known).items())[:MOST_ZOOMS])


def _spectrum(axes: Axes, given: Shown, span: tuple[float, float], close: bool = False) -> None:
    kept = (given.wavelength >= span[0]) & (given.wavelength <= span[1])
    wavelength, smooth = given.wavelength[kept], given.denoised[kept]
    axes.plot(wavelength, given.noisy[kept], color=NOISY, lw=0.6, label="input")
    axes.plot(wavelength, smooth, color=PALETTE[0], lw=1.2, label="denoised")
    if given.sigma is not None:
        low, high = smooth - given.sigma[kept], smooth + given.sigma[kept]
        axes.fill_between(wavelength, low, high, color=PALETTE[4], alpha=0.5, lw=0, label="its σ")
    axes.set_xlim(*span)
    # Noise and strong emission lines may leave the panel; the continuum may not.
    low, high = np.percentile(smooth, [0, 98] if close else [0.5, 99])
    left = np.abs(given.noisy[kept] - smooth)
    spread = float(np.nanpercentile(left, 90)) if np.isfinite(left).any() else 0.0
    room = max(1.3 * spread, 0.25 * (high - low)) or 1.0
    axes.set_ylim(low - room, high + 1.4 * room)


def _residual(axes: Axes, given: Shown, span: tuple[float, float]) -> None:
    axes.axhspan(-1, 1, color="#eef1f4", lw=0)
    left = (given.noisy - given.denoised) / given.noise
    axes.plot(given.wavelength, left, color=NOISY, lw=0.4)
    if given.sigma is not None:
        share = given.sigma / given.noise
        axes.plot(given.wavelength, share, color=PALETTE[0], lw=0.9, label="σ of the denoised")
        axes.legend(loc="upper right")
    axes.axhline(0, color=TRUTH, lw=0.5)
    axes.set(ylim=(-5, 5), xlim=span)
