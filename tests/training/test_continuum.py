"""The pseudo-continuum is a running percentile of the pixels that count."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import beta, norm
from torch.utils._python_dispatch import TorchDispatchMode

from storage.grid import Grid
from tests.training.small import GRID, PIXELS, population
from training.bridge import bridged
from training.continuum import Continuum
from training.frames import named

REST = named("fs").grid
HALPHA = 6564.6


def by_hand(flux: NDArray[Any], good: NDArray[Any]) -> NDArray[Any]:
    """The continuum of one spectrum on `GRID`: 21 pixels, a knot every second, mean of five."""
    knots = np.arange(0, PIXELS + 1, 2)
    found = np.full(len(knots), np.nan)
    for number, middle in enumerate(knots):
        inside = slice(max(0, middle - 10), middle + 11)
        values = flux[inside][good[inside]]
        if len(values) >= 2.1:
            found[number] = np.percentile(values, 90)
    known = np.isfinite(found)
    found = np.interp(knots, knots[known], found[known])
    smooth = [found[max(0, k - 2) : k + 3].mean() for k in range(len(knots))]
    return np.interp(np.arange(PIXELS), knots, smooth)


def test_continuum_is_the_percentile_of_the_pixels_that_count() -> None:
    batch, _ = population(20)
    weight = batch.weight.clone()
    weight[3, 40:100], weight[4, :30], weight[5, 150:], weight[6, :195] = 0, 0, 0, 0
    found = Continuum(GRID, lines=False)(batch.x, weight)
    expected = [by_hand(x, w > 0) for x, w in zip(batch.x.numpy(), weight.numpy(), strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=2e-6)


def test_continuum_of_a_ramp_is_the_flux_of_40_angstrom_further() -> None:
    flux = torch.linspace(1, 2, REST.size)[None]
    found = Continuum(REST, lines=False)(flux, torch.ones_like(flux))
    # The 90th percentile of 101 ascending pixels is the 40th beyond the middle.
    middle = slice(200, 3500)
    torch.testing.assert_close(found[:, middle], flux[:, 240:3540], atol=1e-5, rtol=0)


def test_absorption_lines_do_not_pull_the_continuum_down() -> None:
    wavelength = torch.from_numpy(REST.wavelength)
    depth = sum(0.6 * torch.exp(-0.5 * ((wavelength - at) / 8) ** 2) for at in (4300, 5200, 5900))
    flux = (1 - depth).float()[None]
    found = Continuum(REST)(flux, torch.ones_like(flux))
    assert float((found - 1).abs().max()) < 1e-3


@pytest.mark.parametrize(("lines", "risen"), [(True, False), (False, True)])
def test_strong_emission_lines_are_left_out(lines: bool, risen: bool) -> None:
    wavelength = torch.from_numpy(REST.wavelength)
    flux = (1 + 5 * torch.exp(-0.5 * ((wavelength - HALPHA) / 3.5) ** 2)).float()[None]
    found = Continuum(REST, lines=lines)(flux, torch.ones_like(flux))
    assert bool((found > 1.05).any()) is risen


def test_noise_raises_the_continuum_by_an_order_statistic() -> None:
    rows, sigma = 200, 0.1
    noise = torch.randn(rows, REST.size, generator=torch.Generator().manual_seed(0))
    found = Continuum(REST, lines=False)(1 + sigma * noise, torch.ones_like(noise))
    # The 91st of 101 Gaussian numbers; a percentile of infinitely many would be 1.28 sigma.
    expected, _ = quad(lambda u: norm.ppf(u) * beta.pdf(u, 91, 11), 0, 1)
    assert float(found[:, 100:-100].mean() - 1) / sigma == pytest.approx(expected, abs=0.01)
    assert expected == pytest.approx(1.25, abs=0.01)


def test_what_a_missing_pixel_holds_does_not_move_the_continuum() -> None:
    batch, _ = population(20)
    spoilt = torch.where(batch.weight > 0, batch.x, 1e6)
    continuum = Continuum(GRID)
    assert torch.equal(continuum(spoilt, batch.weight), continuum(batch.x, batch.weight))


def test_a_spectrum_without_data_has_no_continuum_and_harms_no_other() -> None:
    batch, _ = population(4)
    continuum = Continuum(GRID)
    expected = continuum(batch.x, batch.weight)
    x, weight = batch.x.clone(), batch.weight.clone()
    x[2], weight[2] = 0, 0
    found = continuum(x, weight)
    assert torch.equal(found[2], torch.zeros(PIXELS))
    assert torch.equal(found[[0, 1, 3]], expected[[0, 1, 3]])
    assert torch.equal(continuum.divided(x, weight)[2], torch.zeros(PIXELS))


def test_what_is_left_does_not_know_the_continuum() -> None:
    batch, _ = population(10)
    x, weight, continuum = bridged(batch.x, batch.weight), batch.weight, Continuum(GRID)
    torch.testing.assert_close(continuum.subtracted(x + 3, weight), continuum.subtracted(x, weight))
    torch.testing.assert_close(continuum.divided(x * 3, weight), continuum.divided(x, weight))


@pytest.mark.parametrize(
    "grid",
    [
        Grid(kind="log", start=3.57, step=4e-4, size=825),
        Grid(kind="linear", start=3700, step=40, size=95),
        Grid(kind="linear", start=3700, step=1, size=30),
        Grid(kind="linear", start=3700, step=1, size=2),
    ],
    ids=lambda grid: f"{grid.kind}-{grid.step:g}-{grid.size}",
)
def test_a_flat_spectrum_is_its_own_continuum_on_any_grid(grid: Grid) -> None:
    flux = torch.full((3, grid.size), 2.0)
    found = Continuum(grid, lines=False)(flux, torch.ones_like(flux))
    torch.testing.assert_close(found, flux)


def test_many_spectra_take_as_many_steps_as_one() -> None:
    class Count(TorchDispatchMode):
        steps = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]  # torch's signature
            self.steps += 1
            return func(*args, **(kwargs or {}))

    batch, _ = population(50)
    counts = []
    for rows in (2, 50):
        with Count() as count:
            Continuum(GRID)(batch.x[:rows], batch.weight[:rows])
        counts.append(count.steps)
    assert counts[0] == counts[1]
