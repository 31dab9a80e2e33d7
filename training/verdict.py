"""Verdict: what a denoiser must pass on mocks of known truth before it may touch a survey.

Per index and bin of S/N, on spectra it has never seen (Delta is a population standard deviation):

- noise copied: fails when Delta_N < .8 noise and Delta_O > .8 noise, while the reference stays
  below .8 noise: "copies the noise";
- trivial: Delta_O < .9 of the scatter of the truth, wherever the reference is too, or it "paints
  the average galaxy";
- reference: Delta_O <= 1.5 of the best reference (1.25 is good, 1 the limit of linear ones), or it
  is "undertrained or unsuited"; the best is the linear one, or a library where the card has one;
- calibration: the slope of truth on output is 1 within .05 (.10 below 6,000 training spectra) plus
  what the reference departs by, or it is "miscalibrated": where errors are not what the survey
  says they are, nobody's slope is 1;
- shrinkage: the slope of output on truth is 1 - (Delta_O / scatter)^2 within .1, or it is
  "over-shrunk" (or under-shrunk);
- no harm: no failure but a limit: the S/N at which Delta_O rises through the noise.

A departure of a slope fails only beyond two bootstrap errors. The bins of low S/N decide: there a
denoiser earns its place, and there the reference shows what can be had. Above them the tests are
made and reported, but the ceiling keeps the model from doing harm: at high S/N even the perfect
estimator copies its input, as it should.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from training.statistics import Number, Sample, Statistics, rms, statistics

DECISIVE = ("2-3", "5-6")
"Bins that fail a model; S/N per pixel in g."
QUOTED = "5-6"
"The bin that figures are quoted at."
COPIES, TRIVIAL, REFERENCE, SHRINKAGE = 0.8, 0.9, 1.5, 0.1
"Limits of the table above."
CALIBRATION, CALIBRATION_FEW, FEW = 0.05, 0.10, 6000
"A prior learnt from few spectra is not known well enough for the tight limit."
SIGMAS = 2.0
"Bootstrap errors that a slope may depart by, whatever the limit."

Test = Literal["noise copied", "trivial", "reference", "calibration", "shrinkage"]
TESTS: tuple[Test, ...] = ("noise copied", "trivial", "reference", "calibration", "shrinkage")
"In the order in which they name the cause."
Grade = Literal["at the limit", "good", "fair", "poor"]


class _Record(BaseModel):
    # NaN (a slope of a constant) survives JSON as a string.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Finding(_Record):
    """One test of one index in one bin."""

    test: Test
    "Which."
    bin: str
    "S/N bin."
    index: str
    "Which."
    passed: bool
    "Whether it passes."
    decides: bool
    "Whether failing it fails the model."
    words: str
    "The numbers; where it fails, the cause first."


class Verdict(_Record):
    """Everything that was found; JSON by `model_dump_json`, back by `model_validate_json`."""

    passed: bool
    "Whether the model may touch a survey."
    reason: str
    "In words: the first cause for failing, or how good it is."
    grade: Grade
    "By its largest Delta_O over the reference in the bins that decide."
    ceiling: float | None
    "S/N above which it harms some index; 0 if it harms at any; None if it never does in the range."
    ceilings: dict[str, float | None]
    "The same for each index."
    n_train: int
    "Spectra it was trained on."
    statistics: dict[str, dict[str, Statistics]]
    "By bin and index."
    findings: tuple[Finding, ...]
    "All tests, in the order in which they name the cause."
    rms: dict[str, dict[str, Number]] = Field(default_factory=dict)
    """By bin, of 'output' and each reference: root mean square distance from the noiseless spectra
    over that of the noisy ones."""
    draws: dict[str, dict[str, float]] = Field(default_factory=dict)
    """By bin and library: the median effective number of noiseless draws behind its answers.
    Below `training.library.LEAST` it was no reference, and gave the linear answer."""

    @property
    def floor(self) -> float | None:
        """S/N down to which every test is passed, in the bins that may decide; None: nowhere."""
        failed = {finding.bin for finding in self.findings if not finding.passed}
        floor = None
        for name in reversed(DECISIVE):
            if name in failed or name not in self.statistics:
                break
            floor = float(name.split("-")[0])
        return floor

    @property
    def score(self) -> float:
        """Mean Delta_O / noise over the indices in the bin that is quoted; lower is better."""
        found = self.statistics[QUOTED if QUOTED in self.statistics else min(self.statistics)]
        return float(np.mean([s.delta_o.value / s.noise.value for s in found.values()]))


def judge(
    samples: Mapping[str, Sample],
    n_train: int,
    decisive: Sequence[str] = DECISIVE,
    seed: int = 0,
) -> Verdict:
    """Judge a model by what it did to mocks.

    Parameters
    ----------
    samples : mapping of bin to Sample
        Bins such as ``"5-6"``, and ``"natural"``.
    n_train : int
        Number of spectra it was trained on.
    decisive : sequence of str
        Bins that fail a model.

    Raises
    ------
    ValueError
        When none of the decisive bins is among the samples.
    """
    if not set(decisive) & set(samples):
        raise ValueError(
            f"samples: bins {', '.join(samples)}, expected at least one that decides "
            f"({', '.join(decisive)})"
        )
    found = {name: statistics(sample, seed) for name, sample in samples.items()}
    findings = tuple(
        _finding(test, where, index, numbers, n_train, where in decisive)
        for test in TESTS
        for where, indices in found.items()
        for index, numbers in indices.items()
    )
    failed = [finding for finding in findings if finding.decides and not finding.passed]
    ratios = [s.worth.value for where in found if where in decisive for s in found[where].values()]
    worst = max(ratios, key=lambda ratio: np.inf if np.isnan(ratio) else ratio)
    grade: Grade = next((name for limit, name in _GRADES if worst <= limit and not failed), "poor")
    ceilings = {
        index: _ceiling([found[bin_][index] for bin_ in found if bin_ != "natural"])
        for index in next(iter(found.values()))
    }
    known = [ceiling for ceiling in ceilings.values() if ceiling is not None]
    return Verdict(
        passed=not failed,
        reason=failed[0].words if failed else f"{grade}: at most {worst:.2f} of the reference",
        grade=grade,
        ceiling=min(known, default=None),
        ceilings=ceilings,
        n_train=n_train,
        statistics=found,
        findings=findings,
        rms={name: rms(sample, seed) for name, sample in samples.items() if sample.squares},
        draws={name: dict(sample.draws) for name, sample in samples.items() if sample.draws},
    )


_GRADES: tuple[tuple[float, Grade], ...] = (
    (1.0, "at the limit"),
    (1.25, "good"),
    (REFERENCE, "fair"),
)


def _finding(
    test: Test, where: str, index: str, s: Statistics, n_train: int, decides: bool
) -> Finding:
    passed, cause, numbers = _outcome(test, s, n_train)
    place = f"{index} at S/N {where}"
    words = f"{place}: {numbers}" if passed else f"{cause}: {place}, {numbers}"
    return Finding(test=test, bin=where, index=index, passed=passed, decides=decides, words=words)


def _outcome(test: Test, s: Statistics, n_train: int) -> tuple[bool, str, str]:
    """Whether it passes, what it fails as, and the numbers."""
    if test == "noise copied":
        own, moved, best = (x.value / s.noise.value for x in (s.delta_o, s.delta_n, s.reference))
        copies = moved < COPIES and own > COPIES and not best >= COPIES
        numbers = f"Delta_O {own:.2f} and Delta_N {moved:.2f} of the noise (reference {best:.2f})"
        return not copies, "copies the noise", numbers
    if test == "trivial":
        own, best = (x.value / s.scatter.value for x in (s.delta_o, s.reference))
        numbers = f"Delta_O {own:.2f} of the average galaxy's (reference {best:.2f})"
        return own < TRIVIAL or best >= TRIVIAL, "paints the average galaxy", numbers
    if test == "reference":
        numbers = f"Delta_O {s.worth.value:.2f} ± {s.worth.error:.2f} of the reference"
        return s.worth.value <= REFERENCE, "undertrained or unsuited", numbers
    if test == "calibration":
        limit = CALIBRATION_FEW if n_train < FEW else CALIBRATION
        limit += np.nan_to_num(abs(s.slope_reference.value - 1.0))
        departure, error = s.slope_truth.value - 1.0, s.slope_truth.error
        numbers = (
            f"slope of truth on output {s.slope_truth.value:.2f} ± {error:.2f}, limit {limit:.2f}"
        )
        return _near(departure, limit, error), "miscalibrated", numbers
    expected = 1.0 - (s.delta_o.value / s.scatter.value) ** 2
    departure, error = s.slope_output.value - expected, s.slope_output.error
    numbers = (
        f"slope of output on truth {s.slope_output.value:.2f} ± {error:.2f}, {expected:.2f} due"
    )
    cause = "under-shrunk" if departure > 0 else "over-shrunk"
    return _near(departure, SHRINKAGE, error), cause, numbers


def _near(departure: float, limit: float, error: float) -> bool:
    """Within the limit, or not significantly beyond; never for a NaN."""
    return abs(departure) <= limit or abs(departure) <= SIGMAS * error


def _ceiling(bins: Sequence[Statistics]) -> float | None:
    """Robust Deltas: one wrong redshift in a thousand would set the ceiling of all the others."""
    return crossing([(s.snr, _robust(s.delta_o) / _robust(s.noise)) for s in bins])


def crossing(points: Sequence[tuple[float, float]]) -> float | None:
    """S/N where a ratio to the noise first rises through 1, straight in the logarithms of both.

    points : S/N and ratio. 0 where the ratio is nowhere below 1; None where it stays there.
    """
    track = sorted(points)
    helps = next((at for at, (_, ratio) in enumerate(track) if ratio < 1.0), None)
    if helps is None:
        return 0.0 if track else None
    for (snr, ratio), (beyond, above) in zip(track[helps:], track[helps + 1 :], strict=False):
        if above >= 1.0:
            share = np.log(ratio) / (np.log(ratio) - np.log(above))
            return float(snr * (beyond / snr) ** share)
    return None


def _robust(number: Number) -> float:
    return number.value if number.robust is None else number.robust


def deciding(snr: tuple[float, float]) -> tuple[str, ...]:
    """The bins of `DECISIVE` that overlap the S/N range of a footprint; always the quoted one.

    A model is judged where it is applied: below its footprint no spectrum reaches it.

    Examples
    --------
    >>> deciding((4.5, 45.0)), deciding((1.0, 45.0))
    (('5-6',), ('2-3', '5-6'))
    """
    low, high = snr
    ranges = {name: tuple(float(end) for end in name.split("-")) for name in DECISIVE}
    return tuple(
        name for name, (a, b) in ranges.items() if name == QUOTED or (a < high and b > low)
    )


def rows(verdict: Verdict, model: str) -> list[dict[str, str | float]]:
    """A table for people: one row an index, in the bin that is quoted; ratios to the noise."""
    where = QUOTED if QUOTED in verdict.statistics else min(verdict.statistics)
    return [
        {
            "model": model,
            "index": index,
            "delta_o/noise": s.delta_o.value / s.noise.value,
            "delta_n/noise": s.delta_n.value / s.noise.value,
            "trivial/noise": s.scatter.value / s.noise.value,
            "reference/noise": s.reference.value / s.noise.value,
            "truth on output": s.slope_truth.value,
            "output on truth": s.slope_output.value,
            "verdict": "passes" if verdict.passed else verdict.reason.split(":")[0],
        }
        for index, s in verdict.statistics[where].items()
    ]
