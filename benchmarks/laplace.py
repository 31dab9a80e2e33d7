"""Absolute against squared differences as the loss, where the noise has the tails of a Laplacian.

    python benchmarks/laplace.py [--seeds 3] [--rows 4000] [--epochs 30] [--noise laplace]

Camilleri+2025, Fig. A1, with FS at an eighth of its widths and the same steps for both losses: mock
spectra of one noisy exposure each teach, others are judged at S/N 5-6 and at the survey's own. Each
seed has its own galaxies, noise, weights and order; both losses of a seed share them.
"""

import argparse
import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.index import measure
from storage.grid import Grid
from storage.mock import Mock
from storage.names import resolve
from training.apply import apply
from training.batch import Batch
from training.batches import Batches
from training.frames import named
from training.loop import loop
from training.model import Denoiser
from training.recipe import Fit
from training.source import ArraySource

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
FRAME = named("fs")
INDICES = ("Dn4000", "HdeltaF", "Mgb")
BINS: dict[str, tuple[float, float] | None] = {"S/N 5-6": (5.0, 6.0), "natural S/N": None}
LOSSES = ("mae", "mse")
WIDTHS = (3800, 375, 262, 188, 106, 44, 14, 38, 94, 175, 338, 3800)
CARD = Path(__file__).parents[1] / "deploy/cards/mocks/mock-v1.toml"

Row = NDArray[np.float64]
"Delta of each index and the rms of the spectrum."


def mock(noise: str) -> Mock:
    """mock-v1 with another distribution of its noise, of the same variance."""
    options = tomllib.loads(CARD.read_text())
    found: Mock = resolve("storage.mocks", options.pop("mock")).build(**options, noise=noise)
    return found


def lessons(survey: Mock, rows: int, seed: int) -> ArraySource:
    seen = survey.observe(survey.truth(rows, SDSS, seed, "train"), SDSS, seed, "train")
    return ArraySource(
        grid=SDSS, arrays={name: seen[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")}
    )


def trials(survey: Mock, rows: int, seed: int) -> Iterator[tuple[str, Batch, Batch]]:
    """Name, noisy and noiseless spectra of each bin."""
    truth, mapper = survey.truth(rows, SDSS, seed, "trial"), FRAME.on(SDSS)
    flux = truth["flux"].to_numpy()
    for name, snr in BINS.items():
        seen = survey.observe(truth, SDSS, seed, f"trial-{name}", snr)
        place = seen["z"].to_numpy(), seen["ebv"].to_numpy()
        noisy = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), *place)
        yield name, noisy, mapper.to(flux, np.ones_like(flux), *place)


def taught(source: ArraySource, loss: str, seed: int, options: argparse.Namespace) -> Denoiser:
    """FS in small after all its steps, whatever its loss is by then."""
    fit = Fit(
        epochs=options.epochs,
        batch_size=options.batch,
        lr=options.lr,
        schedule="onecycle",
        seed=seed,
    )
    model: Denoiser = resolve("training.models", "dense").build(
        FRAME.grid, widths=WIDTHS, loss=loss
    )
    rows = np.arange(len(source.arrays["z"]))
    batches = Batches(source=source, rows=rows, frame=FRAME, batch_size=fit.batch_size, seed=seed)
    model.load_state_dict(loop(model, batches, None, fit).model)
    return model.eval()


def far(flux: torch.Tensor, weight: torch.Tensor | None, noisy: Batch, clean: Batch) -> Row:
    """Delta_O of each index, and the rms over the pixels that have data."""
    both = [(flux, weight), (clean.x, clean.weight)]
    found = [measure(FRAME.grid.wavelength, x, w, INDICES).value.numpy() for x, w in both]
    off = (flux - clean.x)[(noisy.weight > 0) & (clean.weight > 0)]
    return np.append(np.nanstd(found[0] - found[1], axis=0), float(off.square().mean().sqrt()))


def seeded(survey: Mock, seed: int, options: argparse.Namespace) -> dict[str, dict[str, Row]]:
    """By bin: of the noise, and of each loss over that of the noise."""
    source = lessons(survey, options.rows, seed)
    models = {loss: taught(source, loss, seed, options) for loss in LOSSES}
    found: dict[str, dict[str, Row]] = {}
    for name, noisy, clean in trials(survey, options.trials, seed):
        noise = far(noisy.x, noisy.weight, noisy, clean)
        found[name] = {"noise": noise}
        for loss, model in models.items():
            found[name][loss] = far(apply(model, noisy).flux, None, noisy, clean) / noise
        found[name]["mae / mse"] = found[name]["mae"] / found[name]["mse"]
    return found


def table(name: str, each: list[dict[str, Row]]) -> None:
    print(f"\n{name:16s}" + "".join(f"{column:>18s}" for column in (*INDICES, "rms of spectrum")))
    for line in each[0]:
        values = np.stack([row[line] for row in each])
        scatter = values.std(axis=0, ddof=1) if len(each) > 1 else np.full(values.shape[1], np.nan)
        cells = zip(values.mean(axis=0), scatter, strict=True)
        print(f"{line:16s}" + "".join(f"{m:10.4f} ±{s:6.4f}" for m, s in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4000, help="spectra that teach")
    parser.add_argument("--trials", type=int, default=1000, help="spectra that judge, a bin")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="the largest, of one cycle")
    parser.add_argument("--noise", default="laplace", choices=("laplace", "gaussian"))
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    survey, started, each = mock(options.noise), time.perf_counter(), []
    print(
        f"{options.noise} noise, {options.rows} spectra, {options.epochs} epochs of batches of "
        f"{options.batch}; mean and scatter of {options.seeds} seeds"
    )
    for seed in range(1, options.seeds + 1):
        each.append(seeded(survey, seed, options))
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}")
    for name in BINS:
        table(name, [found[name] for found in each])
    print("\nnoise: its own Delta and rms; mae, mse: what is left of them, as a share of it")


if __name__ == "__main__":
    main()
