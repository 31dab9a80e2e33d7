"""Mock stars of known parameters, and models that learnt from others of their kind."""

import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.grid import Grid
from storage.mock import Mock
from storage.names import resolve
from storage.simulation.instrument import C_KMS
from storage.simulation.stellar_night import FRAME, PAPER
from training.batches import Batches
from training.frames import named
from training.loop import loop
from training.model import Denoiser
from training.recipe import ModelCard
from training.source import ArraySource

CARDS = Path(__file__).parents[1] / "deploy/cards"
RED = Grid(kind="log", start=3.8450, step=1e-4, size=1060)
"The pixels of SDSS about the frame: 6998-8930 A."
STAR = named("star")

Array = NDArray[np.float64]


class Sample(NamedTuple):
    """Mock stars, as observed and as they are."""

    wavelength: Array
    seen: Mapping[str, NDArray[Any]]
    "flux, ivar, truth (N, L); z, ebv as measured."
    truth: Mapping[str, Array]
    "velocity, teff, logg, feh (N,)."
    snr: Array
    "(N,) median per pixel of the band."


def survey(paper: bool) -> tuple[Mock, Grid]:
    """The stars, and the pixels they are seen on."""
    if paper:
        return resolve("storage.mocks", "star").build(**PAPER | {"magnitude": (19.0, 23.5)}), FRAME
    options = tomllib.loads((CARDS / "mocks/star-v1.toml").read_text())
    module = resolve("storage.mocks", options.pop("mock"))
    return module.build(**options | {"magnitude": (15.5, 21.7)}), RED


def sample(mock: Mock, grid: Grid, count: int, stream: str) -> Sample:
    truth = mock.truth(count, grid, 1, stream)
    seen = mock.observe(truth, grid, 1, stream)
    low, high = STAR.window
    band = (grid.wavelength > low) & (grid.wavelength < high)
    arrays = {name: seen[name].to_numpy() for name in ("flux", "ivar", "z", "ebv")}
    arrays["truth"] = truth["flux"].to_numpy()
    each = arrays["truth"] * np.sqrt(arrays["ivar"])
    snr = np.nanmedian(np.where(arrays["ivar"] > 0, each, np.nan)[:, band], axis=1)
    values = {name: truth[name].to_numpy().astype(float) for name in ("teff", "logg", "feh")}
    values["velocity"] = truth["z"].to_numpy() * C_KMS
    return Sample(grid.wavelength, arrays, values, snr.astype(float))


def taught(name: str, lessons: Sample, grid: Grid) -> tuple[Denoiser, float]:
    """A model of a card, and the seconds that it took."""
    began = time.perf_counter()
    card = ModelCard.load(CARDS / f"models/{name}.toml")
    model = card.build(STAR.grid)
    batches = Batches(
        source=ArraySource(grid=grid, arrays=dict(lessons.seen)),
        rows=np.arange(len(lessons.snr)),
        frame=STAR,
        batch_size=card.fit.batch_size,
        augment=card.augment,
        seed=1,
    )
    model.load_state_dict(loop(model, batches, None, card.fit).model)
    return model.eval(), time.perf_counter() - began
