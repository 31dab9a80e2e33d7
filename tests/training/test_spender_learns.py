"""The small SPENDER learns from mock galaxies of a survey, as its card says, on a CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.names import resolve
from tests.training.test_spender import CARDS
from training.batch import Batch, take
from training.frames import named
from training.recipe import ModelCard
from training.redshifted import Redshifted
from training.schedule import Schedule

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
ROWS, SEEN = 1800, 1500


def galaxies() -> tuple[Batch, torch.Tensor]:
    """Mock galaxies in the frame of SPENDER, S/N of 4 to 8 in g, and their noiseless flux there."""
    mock = resolve("storage.mocks", "galaxy").build()
    truth = mock.truth(ROWS, SDSS, seed=1, stream="spender")
    seen = mock.observe(truth, SDSS, seed=1, stream="spender", snr_g=(4, 8))
    mapper = named("spender").on(SDSS)
    where = {"z": truth["z"].to_numpy(), "ebv": truth["ebv"].to_numpy()}
    batch = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), **where)
    flux = truth["flux"].to_numpy()
    exact = mapper.to(flux, np.ones_like(flux), **where)
    return batch, exact.x * (exact.scale / batch.scale)[:, None]


def mean_spectrum(model: Any, batch: Batch) -> torch.Tensor:
    """What a galaxy is without a model of it: the mean rest-frame spectrum at its redshift."""
    wavelength, rest = model.grid.wavelength, model.rest.wavelength
    rows = zip(batch.x[:SEEN].numpy(), batch.z[:SEEN].numpy(), strict=True)
    at_rest = [np.interp(rest * (1 + z), wavelength, x, np.nan, np.nan) for x, z in rows]
    known = np.isfinite(at_rest).any(0)
    mean = np.ones(len(rest))
    mean[known] = np.nanmean(np.array(at_rest)[:, known], axis=0)
    still = torch.from_numpy(mean).float().expand(ROWS - SEEN, -1)
    return Redshifted(model.rest, model.grid)(still, batch.z[SEEN:])


@pytest.mark.slow
def test_the_small_card_learns_galaxies_better_than_their_mean() -> None:
    batch, truth = galaxies()
    card = ModelCard.load(CARDS / "spender-small.toml")
    model: Any = card.build(named("spender").grid)
    model.start(lambda: [batch], card.fit.seed)
    steps = -(-SEEN // card.fit.batch_size)
    schedule = Schedule(list(model.parameters()), card.fit, card.fit.epochs, steps)
    random = torch.Generator().manual_seed(0)
    before = float(model.loss(take(batch, slice(SEEN, None))).detach())
    for _ in range(card.fit.epochs):
        for rows in torch.randperm(SEEN, generator=random).split(card.fit.batch_size):
            schedule.step(model.loss(take(batch, rows)))
    unseen = take(batch, slice(SEEN, None))
    with torch.no_grad():
        model.eval()
        assert float(model.loss(unseen)) < before / 2
        flux = model(unseen.x, unseen.weight, unseen.z).flux
    good = unseen.weight > 0

    def error(found: torch.Tensor) -> float:
        return float(torch.where(good, found - truth[SEEN:], 0).square().mean().sqrt())

    assert error(flux) < 0.6 * error(mean_spectrum(model, batch))
    assert error(flux) < error(unseen.x)
