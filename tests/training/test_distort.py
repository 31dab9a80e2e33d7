"""What is drawn on the pixels of a frame has the size, the shape and the place that was asked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from training.augment import Augment
from training.batch import Batch
from training.bridge import bridged
from training.distort import WIDEST_GAP, curves, distorted, gaps

PIXELS = 400


def batch(n: int = 200, weight: float = 100) -> Batch:
    """Spectra of L2 norm 1 with two missing pixels; the last one is not ok."""
    x = 1 + 0.3 * torch.sin(torch.arange(PIXELS) / 40)
    x = (x / x.norm()).repeat(n, 1)
    weights = torch.full((n, PIXELS), float(weight))
    weights[:, [50, 51]] = 0
    x[-1], weights[-1] = 0, 0
    return Batch(
        x=bridged(x, weights),
        weight=weights,
        scale=torch.ones(n),
        z=torch.zeros(n, dtype=torch.float64),
        ok=torch.arange(n) < n - 1,
    )


def changed(given: Batch, seed: int = 0, **augment: Any) -> Batch:
    before = given.x.clone(), given.weight.clone()
    found = distorted(given, Augment(**augment), np.random.default_rng(seed))
    assert torch.equal(given.x, before[0])
    assert torch.equal(given.weight, before[1])
    for value in (found.x[-1], found.weight[-1], *(part[-1] for part in found.wanted)):
        assert not value.any(), "a spectrum that is not ok stays 0"
    return found


def test_sigma_is_the_noise_of_good_pixels_of_the_input() -> None:
    given = batch(weight=25)
    found = changed(given, sigma=0.1)
    assert found.target is not None
    assert torch.equal(found.target, given.x)
    assert torch.equal(found.wanted[1], given.weight)
    good = given.weight > 0
    assert float((found.x - given.x)[good].std()) == pytest.approx(0.1, rel=0.01)
    torch.testing.assert_close(found.weight[good], torch.full_like(found.weight[good], 1 / 0.05))
    assert torch.equal(found.weight == 0, given.weight == 0)
    # Missing pixels are bridged anew.
    torch.testing.assert_close(
        found.x[:, 50], found.x[:, 49] + (found.x[:, 52] - found.x[:, 49]) / 3
    )


def test_noise_is_left_out_of_a_norm_or_not() -> None:
    given = batch(2000)
    sigma, rows = 0.02, given.ok
    good = (given.weight > 0).float()
    found = {
        name: changed(given, sigma=sigma, renorm=name)
        for name in ("none", "l2", "l2_debiased", "sum")
    }

    def slope(name: str) -> float:
        """The input's part that is the spectrum, the noise averaging out."""
        x = (found[name].x * good)[rows]
        return float(
            (x * given.x[rows]).sum(1).mean() / (given.x * good)[rows].square().sum(1).mean()
        )

    kept = float((given.x * good)[0].square().sum())
    after = (found["l2"].x * good)[rows].square().sum(1)
    torch.testing.assert_close(after, torch.full_like(after, kept))
    total = (found["sum"].x * good)[rows].sum(1)
    torch.testing.assert_close(total, (given.x * good)[rows].sum(1), rtol=1e-4, atol=1e-4)
    # Scourfield+2023: their norm cannot have shrunk the spectrum by its noise.
    assert slope("l2") == pytest.approx((1 + 398 * sigma**2 / kept) ** -0.5, rel=0.005)
    assert slope("l2_debiased") == pytest.approx(1, abs=0.005)
    gain = found["l2"].x / found["none"].x
    torch.testing.assert_close(
        (found["l2"].weight * gain.square())[rows], found["none"].weight[rows], rtol=1e-3, atol=1e-3
    )


def test_a_spectrum_that_noise_covers_is_never_more_than_doubled() -> None:
    given = batch()
    for renorm in ("l2_debiased", "sum"):
        noisy, found = (
            changed(given, seed=3, sigma=3.0, **({"renorm": r} if r else {})) for r in ("", renorm)
        )
        gain = (found.x / noisy.x)[:-1, 0]
        assert ((gain > 0) & (gain <= 2.0001)).all()


def test_a_calibration_curve_is_smooth_and_of_both() -> None:
    given = batch()
    found = changed(given, calibration=0.02)
    assert found.target is None
    gain = (found.x / given.x)[:-1]
    # Each pixel but the missing ones, which are bridged.
    good = given.weight[:-1] > 0
    torch.testing.assert_close(
        (found.weight[:-1] * gain.square())[good], given.weight[:-1][good], rtol=1e-4, atol=0
    )
    both = changed(given, calibration=0.02, sigma=0.01)
    assert both.target is not None
    torch.testing.assert_close(both.target[:-1][good], found.x[:-1][good])


def test_curves_are_filtered_random_walks() -> None:
    random = np.random.default_rng(0)
    drawn = curves(4000, PIXELS, 0.02, random).double().numpy()
    np.testing.assert_allclose(drawn.mean(1), 0, atol=1e-6)
    height = np.abs(drawn).max(1)
    assert height.max() <= 0.02
    assert np.mean(height) == pytest.approx(0.01, rel=0.03)
    # Independent truth: walks step by step, less their mean, smoothed, of unit height.
    walks = np.cumsum(random.normal(size=(4000, PIXELS)), axis=1)
    walks -= walks.mean(1, keepdims=True)
    k = np.arange(1, 5)[:, None]
    waves = np.cos(np.pi * k * (np.arange(PIXELS) + 0.5) / PIXELS)
    expected, actual = (
        ((each / np.std(each, axis=1, keepdims=True)) @ waves.T).std(0) for each in (walks, drawn)
    )
    np.testing.assert_allclose(actual / actual[0], expected / expected[0], rtol=0.06)
    steps = np.abs(np.diff(drawn, axis=1)).max(1) / height
    assert steps.max() < 0.25


def test_factors_and_offsets_are_of_both() -> None:
    given = batch(4000)
    found = changed(given, scale=0.01, offset=0.02, sigma=1e-9)
    assert found.target is not None
    torch.testing.assert_close(found.x, found.target, rtol=1e-4, atol=1e-6)
    gain = (found.x[:-1, 100] - found.x[:-1, 300]) / (given.x[0, 100] - given.x[0, 300])
    more = found.x[:-1, 100] - gain * given.x[0, 100]
    assert float(gain.mean()) == pytest.approx(1, abs=0.001)
    assert float(gain.std()) == pytest.approx(0.01, rel=0.05)
    assert float(more.mean()) == pytest.approx(0, abs=0.002)
    assert float(more.std()) == pytest.approx(0.02, rel=0.05)
    torch.testing.assert_close(found.weight[:-1, 100], 100 / gain.square(), rtol=1e-4, atol=0)


def test_a_factor_stays_above_0() -> None:
    def low(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.full(shape, -6, dtype)

    given = batch()
    found = distorted(given, Augment(scale=0.2), SimpleNamespace(standard_normal=low))
    torch.testing.assert_close(found.x, 0.1 * given.x)
    assert (found.weight == 0).equal(given.weight == 0)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_hidden_pixels_are_bridged_and_the_target_keeps_them(share: float) -> None:
    given = batch(2000)
    found = changed(given, masks=share)
    assert found.target is not None
    hidden = (found.weight == 0) & (given.weight > 0)
    assert float(hidden[:-1].float().mean()) == pytest.approx(share * 398 / 400, rel=0.05)
    visible = found.weight > 0
    assert torch.equal(found.x[visible], given.x[visible])
    assert torch.equal(found.wanted[0], given.x)
    assert torch.equal(found.wanted[1], given.weight)
    row = int(hidden[:-1].any(1).nonzero()[0])
    good = (found.weight[row] > 0).numpy()
    expected = np.interp(np.arange(PIXELS), np.flatnonzero(good), given.x[row].numpy()[good])
    np.testing.assert_allclose(found.x[row], expected, atol=1e-6)


def test_gaps_are_everywhere_and_of_many_widths() -> None:
    hidden = gaps(20_000, PIXELS, 0.02, np.random.default_rng(0)).numpy()
    assert hidden.mean(0).max() < 0.03
    assert hidden.mean(0).min() > 0.01
    edges = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    width = np.nonzero(edges < 0)[1] - np.nonzero(edges > 0)[1]
    assert width.min() == 1
    assert 30 < np.quantile(width, 0.999) <= 2 * WIDEST_GAP


def test_an_exact_target_stays_exact() -> None:
    given = batch()
    known = torch.ones_like(given.x)
    known[-1] = 0
    given = Batch(**{**vars(given), "target": given.x, "target_weight": known})
    every = {"calibration": 0.1, "scale": 0.1, "offset": 0.1, "sigma": 0.1, "masks": 0.1}
    found = changed(given, target="truth", **every)
    assert torch.equal(found.wanted[1], known)
    assert not torch.equal(found.wanted[0], given.x)


def test_a_short_frame_has_gaps_and_curves_too() -> None:
    random = np.random.default_rng(0)
    assert curves(5, 12, 0.1, random).abs().max() <= 0.1
    assert float(gaps(5000, 12, 0.2, random).float().mean()) == pytest.approx(0.2, rel=0.1)
