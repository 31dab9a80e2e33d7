"""What each model does is what its equations say."""

import numpy as np
import pytest
import torch

from storage.grid import Grid
from storage.names import resolve
from tests.training.small import GRID, PIXELS, population, small, taught
from training.batch import each

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["ppca", "mppca", "pca", "wiener"])
def test_components_must_be_fewer_than_pixels(name: str) -> None:
    with pytest.raises(ValueError, match="200 components of 200 pixels"):
        resolve("training.models", name).build(GRID, components=PIXELS)


def test_a_likelihood_asks_for_a_network_that_says_its_sigma() -> None:
    with pytest.raises(ValueError, match=r"it says none of its own; use loss 'chi2'"):
        resolve("training.models", "spender").build(GRID, loss="gaussian", sigma=True)


@pytest.mark.parametrize("name", ["dense", "windows", "ae", "vae", "unet"])
def test_a_network_does_not_start_from_spectra_without_data(name: str) -> None:
    batch, _ = population(10)
    blank = each(batch, torch.zeros_like)
    with pytest.raises(ValueError, match=r"no spectrum that should teach has data on the frame"):
        small(name).start(lambda: [blank], seed=1)


@pytest.mark.parametrize(("frequency", "gain"), [(0.1, 1.0), (0.8, 2**-0.5), (1.6, 1 / 1025**0.5)])
def test_butterworth_has_its_gain_and_no_phase(frequency: float, gain: float) -> None:
    pixel = torch.arange(2000.0)
    x = torch.stack([torch.cos(frequency * pixel), torch.sin(frequency * pixel)])
    model = resolve("training.models", "butterworth").build(
        Grid(kind="linear", start=4000, step=1, size=2000)
    )
    flux = model(x, torch.ones_like(x), torch.zeros(2)).flux
    middle = slice(500, 1500)
    torch.testing.assert_close(flux[:, middle], gain * x[:, middle], atol=2e-3, rtol=0)


def test_mean_is_that_of_the_good_pixels() -> None:
    batch, _ = population(50)
    model = resolve("training.models", "mean").build(GRID)
    variance = taught(model, batch, epochs=1)[0]
    hidden = np.ma.masked_array(batch.x.numpy(), batch.weight.numpy() == 0)
    output = model(batch.x, batch.weight, batch.z)
    np.testing.assert_allclose(output.flux[7], hidden.mean(axis=0), atol=1e-5)
    assert variance == pytest.approx(((hidden - hidden.mean(axis=0)) ** 2).mean(), rel=1e-4)
