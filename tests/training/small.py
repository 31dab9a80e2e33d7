"""Small: every model of the shelf at a size that a test teaches in a second, on one small grid."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr

from storage.grid import Grid
from storage.mock import generator
from storage.names import resolve
from training.batch import Batch, take
from training.model import Denoiser

PIXELS, ROWS = 200, 600
GRID = Grid(kind="linear", start=4000, step=5, size=PIXELS)

OPTIONS: dict[str, dict[str, Any]] = {
    "dense": {"widths": [PIXELS, 40, 10, 40, PIXELS]},
    "windows": {"windows": [[4000, 4200], [4600, 4800]], "branch": [20, 12], "trunk": [24, 32]},
    "ppca": {"components": 5},
    "mppca": {"components": 5, "kinds": 3, "plain": 2},
    "pca": {"components": 5},
    "wiener": {"components": 5},
    "ae": {"latent": 4, "units": [64, 32], "dropout": 0.1},
    "vae": {"latent": 4, "units": [64, 32], "dropout": 0.1},
    "dae": {"hidden": [64, 24, 64], "output": "linear"},
    "unet": {"filters": 8, "levels": 2, "output": "linear"},
    "spender": {"filters": [8, 12, 16], "encoder": [12], "decoder": [12, 16], "lsf": 3},
    "ensemble": {"model": "dense", "options": {"widths": [PIXELS, 10, PIXELS]}, "members": 2},
}
"What build() takes on `GRID`, by model; a model that is not here is built as it is."


def small(name: str) -> Denoiser:
    """The model, untaught."""
    found: Denoiser = resolve("training.models", name).build(GRID, **OPTIONS.get(name, {}))
    return found


def made(x: np.ndarray, weight: np.ndarray) -> Batch:
    """A batch as a frame would give it: missing pixels bridged."""
    filled = x.copy()
    pixel = np.arange(x.shape[1])
    for row, good in zip(filled, weight > 0, strict=True):
        if good.any():
            row[:] = np.interp(pixel, pixel[good], row[good])
    n = len(x)
    return Batch(
        x=torch.from_numpy(filled).float(),
        weight=torch.from_numpy(weight).float(),
        scale=torch.ones(n),
        z=torch.zeros(n, dtype=torch.float64),
        ok=torch.from_numpy((weight > 0).any(1)),
    )


def population(n: int = ROWS, seed: int = 0) -> tuple[Batch, np.ndarray]:
    """Spectra of three smooth components, S/N 3 to 15 per pixel, 5 % missing; and their truth."""
    random = np.random.default_rng(seed)
    pixel = np.arange(PIXELS)
    shapes = np.stack([np.sin(pixel / 30), np.cos(pixel / 17), np.sin(pixel / 8)])
    truth = 1 + (random.normal(size=(n, 3)) * [0.3, 0.2, 0.1]) @ shapes
    snr = random.uniform(3, 15, size=(n, 1)) * np.ones(PIXELS)
    x = truth + random.normal(size=truth.shape) / snr
    weight = np.where(random.random(truth.shape) < 0.05, 0, snr**2)
    return made(x, weight), truth


def cut(batch: Batch, rows: int) -> Iterator[Batch]:
    for first in range(0, len(batch.x), rows):
        yield take(batch, slice(first, first + rows))


def sums(model: Denoiser, batch: Batch, rows: int = 100) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for part in cut(batch, rows):
        for name, value in model.accumulate(part).items():
            total[name] = total.get(name, 0) + value.double()
    return total


def taught(model: Denoiser, batch: Batch, epochs: int = 8) -> list[float]:
    """Objectives, epoch by epoch."""
    model.start(lambda: cut(batch, 100), seed=1)
    if model.fit == "none":
        return []
    if model.fit == "sums":
        with torch.no_grad():
            return [model.update(sums(model, batch)) for _ in range(epochs)]
    descent = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    for _ in range(epochs):
        for part in cut(batch, 50):
            descent.zero_grad()
            loss = model.loss(part)
            loss.backward()
            descent.step()
        found.append(float(model.loss(batch).detach()))
    return found


def descend(model: Denoiser, batch: Batch, lr: float) -> None:
    """Three plain steps: weights that start at 0 hide what is before them for one."""
    model.start(lambda: cut(batch, 50), seed=1)
    descent = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(3):
        descent.zero_grad()
        model.loss(batch).backward()
        descent.step()


def assert_all_pulled_on(model: Denoiser) -> None:
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        assert parameter.grad.abs().sum() > 0, label


def observed(
    truth: xr.Dataset,
    grid: Grid,
    seed: int,
    stream: str,
    snr_g: tuple[float, float] | None,
    level: float,
) -> xr.Dataset:
    """The truth of a mock at S/N 4 to 30 of a flux of `level`, 2 % of the pixels missing."""
    rng = generator(seed, stream)
    n = truth.sizes["spectrum"]
    snr = rng.uniform(*(snr_g or (4.0, 30.0)), n)
    sigma = level / snr[:, None] * np.ones(grid.size)
    ivar = np.where(rng.random(sigma.shape) < 0.02, 0.0, sigma**-2)
    flux = (truth["flux"].to_numpy() + sigma * rng.normal(size=sigma.shape)) * (ivar > 0)
    axes = ("spectrum", "wavelength")
    return truth.assign(
        flux=(axes, flux.astype(np.float32)),
        ivar=(axes, ivar.astype(np.float32)),
        snr_g=("spectrum", snr),
    )
