"""Score: how far an index of a product is from the reference, and from the noisy spectra.

Delta is a standard deviation of the population (Camilleri et al. 2025, eq. 5).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float = NDArray[np.float64]

FEWEST = 5
"A number is given from as many spectra on."
WINDOW, SHARE, STEPS = 500, 4, 5
"Spectra of a window, or a quarter of all where that is less; windows move by a fifth of it."
FEWEST_CURVE = 40
"Spectra from which on there is a curve."
PARTS = 20
"Parts of the jackknife."
ROBUST = 1.4826
"Standard deviation of a Gaussian over its median absolute deviation."


@dataclass(frozen=True, kw_only=True)
class Three:
    """One index of n spectra, three ways, on one frame."""

    snr: Float
    "(n,) S/N per pixel in g."
    output: Float
    "(n,) of the denoised spectra."
    raw: Float
    "(n,) of the noisy ones."
    reference: Float
    "(n,) of the truth or the best fit."
    error: Float
    "(n,) given with output; NaN where there is none."


@dataclass(frozen=True, kw_only=True)
class Score:
    """One index of one product, in the unit of the index; None where it cannot be said."""

    unit: str
    "Of the index."
    n: int
    "Spectra."
    snr: float | None
    "Median S/N per pixel in g."
    noise: float | None
    "Standard deviation of raw - reference: what is there without a model."
    delta_o: float | None
    "Standard deviation of output - reference."
    delta_n: float | None
    "Standard deviation of output - raw."
    trivial: float | None
    "Standard deviation of the reference: what one value for all galaxies would reach."
    ratio: float | None
    "delta_o / noise."
    ratio_error: float | None
    "Its jackknife error."
    bias: float | None
    "Mean of output - reference."
    bias_raw: float | None
    "Mean of raw - reference."
    noise_mad: float | None
    "As noise, blind to outliers: 1.4826 times the median absolute deviation."
    delta_o_mad: float | None
    "As delta_o, blind to outliers."
    delta_n_mad: float | None
    "As delta_n, blind to outliers."
    coverage: float | None
    "Share of spectra whose output is within its error of the reference; 0.68 is due."
    n_error: int
    "Spectra that have an error."
    curve: dict[str, list[float]]
    "In sliding windows of S/N: snr (median), noise, delta_o, delta_n, trivial; noise_mad, ..."


def score(given: Three, unit: str) -> Score:
    """The figures of merit of one index of one product."""
    n = len(given.snr)
    noise, out = given.raw - given.reference, given.output - given.reference
    moved = given.output - given.raw
    has = np.isfinite(given.error) & (given.error > 0)
    within = np.abs(out[has]) < given.error[has]
    ratio, ratio_error = _ratio(out, noise)
    return Score(
        unit=unit,
        n=n,
        snr=_of(np.median, given.snr),
        noise=_of(np.std, noise),
        delta_o=_of(np.std, out),
        delta_n=_of(np.std, moved),
        trivial=_of(np.std, given.reference),
        ratio=ratio,
        ratio_error=ratio_error,
        bias=_of(np.mean, out),
        bias_raw=_of(np.mean, noise),
        noise_mad=_of(_mad, noise),
        delta_o_mad=_of(_mad, out),
        delta_n_mad=_of(_mad, moved),
        coverage=_of(np.mean, within),
        n_error=int(has.sum()),
        curve=_curve(given),
    )


def _of(statistic: Callable[..., Any], values: NDArray[Any]) -> float | None:
    """A statistic, where there are enough values."""
    return float(statistic(values)) if len(values) >= FEWEST else None


def _mad(values: Float) -> Float:
    """Along the last axis."""
    middle = np.median(values, axis=-1, keepdims=True)
    return np.asarray(ROBUST * np.median(np.abs(values - middle), axis=-1))


def _ratio(out: Float, noise: Float) -> tuple[float | None, float | None]:
    """std(out) / std(noise) and its error, by leaving out each of 20 interleaved parts in turn."""
    if len(out) < FEWEST or not noise.std() > 0:
        return None, None
    parts = min(PARTS, len(out))
    label = np.arange(len(out)) % parts
    left = [out[label != part].std() / noise[label != part].std() for part in range(parts)]
    error = math.sqrt((parts - 1) * float(np.var(left)))
    return float(out.std() / noise.std()), error


def _curve(given: Three) -> dict[str, list[float]]:
    n = len(given.snr)
    if n < FEWEST_CURVE:
        return {}
    window = min(WINDOW, n // SHARE)
    order = np.argsort(given.snr, kind="stable")

    def sliding(values: Float) -> Float:
        return np.asarray(sliding_window_view(values[order], window)[:: max(1, window // STEPS)])

    noise, output = sliding(given.raw - given.reference), sliding(given.output - given.reference)
    windows = {
        "snr": np.median(sliding(given.snr), axis=1),
        "noise": noise.std(axis=1),
        "delta_o": output.std(axis=1),
        "delta_n": sliding(given.output - given.raw).std(axis=1),
        "trivial": sliding(given.reference).std(axis=1),
        "noise_mad": _mad(noise),
        "delta_o_mad": _mad(output),
    }
    return {name: values.tolist() for name, values in windows.items()}
