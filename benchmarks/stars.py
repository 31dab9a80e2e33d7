"""Velocities and parameters of mock stars: what a denoised spectrum is worth as a start.

    python -m benchmarks.stars [--stars 1200] [--models ppca unet-small] [--paper] [--out NAME]

Stars of star-v1, made fainter so that S/N goes down to 1, are searched (`start_values`) in the raw
spectrum, with its ivar and with even weights; in what each model makes of it on the frame `star`;
and in the noiseless spectrum, which is the limit. From each start, and from the middle of all
ranges, the raw spectrum is fitted (`measure_stars`). Told against S/N: errors of the starts, share
of velocities that are lost, steps of the fit, and how often it ends elsewhere than at the lowest
chi^2 that any start led to. Writes NAME.txt and NAME.png.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.star_sample import STAR, Sample, sample, survey, taught
from pipeline.canvas import NOISY, PALETTE, STYLE, TRUTH, legend
from pipeline.stars.fit import Stars, Start, measure_stars, start_values
from pipeline.stars.flag import Flag
from pipeline.stars.templates import Templates, TemplateSet, line_spread, templates
from storage.grid import Grid
from storage.simulation.instrument import load
from storage.simulation.stellar_night import PAPER
from training.apply import apply
from training.batch import Batch

EDGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
FAR = 100.0
"km/s: a velocity that is further off is lost."
ELSEWHERE = 1.0
"A fit whose chi^2 is by so much above the lowest found is in another minimum."
COLOURS = {"raw": NOISY, "raw, even": "#7f8792", "noiseless": TRUTH, "middle": "#7a5195"}
MIDDLE = "middle"

Array = NDArray[np.float64]


class Told(NamedTuple):
    """What one start did, in one bin of S/N."""

    stars: int
    start: dict[str, float]
    "Error of each quantity: 1.4826 times the median of the absolute difference."
    lost: float
    "Share of starts whose velocity is lost."
    steps: float
    "Mean of the fit."
    elsewhere: float
    "Share of fits that end elsewhere, or nowhere."
    fit: dict[str, float]
    "As start."
    fit_lost: float
    "Share of fits whose velocity is lost, or that give none."


def starts(
    trial: Sample, grid: Grid, models: Mapping[str, Any], stars: Templates
) -> dict[str, Start]:
    """Where each spectrum says to start."""
    seen = trial.seen
    wavelength, ivar = trial.wavelength, seen["ivar"]
    good = ivar > 0
    even = good * np.nanmedian(np.where(good, ivar, np.nan), axis=1, keepdims=True)
    found = {
        "raw": start_values(wavelength, seen["flux"], ivar, templates=stars),
        "raw, even": start_values(wavelength, seen["flux"], even, templates=stars),
    }
    batch: Batch = STAR.on(grid).to(*(seen[k] for k in ("flux", "ivar", "z", "ebv")))
    for name, model in models.items():
        flux = apply(model, batch).flux
        found[name] = start_values(STAR.grid.wavelength, flux, batch.weight, templates=stars)
    found["noiseless"] = start_values(wavelength, seen["truth"], ivar, templates=stars)
    nowhere = torch.full((len(ivar), 4), torch.nan, dtype=torch.float64)
    flag = torch.zeros(len(ivar), dtype=torch.uint8)
    found[MIDDLE] = Start(nowhere[:, 0], nowhere[:, 0], nowhere, nowhere[:, 0], flag)
    return found


def tell(
    trial: Sample, found: Mapping[str, Start], fits: Mapping[str, Stars]
) -> dict[str, list[Told]]:
    """By start, a `Told` a bin."""
    chi2 = {name: np.nan_to_num(fit.chi2.numpy(), nan=np.inf) for name, fit in fits.items()}
    lowest = np.min(list(chi2.values()), axis=0)
    bins = np.digitize(trial.snr, EDGES)
    said: dict[str, list[Told]] = {name: [] for name in fits}
    for name, fit in fits.items():
        first = {
            "velocity": found[name].velocity.numpy(),
            **dict(zip(("teff", "logg", "feh"), found[name].parameters.numpy().T, strict=False)),
        }
        last = {key: getattr(fit, key).numpy() for key in first}
        for number in range(1, len(EDGES)):
            rows = bins == number
            said[name].append(
                Told(
                    stars=int(rows.sum()),
                    start=_errors(first, trial, rows),
                    lost=_lost(first["velocity"], trial, rows),
                    steps=float(fit.iterations.numpy()[rows].mean()),
                    elsewhere=float((chi2[name] > lowest + ELSEWHERE)[rows].mean()),
                    fit=_errors(last, trial, rows),
                    fit_lost=_lost(last["velocity"], trial, rows),
                )
            )
    return said


def _errors(found: Mapping[str, Array], trial: Sample, rows: NDArray[np.bool_]) -> dict[str, float]:
    away = {key: np.abs(value - trial.truth[key])[rows] for key, value in found.items()}
    # What is not a number is as far as anything.
    return {k: 1.4826 * float(np.median(np.nan_to_num(v, nan=np.inf))) for k, v in away.items()}


def _lost(velocity: Array, trial: Sample, rows: NDArray[np.bool_]) -> float:
    return float((~(np.abs(velocity - trial.truth["velocity"]) < FAR))[rows].mean())


def table(said: Mapping[str, list[Told]]) -> str:
    head = (
        f"{'S/N':>7s} {'stars':>5s}  {'start from':14s}"
        f"{'km/s':>7s}{'K':>6s}{'logg':>6s}{'feh':>6s}{'lost':>7s}  |"
        f"{'steps':>6s}{'elsewhere':>10s}{'km/s':>7s}{'K':>6s}{'logg':>6s}{'feh':>6s}{'lost':>7s}"
    )
    half = len(f"{'':7s} {'':5s}  {'':14s}{'':7s}{'':6s}{'':6s}{'':6s}{'':7s}  ")
    lines = [f"{'start':>{half - 2}s}  | fit of the raw spectrum", head]
    for number in range(len(EDGES) - 1):
        for name, each in said.items():
            one = each[number]
            label = f"{EDGES[number]:g}-{EDGES[number + 1]:g}"
            lines.append(
                f"{label:>7s} {one.stars:5d}  {name:14s}{_cells(one.start)}{one.lost:7.1%}  |"
                f"{one.steps:6.1f}{one.elsewhere:10.1%}{_cells(one.fit)}{one.fit_lost:7.1%}"
            )
        lines.append("")
    return "\n".join(lines)


def _cells(error: Mapping[str, float]) -> str:
    shown = zip(("velocity", "teff", "logg", "feh"), ("7.1f", "6.0f", "6.2f", "6.2f"), strict=True)
    return "".join(
        format(error[k], f) if np.isfinite(error[k]) else f"{'-':>{f[0]}s}" for k, f in shown
    )


def draw(said: Mapping[str, list[Told]], path: Path) -> None:
    """Upper panels are of the start, lower ones of the fit."""
    shown: list[tuple[str, str, Callable[[Told], float]]] = [
        ("start: velocity", "error (km/s)", lambda t: t.start["velocity"]),
        ("start: velocity lost", "%", lambda t: 100 * t.lost),
        ("start: Teff", "error (K)", lambda t: t.start["teff"]),
        ("start: [Fe/H]", "error (dex)", lambda t: t.start["feh"]),
        ("fit of raw: velocity", "error (km/s)", lambda t: t.fit["velocity"]),
        ("fit of raw: velocity lost", "%", lambda t: 100 * t.fit_lost),
        ("fit of raw: steps", "mean", lambda t: t.steps),
        ("fit of raw: not at the lowest", "%", lambda t: 100 * t.elsewhere),
    ]
    middle = np.sqrt(np.multiply(EDGES[1:], EDGES[:-1]))
    spare = iter(PALETTE)
    colour = {name: COLOURS[name] if name in COLOURS else next(spare) for name in said}
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(13, 6.2), layout="constrained")
        panels = fig.subplots(2, 4)
        for axes, (title, unit, value) in zip(panels.flat, shown, strict=True):
            for name, each in said.items():
                if not (title.startswith("start") and name == MIDDLE):
                    found = [value(one) for one in each]
                    axes.plot(middle, found, "o-", ms=4, color=colour[name], label=name)
            axes.set(xscale="log", xlabel="S/N per pixel", title=title, ylabel=unit)
            axes.xaxis.set_major_locator(mpl.ticker.FixedLocator(EDGES))
            scales: list[Any] = [axes.xaxis]
            if unit.startswith("error"):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                scales.append(axes.yaxis)
            else:
                axes.set_ylim(bottom=0)
            for scale in scales:
                scale.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
                scale.set_minor_formatter(mpl.ticker.NullFormatter())
        legend(fig, list(panels.flat))
        fig.savefig(path, dpi=110)


def run(options: argparse.Namespace) -> tuple[list[str], dict[str, list[Told]]]:
    """What to say first, and what was found."""
    mock, grid = survey(options.paper)
    kind = "the mock of Pal & Dobos (2024)" if options.paper else "star-v1, to fainter magnitudes"
    said = [
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; torch {torch.__version__}, {options.threads} threads",
        f"{kind}; {options.stars} stars; models learnt from {options.lessons} others",
    ]
    lessons, models = sample(mock, grid, options.lessons, "lessons"), {}
    for name in options.models:
        models[name], seconds = taught(name, lessons, grid)
        said.append(f"{name}: {seconds:.0f} s to learn")
    trial = sample(mock, grid, options.stars, "trial")
    spread = load(PAPER["instrument"] if options.paper else "sdss").lsf_pixels(grid)
    stars = templates(TemplateSet(line_spread=line_spread(spread, grid)))
    began = time.process_time()
    found = starts(trial, grid, models, stars)
    between = time.process_time()
    raw = trial.wavelength, trial.seen["flux"], trial.seen["ivar"]
    fits = {name: measure_stars(*raw, templates=stars, start=s) for name, s in found.items()}
    searched, fitted = between - began, time.process_time() - between
    said += [
        f"{len(stars.flux)} templates of {stars.axis.size} points; CPU time a spectrum: "
        f"{1e3 * searched / (len(found) - 1) / options.stars:.1f} ms a search, models included, "
        f"{1e3 * fitted / len(fits) / options.stars:.1f} ms a fit",
        pulls(trial, fits["raw"]),
    ]
    return said, tell(trial, found, fits)


def pulls(trial: Sample, fit: Stars) -> str:
    """Errors against what they are errors of, for S/N above 8."""
    found = []
    for name, value, error in (
        ("velocity", fit.velocity, fit.velocity_err),
        ("teff", fit.teff, fit.teff_err),
        ("logg", fit.logg, fit.logg_err),
        ("feh", fit.feh, fit.feh_err),
    ):
        away = ((value.numpy() - trial.truth[name]) / error.numpy())[trial.snr > 8]
        inside = np.mean(np.abs(away[np.isfinite(away)]) < 1)
        found.append(f"{name} {inside:.0%} of {np.isfinite(away).sum()}")
    ambiguous = (fit.flag.numpy() & int(Flag.AMBIGUOUS)) > 0
    parts = [_lost(fit.velocity.numpy(), trial, rows) for rows in (ambiguous, ~ambiguous)]
    return (
        f"within one error of the truth, S/N above 8, start raw: {', '.join(found)}\n"
        f"flagged ambiguous: {ambiguous.mean():.0%}, of which {parts[0]:.1%} are lost; of others "
        f"{parts[1]:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=1200, help="that are measured")
    parser.add_argument("--lessons", type=int, default=2000, help="stars that models learn from")
    parser.add_argument("--models", nargs="*", default=["ppca", "dae-small", "unet-small"])
    parser.add_argument("--paper", action="store_true", help="seen as in Pal & Dobos (2024)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("stars"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    said, told = run(options)
    text = "\n".join([*said, "", table(told)])
    print(text)
    options.out.with_suffix(".txt").write_text(text)
    draw(told, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
