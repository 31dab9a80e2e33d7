"""How far a denoiser's indices are from the truth, with bootstrap errors.

Delta is a standard deviation of the population (Camilleri et al. 2025, eq. 5). Axes: N spectra,
I indices, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

RESAMPLES = 200
"Bootstrap resamples; an error is then known to 5 %."

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Indices of the same N spectra, four ways, in one bin of S/N."""

    names: tuple[str, ...]
    "I indices."
    snr: float
    "Median S/N per pixel in g."
    truth: Array
    "(N, I) of the noiseless spectrum."
    noisy: Array
    "(N, I) of the spectrum as it was given to the model."
    output: Array
    "(N, I) of what the model made of it."
    references: Mapping[str, Array]
    "(N, I) of what each reference made of it."
    squares: Mapping[str, Array] = field(default_factory=dict)
    """(N,) squared distance from the noiseless spectrum over all good pixels, of 'noisy',
    'output', and each reference; none where it was not looked at."""
    draws: Mapping[str, float] = field(default_factory=dict)
    "By reference that has them: the median effective number of draws behind a row."

    def __post_init__(self) -> None:
        shape = (len(self.truth), len(self.names))
        given = {"truth": self.truth, "noisy": self.noisy, "output": self.output}
        for name, array in {**given, **self.references}.items():
            if array.shape != shape:
                raise ValueError(f"sample: {name} has shape {array.shape}, expected {shape}")
        if not self.references:
            raise ValueError("sample: no reference; give at least the linear one")


class Number(BaseModel):
    """A number with its bootstrap error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    value: float
    "The number."
    error: float
    "One standard deviation."
    robust: float | None = None
    "For a Delta: 1.4826 times the median absolute deviation, blind to outliers."


class Statistics(BaseModel):
    """One index in one bin; Deltas in the index's unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    snr: float
    "Median S/N per pixel in g."
    n: int
    "Spectra that count."
    dropped: int
    "Spectra that do not: one of their indices is not a number."
    noise: Number
    "Delta of noisy and truth: what is there without a model."
    delta_o: Number
    "Delta of output and truth."
    delta_n: Number
    "Delta of output and noisy."
    scatter: Number
    "Delta of the truth: what a constant output reaches (the trivial predictor)."
    reference: Number
    "Delta of the best reference and truth."
    best_reference: str
    "Which that is."
    worth: Number
    "delta_o / reference."
    bias: Number
    "Mean of output and truth."
    slope_truth: Number
    "Slope of truth on output: calibration; 1 for a posterior mean. NaN for a constant output."
    slope_output: Number
    "Slope of output on truth: shrinkage."
    slope_reference: Number
    "Slope of truth on the best reference: how far the mock lets anybody be calibrated."


def statistics(sample: Sample, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Statistics]:
    """Statistics of every index of a sample.

    Raises
    ------
    ValueError
        When fewer than ten spectra have all values of an index.
    """
    counts = _counts(len(sample.truth), seed, resamples)
    return {name: _of_index(sample, column, counts) for column, name in enumerate(sample.names)}


def rms(sample: Sample, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Number]:
    """Root mean square distance from the noiseless spectra over that of the noisy ones.

    Over all good pixels of all spectra, of the output and of each reference; the robust number is
    the median over spectra. Nothing where the sample has no squares.
    """
    if not sample.squares:
        return {}
    counts, noise = _counts(len(sample.truth), seed, resamples), sample.squares["noisy"]
    good = noise > 0
    return {
        name: Number(
            value=float(ratio[0]),
            error=float(np.std(ratio[1:])),
            robust=float(np.sqrt(np.median(square[good] / noise[good]))),
        )
        for name, square in sample.squares.items()
        if name != "noisy"
        for ratio in [np.sqrt((counts @ square) / (counts @ noise))]
    }


def _counts(n: int, seed: int, resamples: int) -> Array:
    """How often each of n spectra is in a sample: once, and in resamples with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    times = np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
    return np.vstack([np.ones(n), times]).astype(np.float64)


def _of_index(sample: Sample, column: int, counts: Array) -> Statistics:
    given = [sample.truth, sample.noisy, sample.output, *sample.references.values()]
    values = np.stack([array[:, column] for array in given]).astype(np.float64)
    good = np.isfinite(values).all(axis=0)
    if good.sum() < 10:
        raise ValueError(
            f"{sample.names[column]} at S/N {sample.snr:.1f}: {int(good.sum())} of {good.size} "
            "spectra have a value in truth, noisy and output; expected 10 or more"
        )
    truth, noisy, output, *references = values[:, good]
    weight = counts[:, good]
    weight = weight / weight.sum(axis=1, keepdims=True)
    best = min(range(len(references)), key=lambda k: float(np.std(references[k] - truth)))
    delta_o, reference = _delta(output - truth, weight), _delta(references[best] - truth, weight)
    variance = _moments(truth, weight)[1]
    return Statistics(
        snr=sample.snr,
        n=int(good.sum()),
        dropped=int((~good).sum()),
        noise=_number(_delta(noisy - truth, weight), noisy - truth),
        delta_o=_number(delta_o, output - truth),
        delta_n=_number(_delta(output - noisy, weight), output - noisy),
        scatter=_number(np.sqrt(variance), truth),
        reference=_number(reference, references[best] - truth),
        best_reference=list(sample.references)[best],
        worth=_number(delta_o / reference),
        bias=_number(weight @ (output - truth)),
        slope_truth=_number(_slope(truth, output, weight)),
        slope_output=_number(_slope(output, truth, weight)),
        slope_reference=_number(_slope(truth, references[best], weight)),
    )


def _moments(values: Array, weight: Array) -> tuple[Array, Array]:
    """Mean and population variance (R + 1,) under every resample."""
    # About the sample's own mean: differences of large squares lose digits.
    shifted = values - values.mean()
    mean = weight @ shifted
    return mean, np.maximum(weight @ shifted**2 - mean**2, 0.0)


def _slope(of: Array, on: Array, weight: Array) -> Array:
    a, b = of - of.mean(), on - on.mean()
    spread = _moments(on, weight)[1]
    # A constant has no slope, whatever its rounding says.
    spread = np.where(spread > 1e-10 * np.var(of), spread, np.nan)
    return np.asarray((weight @ (a * b) - (weight @ a) * (weight @ b)) / spread)


def _delta(values: Array, weight: Array) -> Array:
    return np.sqrt(_moments(values, weight)[1])


def _number(resampled: Array, values: Array | None = None) -> Number:
    """The first is the sample's own; the rest give the error."""
    robust = None
    if values is not None:
        robust = float(1.4826 * np.median(np.abs(values - np.median(values))))
    return Number(value=float(resampled[0]), error=float(np.std(resampled[1:])), robust=robust)
