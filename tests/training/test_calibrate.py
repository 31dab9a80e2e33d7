"""Calibrated errors on a stand-in for a mock whose posterior is known in closed form."""

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from storage.grid import Grid
from storage.mock import generator
from tests.training.toy import FRAME, GRID, Toy, objects
from training import calibrate
from training.calibrated import LEAST, Calibrated
from training.model import Denoiser, Output
from training.shown import BINS, MISSING, Shown, draw
from training.trials import linear, trial

NAMES = ("half", "step")
SPREAD = 0.15
HALF = slice(0, 50)
"Pixels of half a period."


def wave(wavelength: np.ndarray) -> np.ndarray:
    """One period is the window of the frame, so that its mean there is 0."""
    return np.asarray(np.sin(2 * np.pi * (wavelength - 4300) / 200))


class Waves(Toy):
    """Galaxies, and some quasars, of flux 2 (1 + a wave), a of standard deviation `SPREAD`."""

    def __init__(self, quasars: float = 0.0) -> None:
        self.quasars = quasars

    def truth(self, n: int, grid: Grid, seed: int, stream: str) -> xr.Dataset:
        rng = generator(seed, stream)
        z, a = rng.uniform(0, 0.02, n), rng.normal(0, SPREAD, n)
        rest = grid.wavelength / (1 + z[:, None])
        flux = 2 * (1 + a[:, None] * wave(rest))
        kind = np.where(rng.random(n) < self.quasars, "QSO", "GALAXY")
        return objects(flux, z, **{"class": kind})


def measure(
    wavelength: np.ndarray, flux: Tensor, ivar: Tensor | None, z: Tensor | None = None
) -> Tensor:
    """Mean of half a period, and how far it is from the next half."""
    first, second = flux[:, HALF].mean(1), flux[:, 50:100].mean(1)
    return torch.stack([first, first - second], 1).double()


class Posterior(Denoiser):
    """The posterior mean of a; says that its standard deviation is `claimed` of what it is."""

    fit = "none"

    def __init__(self, claimed: float | None = 1.0, left: float = 1.0) -> None:
        super().__init__()
        self.claimed, self.left = claimed, left
        self.register_buffer("wave", torch.from_numpy(wave(FRAME.grid.wavelength)).float())

    def decode(self, latent: Tensor) -> Tensor:
        return 1 + latent * self.wave

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        variance = 1 / ((weight * self.wave**2).sum(1) + SPREAD**-2)
        mean = self.left * variance * (weight * (x - 1) * self.wave).sum(1)
        latent = mean[:, None]
        if self.claimed is None:
            return Output(self.decode(latent))
        cov = (self.claimed**2 * variance)[:, None, None]
        return Output(self.decode(latent), latent=latent, latent_cov=cov)


class Copy(Denoiser):
    """Denoises nothing."""

    fit = "none"

    def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
        return Output(x)


def shown(n: int = 400, stream: str = "calibrate", quasars: float = 0.0) -> Shown:
    drawn = partial(draw, Waves(quasars), FRAME, GRID, measure=measure, names=NAMES)
    return drawn(n=n, seed=1, stream=stream)


@pytest.fixture(scope="module")
def taught() -> Shown:
    """What tables are made from."""
    return shown()


@pytest.fixture(scope="module")
def fresh() -> Shown:
    """Other objects with other noise."""
    return shown(stream="test")


def table(model: Denoiser, taught: Shown) -> Calibrated:
    return calibrate.calibrate(model, taught, draws=16, seed=1)


def known(found: Calibrated, rows: Shown) -> dict[str, np.ndarray]:
    return found.look_up(NAMES, rows.kind, rows.batch.z.numpy(), rows.snr)


def coverage(apart: np.ndarray, error: np.ndarray, rows: Shown) -> np.ndarray:
    """Share (S, I) that is within its error, in bins of S/N."""
    within = np.abs(apart) < error
    parts = [(rows.snr >= low) & (rows.snr < high) for low, high in BINS]
    return np.array([within[part].mean(0) for part in parts])


TOLERATED = 0.05 + np.sqrt(0.68 * 0.32 * 2 / 400)
"Five points, and the binomial error of both samples of a bin."

STUDENT = 1.034
"68.3 % of Student's t with 15 degrees of freedom: a scatter of 16 draws is not known exactly."


def test_an_honest_posterior_needs_no_factor(taught: Shown) -> None:
    found = known(table(Posterior(), taught), taught)
    np.testing.assert_allclose(np.median(found["factor"], axis=0), STUDENT, atol=0.08)


def test_an_overconfident_posterior_covers_once_it_is_calibrated(
    taught: Shown, fresh: Shown
) -> None:
    model = Posterior(claimed=0.5)
    found = known(table(model, taught), fresh)
    np.testing.assert_allclose(np.median(found["factor"], axis=0), 2 * STUDENT, atol=0.16)
    output, drawn = calibrate.answers(model, fresh, draws=16, seed=2)
    apart = output - fresh.truth
    assert (coverage(apart, drawn, fresh) < 0.683 - TOLERATED).all()
    actual = coverage(apart, drawn * found["factor"], fresh)
    np.testing.assert_allclose(actual, 0.683, atol=TOLERATED)


def test_the_table_alone_covers_for_a_model_without_draws(taught: Shown, fresh: Shown) -> None:
    model = Posterior(claimed=None)
    found = known(table(model, taught), fresh)
    assert np.isnan(found["factor"]).all()
    output, drawn = calibrate.answers(model, fresh, draws=16, seed=2)
    assert np.isnan(drawn).all()
    actual = coverage(output - fresh.truth, found["error"], fresh)
    np.testing.assert_allclose(actual, 0.683, atol=TOLERATED)


def test_the_error_of_a_copy_is_that_of_its_noise(taught: Shown) -> None:
    found = known(table(Copy(), taught), taught)
    # Of 50 pixels, and of the 100 of the window that they are divided by.
    formal = np.sqrt(1 / 50 + 1 / 100) / taught.snr
    ratio = found["error"][:, 0] / formal
    np.testing.assert_allclose(np.median(ratio), 1, atol=0.07)
    # Interpolated between bins, it follows the noise within them as well.
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.25


def test_a_bias_is_part_of_the_error(taught: Shown) -> None:
    class Biased(Copy):
        def forward(self, x: Tensor, weight: Tensor, z: Tensor) -> Output:
            return Output(x + 0.5)

    found = table(Biased(), taught)
    column = found.curves[-1].indices["half"]
    np.testing.assert_allclose(column.bias, 0.5, atol=0.02)
    assert (np.array(column.error) > 0.5).all()
    assert (np.array(column.scatter)[-3:] < 0.02).all()
    # A shift is in the intercept, and a de-shrunk value is without it.
    assert (np.array(column.deshrunk)[-3:] < 0.02).all()


def test_shrinkage_is_found_and_taken_out(taught: Shown, fresh: Shown) -> None:
    model = Posterior(claimed=None, left=0.5)
    found = known(table(model, taught), fresh)
    np.testing.assert_allclose(found["slope"][fresh.snr > 8], 0.5, atol=0.03)
    output, _ = calibrate.answers(model, fresh, draws=16, seed=2)
    deshrunk = (output - found["intercept"]) / found["slope"]
    for index in range(2):
        slope = np.polyfit(fresh.truth[:, index], deshrunk[:, index], 1)[0]
        assert slope == pytest.approx(1, abs=0.04)
    actual = coverage(deshrunk - fresh.truth, found["deshrunk"], fresh)
    np.testing.assert_allclose(actual, 0.683, atol=TOLERATED)
    assert (found["deshrunk"][fresh.snr > 8] < found["error"][fresh.snr > 8]).all()


def test_what_says_nothing_of_the_truth_cannot_be_stretched(taught: Shown) -> None:
    column = table(Posterior(left=0.0), taught).curves[-1].indices["half"]
    np.testing.assert_allclose(column.slope, 0, atol=1e-6)
    assert np.isnan(column.deshrunk).all()
    np.testing.assert_allclose(column.error, 0.637 * SPREAD, rtol=0.15)


def test_calibration_shares_no_object_with_the_trials_of_a_verdict() -> None:
    reference = linear(Waves(), FRAME, GRID, n=100, seed=1, components=2)
    about = {"n": 50, "seed": 1, "measure": measure, "names": NAMES}
    judged = trial(Waves(), FRAME, GRID, references={"linear": reference}, **about)
    seen = set(np.concatenate(list(judged.truth.values()))[:, 0].tolist())
    drawn = draw(Waves(), FRAME, GRID, **about)
    assert not seen & set(drawn.truth[:, 0].tolist())
    again = draw(Waves(), FRAME, GRID, **about)
    np.testing.assert_array_equal(again.truth, drawn.truth)


def test_spectra_that_lack_much_of_the_frame_do_not_count() -> None:
    wide = FRAME.model_copy(update={"grid": Grid(kind="linear", start=4000.0, step=2.0, size=420)})
    found = draw(Waves(), wide, GRID, n=50, seed=1, measure=measure, names=NAMES)
    assert (found.batch.missing <= MISSING).all()
    assert 0 < len(found.snr) < 50 * len(BINS)


def test_nothing_to_show_is_a_table_of_nothing() -> None:
    beyond = FRAME.model_copy(
        update={
            "grid": Grid(kind="linear", start=6000.0, step=2.0, size=300),
            "window": (6300, 6500),
        }
    )
    none = draw(Waves(), beyond, GRID, n=10, seed=1, measure=measure, names=NAMES)
    found = calibrate.calibrate(Copy(), none, draws=16, seed=1)
    assert found.curves == ()
    assert np.isnan(found.look_up(NAMES, ["GALAXY"], [0.01], [5.0])["error"]).all()


def test_cells_of_few_objects_are_stood_in_for_by_coarser_ones() -> None:
    # A third of 150 objects is too few for a range of redshift, a fifth for a class.
    rows = shown(n=150, quasars=0.2)
    found = table(Posterior(claimed=None), rows)
    kinds = {(curve.kind, curve.z is None) for curve in found.curves}
    assert kinds == {("GALAXY", False), ("GALAXY", True), ("QSO", False), ("QSO", True), ("", True)}
    near = next(curve for curve in found.curves if curve.kind == "GALAXY")
    assert max(near.indices["half"].n) < LEAST
    assert np.isnan(near.indices["half"].error).all()
    whole = found.curves[-1].indices["half"]
    assert min(whole.n) >= LEAST
    middle = next(curve.snr for curve in found.curves if curve.kind == "QSO")
    actual = found.look_up(NAMES, ["QSO"] * len(BINS), [0.001] * len(BINS), middle)["error"][:, 0]
    np.testing.assert_allclose(actual, whole.error, rtol=1e-5)
