"""The distance of whole spectra from the truth, in units of the noise."""

import numpy as np
import pytest

from training.statistics import Sample, rms
from training.verdict import Verdict, judge


def sample(n: int = 500, pixels: int = 100, **change) -> Sample:  # type: ignore[no-untyped-def]
    """Spectra of which a quarter of the noise is left, and a half by the reference."""
    random = np.random.default_rng(1)
    noise = random.normal(size=(n, pixels)) * random.uniform(1, 3, size=(n, 1))
    truth = random.normal(size=(n, 1))
    given = {
        "truth": truth,
        "noisy": truth + noise[:, :1],
        "output": truth + 0.25 * noise[:, :1],
        "references": {"linear": truth + 0.5 * noise[:, :1]},
        "squares": {
            name: ((share * noise) ** 2).sum(1)
            for name, share in (("noisy", 1.0), ("output", 0.25), ("linear", 0.5))
        },
    }
    return Sample(names=("Mgb",), snr=5.5, **(given | change))


def test_rms_is_what_is_left_of_the_noise() -> None:
    found = rms(sample())
    assert found.keys() == {"output", "linear"}
    for name, expected in (("output", 0.25), ("linear", 0.5)):
        assert found[name].value == pytest.approx(expected)
        assert found[name].robust == pytest.approx(expected)
        assert found[name].error == pytest.approx(0, abs=1e-9)


def test_one_broken_spectrum_does_not_move_the_robust_rms() -> None:
    spoilt = sample()
    spoilt.squares["output"][3] *= 1e5
    found = rms(spoilt)["output"]
    assert found.value > 1
    assert found.robust == pytest.approx(0.25)
    assert found.error > 0.3


def test_spectra_without_data_do_not_count() -> None:
    blind = sample()
    for square in blind.squares.values():
        square[:50] = 0
    assert rms(blind)["output"].value == pytest.approx(0.25)


def test_a_verdict_keeps_rms_and_draws() -> None:
    verdict = judge({"5-6": sample(draws={"library": 40.0})}, n_train=1)
    assert verdict.rms["5-6"]["output"].value == pytest.approx(0.25)
    assert verdict.draws == {"5-6": {"library": 40.0}}
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_indices_alone_make_a_verdict_too() -> None:
    verdict = judge({"5-6": sample(squares={})}, n_train=1)
    assert verdict.rms == {}
    older = verdict.model_dump(mode="json")
    del older["rms"], older["draws"]
    assert Verdict.model_validate(older) == verdict
