"""The [measure] table of a card."""

import pytest
from pydantic import ValidationError

from pipeline.card_measure import Measure


def test_the_rules_have_defaults() -> None:
    table = Measure()
    assert table.indices == ("Dn4000", "HdeltaF", "Mgb")
    assert table.missing == 0.10
    assert (table.resolution, table.emission, table.tables) == ("native", "keep", ())


def test_an_index_is_called_by_its_name_on_the_shelf() -> None:
    table = Measure(indices=("Mg_b", "Fe4668", "[MgFe]'", "Ours"))
    assert table.indices == ("Mgb", "C2_4668", "MgFe_prime", "Ours")


def test_an_index_is_asked_for_once() -> None:
    with pytest.raises(ValidationError, match=r"Mgb is there twice"):
        Measure(indices=("Mgb", "NaD", "Mg_b"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("missing", 1.0),
        ("missing", -0.1),
        ("resolution", "sharp"),
        ("emission", "remove"),
        ("dispersion", "zero"),
        ("draws", 8),
    ],
)
def test_a_rule_that_there_is_not_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        Measure(**{key: value})


def test_lines_that_nobody_fits_cannot_be_subtracted() -> None:
    with pytest.raises(ValueError, match=r"emission = 'subtract' without fitted lines; name"):
        Measure(emission="subtract")
    assert Measure(emission="subtract", lines=("raw",)).lines == ("raw",)
