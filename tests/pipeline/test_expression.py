"""Expressions select rows by a whitelisted syntax, and say what is wrong with others."""

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from pipeline.expression import evaluate, names

RNG = np.random.default_rng(5)
COLUMNS = {
    "z": np.array([0.05, 0.1, 0.3, np.nan]),
    "class": np.array(["GALAXY", "QSO", "GALAXY", "STAR"], np.dtypes.StringDType()),
    "raw@fs.Dn4000": np.array([1.2, 1.8, 1.9, 1.5]),
    "ppca.Mgb": np.array([1.0, 2.0, 3.0, 4.0]),
    "ra": np.array([0.0, 10.0, 20.0, 30.0]),
    "dec": np.zeros(4),
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", [True] * 4),
        ("z < 0.2", [True, True, False, False]),
        ("z < 0.2 and class == 'GALAXY'", [True, False, False, False]),
        ("class in ('QSO', 'STAR') or z > .2", [False, True, True, True]),
        ("not class == 'GALAXY'", [False, True, False, True]),
        ("z != 0.1", [True, False, True, False]),
        ("0.08 < z <= 0.3", [False, True, True, False]),
        ("raw@fs.Dn4000 > 1.6 and ppca.Mgb - 1 < 1.5", [False, True, False, False]),
        ("abs(z - 0.1) < 0.06 and isfinite(z)", [True, True, False, False]),
        ("log10(z) < -1.2", [True, False, False, False]),
        ("class not in ['STAR']", [True, True, True, False]),
    ],
)
def test_an_expression_selects_what_it_says(expression: str, expected: list[bool]) -> None:
    assert evaluate(expression, COLUMNS, 4).tolist() == expected


def test_a_cone_is_the_circle_that_astropy_draws() -> None:
    ra, dec = RNG.uniform(0, 360, 2000), np.degrees(np.arcsin(RNG.uniform(-1, 1, 2000)))
    sky, centre = SkyCoord(ra * units.deg, dec * units.deg), SkyCoord("359.9d", "-41.3d")
    expected = sky.separation(centre) <= 30 * units.deg
    found = evaluate("cone(359.9, -41.3, 108000)", {"ra": ra, "dec": dec}, 2000)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < 2000


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("clas == 'GALAXY'", r"no column 'clas'; did you mean 'class'\?"),
        ("__import__('os').system('true')", "is not allowed"),
        ("z.__class__ == 1", "no column 'z.__class__'"),
        ("[x for x in z]", "not an expression"),
        ("(lambda: 1)()", "not an expression"),
        ("{1: z}[1]", "is not allowed"),
        ("open('x')", "no function 'open'"),
        ("z <", "not an expression"),
        ("z", "gives float64, expected true or false"),
        ("z == 'GALAXY'", "compares a number with a text"),
        ("class == 'QSO' and z", "'z' is float64; and, or, not join comparisons"),
        ("not z", "'z' is float64; and, or, not join comparisons"),
    ],
)
def test_anything_else_is_refused_in_words(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate(expression, COLUMNS, 4)


def test_only_the_columns_that_are_named_are_wanted() -> None:
    assert names("z < 1 and raw@fs.Dn4000 > 1", COLUMNS) == ["z", "raw@fs.Dn4000"]
    assert names("", COLUMNS) == []
