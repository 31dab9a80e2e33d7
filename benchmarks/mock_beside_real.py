"""Mock spectra beside real ones of the same survey, to be looked at.

    python benchmarks/mock_beside_real.py --data FOLDER --out docs/figures

FOLDER has sdss/ and desi/ with files of these surveys; of WEAVE there is nothing public. A real
galaxy's partner is the mock one nearest in redshift and colour, of the same kind where the survey
gives one, made as bright in r and exposed to the same S/N per pixel in g.
"""

import argparse
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.canvas import NOISY, PALETTE, STYLE
from storage.grid import Grid
from storage.mocks.galaxy import Galaxy
from storage.names import resolve
from storage.simulation.instrument import G_BAND, R_BAND, within

Array = NDArray[np.float64]
BLUE, RED = PALETTE[0], PALETTE[1]
REST = {
    "[O II]": 3728.8, "K": 3934.8, "H": 3969.6, "Hδ": 4102.9, "G": 4305.6, "Hβ": 4862.7,
    "[O III]": 5008.2, "Mg b": 5176.6, "Na D": 5894.6, "Hα": 6564.6, "[S II]": 6725.5,
}  # fmt: skip
"Vacuum A."
BANDS = (G_BAND, R_BAND)
SKY = (5578.9, 5894.0, 6302.0)
LEGACY = 3510
"The first plate of BOSS: another spectrograph than that of the preset."
LEGACY_PRESET = "sdss-legacy"
POOL = 1024


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """One spectrum; (L,) arrays, NaN where there is no data."""

    title: str
    wavelength: Array
    flux: Array
    sigma: Array
    z: float
    "NaN where the survey gives none."
    forming: bool | None
    "Whether lines of star formation are seen; None where the survey does not say."
    snr: float
    "Per pixel in g."
    colour: str = "k"


def card(name: str, **change: Any) -> Galaxy:
    path = Path(__file__).parents[1] / "deploy" / "cards" / "mocks" / f"{name}.toml"
    options = tomllib.loads(path.read_text())
    mock: Galaxy = resolve("storage.mocks", options.pop("mock")).build(**{**options, **change})
    return mock


def spectra(ds: Any, grid: Grid, titles: list[str], forming: list[bool | None]) -> list[Spectrum]:
    flux, ivar = (ds[name].to_numpy().astype(float) for name in ("flux", "ivar"))
    sigma = np.where(ivar > 0, 1 / np.sqrt(np.where(ivar > 0, ivar, 1)), np.nan)
    flux = np.where(ivar > 0, flux, np.nan)
    rows = zip(
        titles, flux, sigma, ds["z"].to_numpy(), forming, ds["snr_g"].to_numpy(), strict=True
    )
    return [
        Spectrum(title=t, wavelength=grid.wavelength, flux=f, sigma=s, z=float(z), forming=k, snr=q)
        for t, f, s, z, k, q in rows
    ]  # fmt: skip


def read(reader: str, folder: Path, options: dict[str, Any]) -> Iterator[tuple[Any, Grid]]:
    form = resolve("storage.readers", reader).build(**options)
    config, grid = next(iter(form.configs.items()))
    for source in form.find(str(folder), config):
        yield form.read(source, str(folder), config), grid


def sdss(folder: Path) -> list[Spectrum]:
    """Galaxies of the legacy survey."""
    found = []
    for ds, grid in read("sdss", folder, {}):
        names = [str(name) for name in ds["observation"].to_numpy()]
        good = np.array([str(c) == "GALAXY" for c in ds["class"].to_numpy()])
        good &= np.array([int(name.split("-")[0]) < LEGACY for name in names])
        good &= (ds["zwarn"].to_numpy() == 0) & within(ds["z"].to_numpy(), (0.01, 0.25))
        part = ds.isel(spectrum=np.flatnonzero(good))
        forming = ["STAR" in str(name) for name in part["subclass"].to_numpy()]
        found += spectra(part, grid, [str(n) for n in part["observation"].to_numpy()], forming)
    return sorted(found, key=lambda one: (not one.forming, one.z))


def desi(folder: Path) -> list[Spectrum]:
    """Everything in the coadds that has data: a handful of faint targets."""
    found = []
    for grouping in ("tile", "healpix"):
        for ds, grid in read("desi", folder, {"grouping": grouping}):
            good = (ds["ivar"].to_numpy() > 0).mean(axis=1) > 0.5
            part = ds.isel(spectrum=np.flatnonzero(good))
            titles = [str(name).rsplit("-", 1)[-1] for name in part["observation"].to_numpy()]
            found += spectra(part, grid, titles, [None] * len(titles))
    return sorted(found, key=lambda one: -mean(one, R_BAND))


def mean(one: Spectrum, band: tuple[float, float]) -> float:
    return float(np.nanmean(one.flux[within(one.wavelength, band)]))


def partners(mock: Galaxy, real: list[Spectrum], grid: Grid) -> list[Spectrum]:
    """The mock galaxies that are most like these, as bright as they are, exposed to their S/N."""
    truth = mock.truth(POOL, grid, 1, "beside")
    kind, z = truth["population"].to_numpy(), truth["z"].to_numpy()
    green, red = (
        truth["flux"].to_numpy()[:, within(grid.wavelength, b)].mean(axis=1) for b in BANDS
    )
    made = []
    for number, one in enumerate(real):
        mine = [max(mean(one, band), 0.05) for band in BANDS]
        away = np.abs(np.log10(mine[0] / mine[1] / (green / red))) / 0.05
        if np.isfinite(one.z):
            away = away + np.abs(z - one.z) / 0.005
        if one.forming is not None:
            away = away + np.where(kind == (1 if one.forming else 0), 0, 1e3)
        best = int(away.argmin())
        row = dimmed(truth.isel(spectrum=[best]), mine[1] / red[best])
        # What a real spectrum has in g may be nothing; a mock needs something.
        snr = max(one.snr, 0.05)
        seen = mock.observe(row, grid, 1, f"beside-{number}", (snr, snr))
        made += spectra(seen, grid, ["mock"], [bool(kind[best] == 1)])
    return made


def dimmed(truth: xr.Dataset, factor: float) -> xr.Dataset:
    """The same galaxy, brighter or fainter: the noise of the sky beside it is another."""
    scaled = [name for name in ("flux", "flux_g_blue", "flux_g_red") if name in truth]
    return truth.assign({name: truth[name].copy(data=truth[name] * factor) for name in scaled})


def draw(axes: Axes, one: Spectrum, top: float) -> None:
    axes.plot(one.wavelength, one.flux, color=one.colour, lw=0.35)
    axes.plot(one.wavelength, one.sigma, color=RED, lw=0.5)
    axes.set_ylim(-0.15 * top, top)
    axes.axhline(0, color=NOISY, lw=0.4, zorder=0)
    for line in SKY:
        axes.axvline(line, color=PALETTE[4], lw=0.5, alpha=0.5, zorder=0)
    if np.isfinite(one.z):
        mark(axes, one, top)
    kind = {True: ", star-forming", False: ", no lines", None: ""}[one.forming]
    z = f"z = {one.z:.3f}" if np.isfinite(one.z) else "no redshift"
    axes.set_title(f"{one.title}: {z}{kind}, S/N {one.snr:.1f}", fontsize=8, loc="left", pad=9)


def mark(axes: Axes, one: Spectrum, top: float) -> None:
    low, high = axes.get_xlim()
    for name, rest in REST.items():
        at = rest * (1 + one.z)
        if low < at < high:
            axes.plot([at, at], [0.93 * top, top], color=BLUE, lw=0.6, clip_on=False)
            axes.text(at, 1.01 * top, name, fontsize=5.5, color=BLUE, ha="center", va="bottom")


def ceiling(*both: Spectrum) -> float:
    """Strong lines may leave the panel; the continuum and most of the noise may not."""
    return 1.15 * max(float(np.nanpercentile(one.flux, 99.5)) for one in both)


def roughness(one: Spectrum) -> Array:
    """Second differences over their stated errors: a spectrum's own shape drops out."""
    f, v = one.flux, one.sigma**2
    return np.asarray((2 * f[1:-1] - f[:-2] - f[2:]) / np.sqrt(4 * v[1:-1] + v[:-2] + v[2:]))


def noise(axes: Axes, sets: dict[str, tuple[list[Spectrum], str]]) -> None:
    for name, (rows, colour) in sets.items():
        wavelength = rows[0].wavelength
        near = within(wavelength, (6050, 6250)) if wavelength[-1] > 6250 else wavelength > 0
        with np.errstate(invalid="ignore"):
            each = np.stack([one.sigma / np.nanmedian(one.sigma[near]) for one in rows])
        some = np.isfinite(each).any(axis=0)
        middle = np.nanmedian(each[:, some], axis=0)
        axes.plot(wavelength[some], middle, lw=0.5, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_ylim(0.3, 30)
    axes.set_title("noise over its median at 6050-6250 Å, median", fontsize=8, loc="left")
    axes.legend(fontsize=7)


def differences(axes: Axes, sets: dict[str, tuple[list[Spectrum], str]]) -> None:
    bins = np.linspace(-5, 5, 81)
    for name, (rows, colour) in sets.items():
        values = np.concatenate([roughness(one) for one in rows])
        values = values[np.isfinite(values)]
        spread = 1.4826 * np.median(np.abs(values - np.median(values)))
        share = 100 * np.mean(np.abs(values) > 4)
        axes.hist(values, bins, density=True, histtype="step", color=colour, lw=1,
                  label=f"{name}: {spread:.2f}; {share:.2f} % beyond 4")  # fmt: skip
    axes.plot(bins, np.exp(-0.5 * bins**2) / np.sqrt(2 * np.pi), color=NOISY, lw=0.8)
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_title("second differences over their errors; spread", fontsize=8, loc="left")
    axes.legend(fontsize=7, loc="lower center")


def along(axes: Axes, sets: dict[str, tuple[list[Spectrum], str]]) -> None:
    for rows, colour in sets.values():
        wavelength = rows[0].wavelength[1:-1]
        edges = np.arange(wavelength[0], wavelength[-1], 150.0)
        values = np.stack([roughness(one) for one in rows])
        spread = []
        for low, high in pairwise(edges):
            part = values[:, within(wavelength, (low, high))]
            part = part[np.isfinite(part)]
            spread.append(1.4826 * np.median(np.abs(part)) if part.size > 20 else np.nan)
        axes.plot((edges[1:] + edges[:-1]) / 2, spread, ".-", ms=3, lw=0.8, color=colour)
    axes.set_ylim(0, 1.6)
    axes.axhline(1, color=NOISY, lw=0.5)
    axes.set_title("their spread by wavelength", fontsize=8, loc="left")


def page(
    title: str,
    rows: list[list[list[Spectrum]]],
    sets: dict[str, tuple[list[Spectrum], str]],
    span: tuple[float, float],
) -> Figure:
    """Spectra, a row of panels each (a panel has one or several arms), and statistics below."""
    fig = Figure(figsize=(13, 2.05 * len(rows) + 3), layout="constrained")
    upper, lower = fig.subfigures(2, 1, height_ratios=[2.05 * len(rows), 2.6])
    upper.suptitle(title, fontsize=10)
    panels = upper.subplots(len(rows), len(rows[0]), sharex=True, squeeze=False)
    for line, row in zip(panels, rows, strict=True):
        top = ceiling(*(one for panel in row for one in panel))
        for axes, panel in zip(line, row, strict=True):
            axes.set_xlim(*span)
            for one in panel:
                draw(axes, one, top)
    for axes in panels[-1]:
        axes.set_xlabel("observed wavelength, Å, vacuum; flux black, noise orange", fontsize=8)
    for axes, what in zip(lower.subplots(1, 3), (noise, differences, along), strict=True):
        what(axes, sets)
    return fig


def save(fig: Figure, path: Path) -> None:
    fig.savefig(path, dpi=95)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(48, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def beside(name: str, real: list[Spectrum], mocks: dict[str, Galaxy], shown: int) -> Figure:
    grid = next(iter(resolve("storage.readers", name).build().configs.values()))
    all_made = {label: partners(mock, real, grid) for label, mock in mocks.items()}
    made = next(iter(all_made.values()))
    some = np.unique(np.linspace(0, len(real) - 1, min(shown, len(real))).round().astype(int))
    rows = [[[real[k]], [made[k]]] for k in some]
    seen = real[0].wavelength[np.isfinite(np.stack([one.sigma for one in real])).any(axis=0)]
    colours = (BLUE, PALETTE[2])
    sets = {f"real, {len(real)}": (real, "k")}
    sets |= {n: (rows, c) for (n, rows), c in zip(all_made.items(), colours, strict=False)}
    title = f"{name.upper()}: real (left) and the mock galaxies nearest to them (right), house unit"
    return page(title, rows, sets, (float(seen[0]) - 50, float(seen[-1]) + 50))


def weave(mock: Galaxy) -> Figure:
    """Both arms of four mock galaxies: there is nothing to compare with."""
    grids = resolve("storage.readers", "weave").build().configs
    arms = {name: grid for name, grid in grids.items() if "lr" in name.lower()}
    found: dict[str, list[Spectrum]] = {}
    for (name, grid), colour in zip(arms.items(), (BLUE, "k"), strict=True):
        truth = mock.truth(16, grid, 1, "weave")
        seen = mock.observe(truth, grid, 1, "weave")
        kinds = [bool(kind == 1) for kind in truth["population"].to_numpy()]
        rows = spectra(seen, grid, [f"mock {k}" for k in range(16)], kinds)
        found[name] = [replace(one, colour=colour) for one in rows]
    each = list(found.values())
    order = np.argsort([one.snr for one in each[0]])[[2, 6, 10, 14]]
    snr = {k: each[0][k].snr for k in order}
    rows = [[[replace(arm[k], snr=snr[k]) for arm in each]] for k in order]
    colours = (BLUE, "k")
    sets = {n: (r, c) for (n, r), c in zip(found.items(), colours, strict=True)}
    ends = np.concatenate([grid.edges[[0, -1]] for grid in arms.values()])
    span = (float(ends.min()), float(ends.max()))
    return page(
        "WEAVE-LR: mock only (no public data): blue and red arm, house unit", rows, sets, span
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    surveys = {"sdss": (sdss, "mock-v2"), "desi": (desi, "mock-desi")}
    with mpl.rc_context(STYLE):
        for name, (find, mock) in surveys.items():
            if not (options.data / name).is_dir():
                print(f"{name}: left out, no folder {options.data / name}")
                continue
            mocks = {mock: card(mock)}
            if name == "sdss":
                mocks[LEGACY_PRESET] = card(mock, instrument=LEGACY_PRESET)
            fig = beside(name, find(options.data / name), mocks, 4)
            save(fig, options.out / f"mock-beside-{name}.png")
        save(weave(card("mock-weave")), options.out / "mock-weave.png")


if __name__ == "__main__":
    main()
