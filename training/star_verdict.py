"""Verdict on stars: is the whole spectrum nearer to the truth than what was there before?

Stars have no few indices that tell of them all, so |R| is judged: the mean over good pixels of
|output - truth| / truth (Pal & Dobos 2024, eq. 4), averaged over stars, in bins of S/N. Two tests:

- noise: the output's is below that of the noisy input, or it "leaves the noise";
- trivial: it is below that of the mean spectrum, or it "paints the average star".

That of the linear reference grades a model, and fails none: a filter that learnt nothing may pass,
as "poor". In a `Verdict` |R| stands where the Deltas of an index stand for galaxies: noise,
delta_o, delta_n, scatter (the mean spectrum) and reference.

Axes: N stars, P frame pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.grid import Grid
from storage.mock import Mock
from training.apply import apply
from training.batch import Batch
from training.frame import Frame
from training.model import Denoiser
from training.norm import NOISELESS
from training.reference import Linear
from training.statistics import RESAMPLES, Number, Statistics
from training.trials import BINS
from training.verdict import DECISIVE, REFERENCE, Finding, Grade, Verdict, crossing

NAME = "|R|"
"What stands for an index."
DARKEST = 0.05
"Of the level of the frame: |R| is of so much flux at least, and does not blow up in black lines."

Array = NDArray[np.float64]
_GRADES: tuple[tuple[float, Grade], ...] = ((1.0, "at the limit"), (1.25, "good"))


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The trial stars at one S/N."""

    batch: Batch
    "What the model sees."
    truth: Tensor
    "(N, P) noiseless, on the scale of the batch."
    snr: float
    "Median S/N per pixel in g; in the frame, where the survey does not see g."


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The same N stars at several S/N, and what is known without a model."""

    level: float
    "Of the frame."
    reference: Linear
    "The linear reference; its mean is the mean spectrum."
    exposures: Mapping[str, Exposure]
    "By bin."


def trial(
    mock: Mock,
    frame: Frame,
    grid: Grid,
    reference: Linear,
    *,
    n: int,
    seed: int,
    bins: Mapping[str, tuple[float, float] | None] | None = None,
) -> Trials:
    """Draw n stars, and look at them at every S/N.

    Parameters
    ----------
    grid : Grid
        Of the survey.
    reference : Linear
        Learnt from stars of the same mock on the same frame.
    bins : mapping of name to range of S/N, optional
        `training.trials.BINS` unless given.
    """
    drawn = mock.truth(n, grid, seed, "verdict")
    noiseless, mapper = drawn["flux"].to_numpy(), frame.on(grid)
    exact = np.full_like(noiseless, NOISELESS)
    exposures = {}
    for name, snr_g in (BINS if bins is None else bins).items():
        seen = mock.observe(drawn, grid, seed, f"verdict-{name}", snr_g)
        place = seen["z"].to_numpy(), seen["ebv"].to_numpy()
        batch = mapper.to(seen["flux"].to_numpy(), seen["ivar"].to_numpy(), *place)
        clean = mapper.to(noiseless, exact, *place)
        truth = clean.x * (clean.scale / batch.scale)[:, None]
        snr = _median_snr(seen["snr_g"].to_numpy(), batch)
        exposures[name] = Exposure(batch=batch, truth=truth, snr=snr)
    return Trials(level=frame.level, reference=reference, exposures=exposures)


def judge(
    model: Denoiser,
    trials: Trials,
    n_train: int,
    decisive: Sequence[str] = DECISIVE,
    seed: int = 0,
) -> Verdict:
    """Judge a model by what it does to the trial stars; it is left in eval mode, on the CPU.

    Parameters
    ----------
    n_train : int
        Number of spectra it was trained on.
    decisive : sequence of str
        Bins that fail a model.

    Raises
    ------
    ValueError
        When none of the decisive bins is among the trials, or a bin has fewer than ten stars.
    """
    if not set(decisive) & set(trials.exposures):
        raise ValueError(
            f"trials: bins {', '.join(trials.exposures)}, expected at least one that decides "
            f"({', '.join(decisive)})"
        )
    model.eval().to("cpu")
    found = {
        name: _statistics(model, seen, trials, name, seed)
        for name, seen in trials.exposures.items()
    }
    findings = tuple(
        finding(name, numbers, name in decisive)
        for finding in (_noise, _trivial)
        for name, numbers in found.items()
    )
    failed = [finding for finding in findings if finding.decides and not finding.passed]
    worst = max(s.worth.value for name, s in found.items() if name in decisive)
    grade: Grade = next((name for limit, name in _GRADES if worst <= limit), "fair")
    if failed or worst > REFERENCE:
        grade = "poor"
    ratios = [(s.snr, s.delta_o.value / s.noise.value) for k, s in found.items() if k != "natural"]
    ceiling = crossing(ratios)
    return Verdict(
        passed=not failed,
        reason=failed[0].words if failed else f"{grade}: {worst:.2f} of the reference at most",
        grade=grade,
        ceiling=ceiling,
        ceilings={NAME: ceiling},
        n_train=n_train,
        statistics={name: {NAME: numbers} for name, numbers in found.items()},
        findings=findings,
    )


def residual(output: Tensor, truth: Tensor, weight: Tensor, least: float) -> Tensor:
    """R (N,) twice over: mean of |output - truth| / truth over good pixels, and its signed mean.

    least : what truth is taken to be where it is below.
    """
    good = (weight > 0).double()
    relative = (output - truth).double() / truth.double().clamp(min=least) * good
    count = good.sum(dim=1)
    return torch.stack([relative.abs().sum(dim=1) / count, relative.sum(dim=1) / count])


def _statistics(
    model: Denoiser, seen: Exposure, trials: Trials, name: str, seed: int
) -> Statistics:
    batch, truth = seen.batch, seen.truth
    output = apply(model, batch).flux
    least = DARKEST * trials.level

    def far(from_: Tensor, to: Tensor) -> Array:
        """|R| and R (2, N) of spectra against others, of the flux of the truth."""
        moved = truth + from_ - to
        return np.asarray(residual(moved, truth, batch.weight, least).numpy())

    known = {
        "output": far(output, truth),
        "noisy": far(batch.x, truth),
        "moved": far(output, batch.x),
        "mean": far(trials.reference.mean.expand_as(truth), truth),
        "linear": far(trials.reference(batch.x, batch.weight).flux, truth),
    }
    good = (batch.ok & torch.isfinite(truth).all(dim=1)).numpy()
    good &= np.all([np.isfinite(value).all(axis=0) for value in known.values()], axis=0)
    if good.sum() < 10:
        raise ValueError(
            f"stars at S/N {name}: {int(good.sum())} of {good.size} lie on the frame with data; "
            "expected 10 or more"
        )
    drawn = np.random.default_rng(seed).integers(int(good.sum()), size=(RESAMPLES, int(good.sum())))
    means = {key: _resampled(value[0, good], drawn) for key, value in known.items()}
    nothing = Number(value=np.nan, error=np.nan)
    return Statistics(
        snr=seen.snr,
        n=int(good.sum()),
        dropped=int((~good).sum()),
        noise=_number(means["noisy"]),
        delta_o=_number(means["output"]),
        delta_n=_number(means["moved"]),
        scatter=_number(means["mean"]),
        reference=_number(means["linear"]),
        best_reference="linear",
        worth=_number(means["output"] / means["linear"]),
        bias=_number(_resampled(known["output"][1, good], drawn)),
        slope_truth=nothing,
        slope_output=nothing,
        slope_reference=nothing,
    )


def _resampled(values: Array, drawn: NDArray[np.int64]) -> Array:
    """The mean of values (N,), and those of resamples (R, N)."""
    return np.concatenate([[values.mean()], values[drawn].mean(axis=1)])


def _number(resampled: Array) -> Number:
    return Number(value=float(resampled[0]), error=float(np.std(resampled[1:])))


def _median_snr(snr_g: NDArray[np.floating], batch: Batch) -> float:
    known = snr_g[np.isfinite(snr_g) & (snr_g > 0)]
    if known.size:
        return float(np.median(known))
    # Seen without g, as by a red arm alone.
    return float((batch.x * batch.weight.sqrt()).median(dim=1).values.median())


def _noise(name: str, s: Statistics, decides: bool) -> Finding:
    passed = s.delta_o.value < s.noise.value
    words = f"|R| at S/N {name} is {_share(s.delta_o)}, that of the noise {_share(s.noise)}"
    words = words if passed else f"leaves the noise: {words}"
    return Finding(
        test="noise copied", bin=name, index=NAME, passed=passed, decides=decides, words=words
    )


def _trivial(name: str, s: Statistics, decides: bool) -> Finding:
    passed = s.delta_o.value < s.scatter.value
    words = f"|R| at S/N {name} is {_share(s.delta_o)}, that of the mean star {_share(s.scatter)}"
    words = words if passed else f"paints the average star: {words}"
    return Finding(
        test="trivial", bin=name, index=NAME, passed=passed, decides=decides, words=words
    )


def _share(number: Number) -> str:
    return f"{100 * number.value:.2f} ± {100 * number.error:.2f} %"
