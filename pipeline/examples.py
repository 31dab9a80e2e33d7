"""Examples: a few spectra of a product beside the noisy ones and the reference, on one frame."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.canvas import NOISY, PALETTE, TRUTH, canvas
from pipeline.columns import flagged
from storage.grid import Grid
from storage.schema import Status
from storage.store import Survey
from training.frame import Frame
from training.norm import NOISELESS

Float = NDArray[np.float64]


ZOOMS = {
    "4000 Å break, Hδ": (3900.0, 4150.0),
    "Mg b": (5100.0, 5250.0),
    "Hβ": (4820.0, 4895.0),
    "Na D": (5840.0, 5960.0),
    "Hα, [N II]": (6500.0, 6650.0),
    "Ca II 8542": (8480.0, 8600.0),
    "Ca II 8662": (8620.0, 8720.0),
}
"What may be shown larger, in rest wavelengths, A."
MOST_ZOOMS = 2
"The first of them that a frame reaches."
# Fixed: to find them anew for every spectrum takes as long as to draw it.
_MARGINS = {"left": 0.08, "right": 0.965, "top": 0.91, "bottom": 0.15, "wspace": 0.18}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One spectrum on the frame of a product, shown at rest wavelengths; survey's unit."""

    title: str
    "Observation, product, z, S/N, flags."
    wavelength: Float
    "(P,) vacuum A."
    noisy: Float
    "(P,) NaN where there is no data."
    sigma: Float
    "(P,) noise of noisy, as it counts in sums of pixels; NaN where there is no data."
    denoised: Float
    "(P,) what the product says."
    reference: Float | None
    "(P,) the truth, or the survey's best fit; None where there is neither."
    words: str
    "What the reference is."


def examples(ds: xr.Dataset, name: str, rows: NDArray[np.bool_], count: int) -> list[Example]:
    """Spectra of a product, spread evenly over its S/N, of the rows that may be shown."""
    snr = ds["snr_g"].to_numpy()
    places = np.flatnonzero(rows & np.isfinite(snr))
    places = places[np.argsort(snr[places], kind="stable")]
    if places.size == 0:
        return []
    # The middles of `count` equal parts: neither the best nor the worst of all.
    share = (np.arange(min(count, places.size)) + 0.5) / min(count, places.size)
    chosen = places[(share * places.size).astype(int)]
    part = ds[["flux", "ivar", "model", "z", "ebv", "snr_g", "observation"]].isel(spectrum=chosen)
    product = ds.spectra.denoised(name).isel(spectrum=chosen)
    made = product[["flux", "flag"]].compute()
    return _examples(part.compute(), made, product.attrs, _reference(ds, chosen))


def portrait(given: Example, colour: str = PALETTE[0]) -> str:
    """A spectrum, noisy and denoised, with what is left over; whole, and two zooms."""
    with canvas(11, 3.5, "png", _MARGINS) as (fig, out):
        zooms = _zooms(given.wavelength)
        widths = [3.0] + [1.0] * len(zooms)
        panels = fig.subplots(
            2, len(widths), sharex="col", squeeze=False, width_ratios=widths, height_ratios=[3, 1]
        )
        spans = {given.title: (given.wavelength[0], given.wavelength[-1]), **zooms}
        for column, (title, span) in enumerate(spans.items()):
            panels[0, column].set_title(title, loc="left")
            _spectrum(panels[0, column], given, span, colour)
            _residual(panels[1, column], given, span, colour)
        panels[0, 0].set_ylabel("flux density\n(10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$)")
        panels[1, 0].set_ylabel("residual\n(noise σ)")
        panels[1, 0].set_xlabel("rest wavelength in vacuum (Å)")
        # Below the zooms, where nothing is drawn.
        fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower right", ncols=3)
    return out[0]


def _zooms(wavelength: Float) -> dict[str, tuple[float, float]]:
    """What is shown larger of these wavelengths."""
    first, last = wavelength[[0, -1]]
    there = {name: (a, b) for name, (a, b) in ZOOMS.items() if first <= a and b <= last}
    return dict(list(there.items())[:MOST_ZOOMS])


def _reference(ds: xr.Dataset, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32] | None, str]:
    """Observed flux (n, L) of the truth, else of the survey's best fit, and what it is."""
    survey = Survey.open(ds.attrs["store"], snapshot=ds.attrs["snapshot"])
    group = f"truth/{ds.attrs['config']}"
    if group in survey:
        truth = survey.dataset(group, dask=True)[["flux", "status"]]
        found = truth.isel(spectrum=ds["row"].to_numpy()[rows]).compute()
        if (found["status"] == Status.DONE).all():
            return found["flux"].to_numpy(), "truth"
    model = ds["model"].isel(spectrum=rows).to_numpy()
    return (model, "survey's best fit") if model.any() else (None, "")


def _examples(
    part: xr.Dataset,
    product: xr.Dataset,
    about: dict[str, object],
    reference: tuple[NDArray[np.float32] | None, str],
) -> list[Example]:
    frame = Frame.model_validate(about["frame_json"])
    mapper = frame.on(Grid.model_validate(part.attrs["grid"]))
    ivar, z, ebv = (part[name].to_numpy() for name in ("ivar", "z", "ebv"))
    noisy = mapper.to(part["flux"].to_numpy(), ivar, z, ebv)
    scale, weight = noisy.scale[:, None].double().numpy(), noisy.weight.double().numpy()
    has = weight > 0
    sigma = np.where(has, scale / np.sqrt(np.where(has, weight, 1)), np.nan)
    flux = np.where(has, noisy.x.double().numpy() * scale, np.nan)
    best = None
    if reference[0] is not None:
        # Without noise, but only where the survey has data.
        batch = mapper.to(reference[0], np.where(ivar > 0, NOISELESS, 0), z, ebv)
        best = (batch.x * batch.scale[:, None]).double().numpy()
    moved = np.zeros_like(z) if frame.rest else z
    alias, snr = about["alias"], part["snr_g"].to_numpy()
    doubts = [f"   {words}" if words else "" for words in flagged(product["flag"])]
    return [
        Example(
            title=f"{part['observation'].to_numpy()[row]}   {alias}   "
            f"z = {z[row]:.4f}   S/N(g) = {snr[row]:.1f}{doubts[row]}",
            wavelength=frame.grid.wavelength / (1 + moved[row]),
            noisy=flux[row],
            sigma=sigma[row],
            denoised=product["flux"].to_numpy()[row].astype(float),
            reference=None if best is None else best[row],
            words=reference[1],
        )
        for row in range(len(z))
    ]


def _spectrum(axes: Axes, given: Example, span: tuple[float, float], colour: str) -> None:
    kept = (given.wavelength >= span[0]) & (given.wavelength <= span[1])
    wavelength = given.wavelength[kept]
    axes.plot(wavelength, given.noisy[kept], color=NOISY, lw=0.6, label="noisy")
    axes.plot(wavelength, given.denoised[kept], color=colour, lw=1.8, label="denoised")
    if given.reference is not None:
        axes.plot(wavelength, given.reference[kept], color=TRUTH, lw=0.7, label=given.words)
    axes.set_xlim(*span)
    # Noise and strong emission lines may leave the panel; the continuum may not.
    smooth = given.denoised[kept]
    low, high = np.percentile(smooth, [0, 100] if span in ZOOMS.values() else [0.5, 97])
    spread = np.nanpercentile(np.abs(given.noisy[kept] - smooth), 90)
    spread = 0.0 if np.isnan(spread) else spread
    room = max(1.3 * spread, 0.25 * (high - low)) or 1.0
    axes.set_ylim(low - room, high + 1.4 * room)


def _residual(axes: Axes, given: Example, span: tuple[float, float], colour: str) -> None:
    kept = (given.wavelength >= span[0]) & (given.wavelength <= span[1])
    wavelength, sigma = given.wavelength[kept], given.sigma[kept]
    against = (given.noisy if given.reference is None else given.reference)[kept]
    axes.axhspan(-1, 1, color="#eef1f4", lw=0)
    if given.reference is not None:
        noise = (given.noisy[kept] - against) / sigma
        axes.plot(wavelength, noise, color=NOISY, lw=0.3, alpha=0.6)
    axes.plot(wavelength, (given.denoised[kept] - against) / sigma, color=colour, lw=0.9)
    axes.axhline(0, color=TRUTH, lw=0.5)
    axes.set(ylim=(-3, 3), xlim=span)
