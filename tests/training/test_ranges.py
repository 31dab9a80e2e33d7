"""Ranges: what is drawn from them, and which are none."""

import numpy as np
import pytest
from pydantic import ValidationError

from training.ranges import Range, draw

MANY = 2000


def values(given: Range) -> list[object]:
    return [draw({"x": given}, seed=1, trial=trial)["x"] for trial in range(MANY)]


def test_a_choice_is_one_of_its_values_as_they_stand() -> None:
    found = values(Range(choice=("relu", 3, None)))
    counts = [sum(value is one for value in found) for one in ("relu", 3, None)]
    assert sum(counts) == MANY
    assert min(counts) > MANY / 4


def test_a_uniform_range_is_even_and_a_logarithmic_one_in_its_logarithm() -> None:
    for found in (
        np.array(values(Range(uniform=(2, 4)))) / 2 - 1,
        np.log10(np.array(values(Range(log=(1e-5, 1e-3)))).astype(float)) / 2 + 2.5,
    ):
        assert 0 <= found.min() < 0.02
        assert 0.98 < found.max() <= 1
        assert found.mean() == pytest.approx(0.5, abs=5 * 0.29 / MANY**0.5)


def test_steps_are_the_numbers_that_a_person_writes() -> None:
    found = set(values(Range(uniform=(0, 0.9), step=0.1)))
    assert found == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    whole = set(values(Range(uniform=(100, 450), step=100)))
    assert whole == {100, 200, 300, 400}
    assert all(isinstance(value, int) for value in whole)


def test_layers_narrow_as_those_of_scourfield_do() -> None:
    found = values(Range(uniform=(100, 1000), step=100, layers=(2, 4)))
    assert {len(units) for units in found} == {2, 3, 4}
    for units in found:
        assert sorted(units, reverse=True) == units
        assert set(units) <= set(range(100, 1001, 100))
    first = [units[0] for units in found]
    assert set(first) == set(range(100, 1001, 100))


def test_a_trial_depends_on_seed_and_number_alone() -> None:
    ranges = {"a": Range(uniform=(0, 1)), "b": Range(choice=(1, 2, 3))}
    turned = dict(reversed(ranges.items()))
    assert draw(ranges, 7, 3) == draw(turned, 7, 3)
    assert draw(ranges, 7, 3) != draw(ranges, 8, 3)
    assert draw(ranges, 7, 3) != draw(ranges, 7, 4)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "one of choice"),
        ({"choice": [1], "log": [1, 2]}, "one of choice"),
        ({"log": [0, 1]}, "expected numbers above 0"),
        ({"uniform": [2, 1]}, r"uniform = \[2, 1\]: the first is the lower end"),
        ({"uniform": [1, 9], "layers": [2, 4]}, "give the step"),
        ({"choice": [1], "step": 2}, "step and layers are of uniform"),
    ],
)
def test_what_is_no_range_is_refused(table: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Range.model_validate(table)
