"""The verdict on estimators whose errors are known in closed form."""

import json

import numpy as np
import pytest

from training.statistics import Sample, statistics
from training.verdict import Verdict, deciding, judge, rows

N = 3000
SCATTER = 1.0
# Noise of the index in units of its scatter, by bin; and how much of it is left in the reference.
NOISE = {"2-3": 2.0, "5-6": 1.0, "10-12": 0.5, "20-25": 0.25}
SNR = {"2-3": 2.5, "5-6": 5.5, "10-12": 11.0, "20-25": 22.5}
LEFT = 0.3


def samples(model, seed: int = 0, **change) -> dict[str, Sample]:  # type: ignore[no-untyped-def]
    """One index. The evidence is the truth with 0.3 of the noise: what a spectrum really holds.

    model(truth, noisy, evidence, sigma of the evidence, rng) gives the output.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name, noise in NOISE.items():
        truth = rng.normal(0, SCATTER, (N, 1))
        noisy = truth + rng.normal(0, noise, (N, 1))
        sigma = LEFT * noise
        evidence = truth + rng.normal(0, sigma, (N, 1))
        output = model(truth, noisy, evidence, sigma, rng)
        reference = {"linear": posterior(truth, noisy, evidence, sigma, rng)}
        given = {"truth": truth, "noisy": noisy, "output": output, "references": reference}
        found[name] = Sample(names=("Mgb",), snr=SNR[name], **(given | change))
    return found


def posterior(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
    return evidence / (1 + sigma**2)


def posterior_with(extra: float, slope: float = 1.0, offset: float = 0.0):  # type: ignore[no-untyped-def]
    def model(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        out = posterior(truth, noisy, evidence, sigma, rng)
        return slope * out + offset + extra * rng.normal(0, 1, out.shape)

    return model


def by(verdict: Verdict, test: str, where: str) -> bool:
    return next(f.passed for f in verdict.findings if f.test == test and f.bin == where)


def test_posterior_mean_passes_at_the_limit() -> None:
    verdict = judge(samples(posterior), n_train=10_000)
    assert verdict.passed
    assert verdict.grade == "at the limit"
    numbers = verdict.statistics["5-6"]["Mgb"]
    expected = LEFT / np.sqrt(1 + LEFT**2)
    assert numbers.delta_o.value == pytest.approx(expected, abs=3 * numbers.delta_o.error)
    assert numbers.slope_truth.value == pytest.approx(1.0, abs=3 * numbers.slope_truth.error)
    assert numbers.slope_output.value == pytest.approx(1 - expected**2, abs=0.02)


def test_smoothing_copies_the_noise() -> None:
    verdict = judge(samples(lambda t, noisy, e, s, rng: 0.98 * noisy), n_train=10_000)
    assert not verdict.passed
    assert verdict.reason.startswith("copies the noise: Mgb at S/N 2-3")


def test_a_copy_at_high_snr_is_reported_and_does_not_decide() -> None:
    def good_below(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        low = posterior(truth, noisy, evidence, sigma, rng)
        return low if sigma > LEFT * 0.6 else noisy

    verdict = judge(samples(good_below), n_train=10_000)
    assert verdict.passed
    assert not by(verdict, "noise copied", "10-12")
    assert by(verdict, "noise copied", "5-6")


def test_constant_output_paints_the_average_galaxy() -> None:
    verdict = judge(samples(lambda t, n, e, s, r: np.full_like(t, 0.1)), n_train=10_000)
    assert not verdict.passed
    assert verdict.reason.startswith("paints the average galaxy")
    assert np.isnan(verdict.statistics["5-6"]["Mgb"].slope_truth.value)
    assert not by(verdict, "calibration", "5-6")
    assert verdict.grade == "poor"


def test_undertrained_model_is_named_so() -> None:
    verdict = judge(samples(posterior_with(extra=0.45)), n_train=10_000)
    assert not verdict.passed
    assert verdict.reason.startswith("undertrained or unsuited: Mgb at S/N 5-6")


@pytest.mark.parametrize(("extra", "grade"), [(0.18, "good"), (0.27, "fair")])
def test_grade_is_the_worst_ratio_to_the_reference(extra: float, grade: str) -> None:
    def model(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        # Scaled so that the output stays a posterior mean, of worse evidence.
        worse = np.sqrt(sigma**2 + extra**2)
        return (evidence + extra * rng.normal(0, 1, truth.shape)) / (1 + worse**2)

    assert judge(samples(model), n_train=10_000).grade == grade


def test_stretched_output_is_miscalibrated_unless_few_taught_it() -> None:
    stretched = samples(posterior_with(extra=0.0, slope=1.08))
    many = judge(stretched, n_train=10_000)
    assert many.reason.startswith("miscalibrated: Mgb at S/N 2-3, slope of truth on output 0.9")
    assert judge(stretched, n_train=2_100).passed


def test_calibration_allows_what_the_reference_departs_by() -> None:
    # A survey that understates its errors: the posterior mean trusts them and shrinks too little.
    def trusting(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        return evidence / (1 + (sigma / 2) ** 2)

    found = samples(trusting)
    assert not by(judge(found, n_train=10_000), "calibration", "2-3")
    for sample in found.values():
        sample.references["linear"][:] = sample.output  # type: ignore[index]  # a dict here
    assert by(judge(found, n_train=10_000), "calibration", "2-3")


def test_a_departure_within_two_errors_does_not_fail() -> None:
    # The slope due is 1 / 1.08 = 0.93, which 3000 spectra tell from 1 and 40 do not.
    few = {
        name: Sample(
            names=s.names,
            snr=s.snr,
            truth=s.truth[240:280],
            noisy=s.noisy[240:280],
            output=s.output[240:280],
            references={"linear": s.references["linear"][240:280]},
        )
        for name, s in samples(posterior_with(extra=0.0, slope=1.08)).items()
    }
    verdict = judge(few, n_train=10_000)
    slope = verdict.statistics["5-6"]["Mgb"].slope_truth
    assert abs(slope.value - 1) < 2 * slope.error
    assert slope.error > 0.04
    assert by(verdict, "calibration", "5-6")


def test_shrunk_output_is_over_shrunk() -> None:
    findings = judge(samples(posterior_with(extra=0.0, slope=0.75)), n_train=10_000).findings
    shrunk = next(f for f in findings if f.test == "shrinkage" and f.bin == "5-6")
    assert shrunk.words.startswith("over-shrunk: Mgb at S/N 5-6")


def test_bias_is_reported_and_cancels_in_delta() -> None:
    plain = judge(samples(posterior_with(extra=0.0)), n_train=10_000)
    moved = judge(samples(posterior_with(extra=0.0, offset=0.7)), n_train=10_000)
    before, after = (v.statistics["5-6"]["Mgb"] for v in (plain, moved))
    assert after.bias.value - before.bias.value == pytest.approx(0.7)
    assert after.delta_o.value == pytest.approx(before.delta_o.value)


def test_a_wrong_redshift_does_not_set_the_ceiling() -> None:
    def one_catastrophe(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        output = posterior(truth, noisy, evidence, sigma, rng)
        output[0] = 100.0
        return output

    verdict = judge(samples(one_catastrophe), n_train=1)
    assert verdict.statistics["20-25"]["Mgb"].delta_o.value > 1
    assert verdict.ceiling is None


def test_bins_below_the_footprint_do_not_decide() -> None:
    assert deciding((4.5, 45.0)) == ("5-6",)
    assert deciding((2.5, 45.0)) == ("2-3", "5-6")
    assert deciding((8.0, 45.0)) == ("5-6",)

    def blind_when_faint(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        lost = sigma > LEFT * 1.5
        return 0 * truth if lost else posterior(truth, noisy, evidence, sigma, rng)

    faint = samples(blind_when_faint)
    assert not judge(faint, n_train=1).passed
    assert judge(faint, n_train=1, decisive=deciding((4.5, 45.0))).passed


def test_ceiling_is_where_the_error_crosses_the_noise() -> None:
    # An error floor of 0.3: noise is 0.5 at S/N 11 and 0.25 at 22.5, both falling as 1 / S/N.
    verdict = judge(samples(lambda t, n, e, s, rng: t + 0.3 * rng.normal(size=t.shape)), 10_000)
    ratio = np.log([0.6, 1.2])
    expected = 11.0 * (22.5 / 11.0) ** (ratio[0] / (ratio[0] - ratio[1]))
    assert verdict.ceiling == pytest.approx(expected, rel=0.06)
    assert verdict.ceilings == {"Mgb": verdict.ceiling}


def test_no_ceiling_where_it_never_harms_and_zero_where_it_always_does() -> None:
    assert judge(samples(posterior), n_train=1).ceiling is None
    assert judge(samples(lambda t, n, e, s, r: n + 0.5 * r.normal(size=t.shape)), 1).ceiling == 0.0


def test_trivial_test_rests_where_the_reference_is_no_better() -> None:
    def hopeless(truth, noisy, evidence, sigma, rng):  # type: ignore[no-untyped-def]
        return np.zeros_like(truth)

    sample = samples(hopeless)["2-3"]
    blind = Sample(
        names=sample.names,
        snr=2.5,
        truth=sample.truth,
        noisy=sample.noisy,
        output=sample.output,
        references={"linear": 0.05 * sample.truth},
    )
    assert by(judge({"2-3": blind}, n_train=1), "trivial", "2-3")


def test_the_better_reference_counts() -> None:
    sample = samples(posterior)["5-6"]
    both = {"library": sample.truth * 0.9, **sample.references}
    chosen = statistics(
        Sample(
            names=sample.names,
            snr=5.5,
            truth=sample.truth,
            noisy=sample.noisy,
            output=sample.output,
            references=both,
        )
    )["Mgb"]
    assert chosen.best_reference == "library"
    assert chosen.reference.value == pytest.approx(0.1 * np.std(sample.truth))


def test_bootstrap_error_is_that_of_theory() -> None:
    numbers = statistics(samples(posterior)["5-6"])["Mgb"]
    # The error of a Gaussian's standard deviation is itself / sqrt(2 N).
    assert numbers.noise.error == pytest.approx(1.0 / np.sqrt(2 * N), rel=0.2)
    assert numbers.noise.robust == pytest.approx(numbers.noise.value, rel=0.06)


def test_outliers_do_not_move_the_robust_delta() -> None:
    clean = samples(posterior)["5-6"]
    spoilt = clean.output.copy()
    spoilt[::100] += 30.0
    numbers = statistics(
        Sample(
            names=clean.names,
            snr=5.5,
            truth=clean.truth,
            noisy=clean.noisy,
            output=spoilt,
            references=clean.references,
        )
    )["Mgb"]
    assert numbers.delta_o.value > 2
    assert numbers.delta_o.robust == pytest.approx(LEFT / np.sqrt(1 + LEFT**2), rel=0.08)


def test_rows_without_a_value_are_dropped_and_counted() -> None:
    sample = samples(posterior)["5-6"]
    sample.noisy[:7], sample.output[5:10] = np.nan, np.nan
    numbers = statistics(sample)["Mgb"]
    assert (numbers.n, numbers.dropped) == (N - 10, 10)
    sample.truth[:] = np.nan
    with pytest.raises(ValueError, match=r"Mgb at S/N 5\.5: 0 of 3000 spectra have a value"):
        statistics(sample)


def test_verdict_survives_json() -> None:
    for model in (posterior, lambda t, n, e, s, r: np.ones_like(t)):
        verdict = judge(samples(model), n_train=10_000)
        text = verdict.model_dump_json()
        assert json.loads(text)["passed"] is verdict.passed
        again = Verdict.model_validate_json(text)
        assert again.model_dump_json() == text
        assert again.reason == verdict.reason


def test_same_seed_same_verdict() -> None:
    first, second = (judge(samples(posterior), n_train=1, seed=3) for _ in range(2))
    assert first == second


def test_rows_quote_the_bin_of_the_paper() -> None:
    verdict = judge(samples(posterior), n_train=10_000)
    (row,) = rows(verdict, "ppca")
    assert row["model"] == "ppca"
    assert row["verdict"] == "passes"
    assert row["delta_o/noise"] == pytest.approx(0.287, abs=0.02)
    assert row["trivial/noise"] == pytest.approx(1.0, abs=0.05)
    assert verdict.score == row["delta_o/noise"]


def test_wrong_samples_are_named() -> None:
    sample = samples(posterior)["5-6"]
    with pytest.raises(ValueError, match="expected at least one that decides"):
        judge({"10-12": sample}, n_train=1)
    with pytest.raises(ValueError, match=r"output has shape \(5, 1\), expected \(3000, 1\)"):
        samples(posterior, output=np.zeros((5, 1)))
    with pytest.raises(ValueError, match="no reference"):
        samples(posterior, references={})
