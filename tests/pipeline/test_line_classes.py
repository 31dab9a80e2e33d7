"""Classes, metallicity and dust from line fluxes, against numbers worked out by hand."""

import numpy as np
import pytest

from pipeline.lines.classes import (
    CASE_B,
    Flag,
    Line,
    Lines,
    above_kauffmann,
    above_kewley,
    agn,
    bpt,
    decrement,
    metallicity,
    reddening,
    scourfield,
    sharbaf,
)

NONE = np.array([np.nan])
NO = np.array([False])
K_HBETA, K_HALPHA = 3.607586, 2.534245
"Of Cardelli, Clayton & Mathis 1989 with R_V 3.1, at 4862.68 and 6564.61 A."


def at(x: float, y: float, snr: float = 50.0) -> Lines:
    """The four lines of a galaxy at a place of the diagram."""
    fluxes = (100.0, 30.0, 30 * 10**y, 100 * 10**x)
    return Lines(*(Line(np.array([f]), np.array([f / snr])) for f in fluxes))


def faint(lines: Lines, **snr: float) -> Lines:
    """Some lines at another S/N."""
    return lines._replace(
        **{name: Line(getattr(lines, name).flux, getattr(lines, name).flux / v)
           for name, v in snr.items()}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        # Kauffmann at x = -0.5: 0.61 / -0.55 + 1.30 = 0.19091; Kewley: 0.61 / -0.97 + 1.19 = .56113
        (-0.5, 0.1909, "star-forming"),
        (-0.5, 0.1910, "composite"),
        (-0.5, 0.5611, "composite"),
        (-0.5, 0.5612, "AGN"),
        # Right of the asymptotes, however little [OIII] there is.
        (0.05, -3.0, "composite"),
        (0.47, -3.0, "AGN"),
        (0.60, -3.0, "AGN"),
        (2.00, 1.50, "AGN"),
    ],
)
def test_the_curves_divide_the_diagram(x: float, y: float, expected: str) -> None:
    assert bpt(at(x, y)) == expected


def test_the_asymptotes_themselves_are_above() -> None:
    x, y = np.array([0.05, 0.47]), np.array([-9.0, -9.0])
    assert above_kauffmann(x, y).tolist() == [True, True]
    assert above_kewley(x, y).tolist() == [False, True]


def test_a_place_that_is_not_known_is_above_nothing() -> None:
    assert not above_kewley(NONE, np.array([1.0]))
    assert not above_kewley(np.array([-1.0]), NONE)


@pytest.mark.parametrize("line", ["halpha", "hbeta", "oiii", "nii"])
def test_below_three_errors_nothing_is_classified(line: str) -> None:
    assert bpt(faint(at(-0.5, 0), **{line: 3.0})) == "star-forming"
    assert bpt(faint(at(-0.5, 0), **{line: 2.99})) == "unclassified"
    missing = at(-0.5, 0)._replace(**{line: Line(NONE, NONE)})
    assert bpt(missing) == "unclassified"


def test_a_flux_without_an_error_is_no_detection() -> None:
    lines = Lines(*(Line(line.flux, NONE) for line in at(-0.5, 0)))
    assert bpt(lines) == "unclassified"
    assert metallicity(lines).flag == Flag.FAINT


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(0.1, 0.556, "Seyfert"), (0.1, 0.554, "LINER"), (-0.5, 0.0, ""), (-0.2, 0.2, "")],
)
def test_seyferts_are_above_the_line_and_liners_below(x: float, y: float, expected: str) -> None:
    # 1.05 x 0.1 + 0.45 = 0.555
    assert agn(at(x, y)) == expected


def test_the_five_classes() -> None:
    weak = faint(at(-0.5, 0), hbeta=2.0)
    assert scourfield(at(-0.5, 0), ~NO, NONE) == "broad-line AGN"
    assert scourfield(at(-0.5, 0.7), NO, NONE) == "narrow-line AGN"
    # Kewley's curve alone: what Kauffmann calls composite emits lines.
    assert scourfield(at(-0.5, 0.4), NO, NONE) == "emission-line"
    assert scourfield(weak, NO, np.array([3.1])) == "absorption"
    assert scourfield(weak, NO, np.array([3.0])) == "quiescent"
    assert scourfield(weak, NO, NONE) == "unclassified"
    assert scourfield(weak._replace(halpha=Line(NONE, NONE)), NO, np.array([9.0])) == "unclassified"


def test_three_errors_are_not_more_than_three() -> None:
    lines = faint(at(-0.5, 0), hbeta=3.0)
    assert scourfield(lines, NO, np.array([0.0])) == "quiescent"


@pytest.mark.parametrize(("nii", "oiii"), [(-5.0, 2.0), (0.0, 0.0)])
def test_a_metal_line_without_flux_is_infinitely_faint(nii: float, oiii: float) -> None:
    lines = at(-0.5, 0)._replace(
        nii=Line(np.array([nii]), np.ones(1)), oiii=Line(np.array([oiii]), np.ones(1))
    )
    assert scourfield(lines, NO, NONE) == "emission-line"
    assert bpt(lines) == "unclassified"


def test_a_metal_line_that_was_not_measured_gives_no_class() -> None:
    lines = at(-0.5, 0)._replace(nii=Line(NONE, NONE))
    assert scourfield(lines, NO, np.array([9.0])) == "unclassified"


def test_the_three_colours() -> None:
    ew = np.array([20.0])
    assert sharbaf(at(-0.5, 0), ew) == "star-forming"
    assert sharbaf(at(-0.5, 0.4), ew) == "unclassified"
    assert sharbaf(at(-0.5, 0.7), ew) == "AGN"
    assert sharbaf(at(-0.5, 0), np.array([0.99])) == "quiescent"
    assert sharbaf(at(-0.5, 0), np.array([1.0])) == "star-forming"
    assert sharbaf(faint(at(-0.5, 0), nii=2.0), ew) == "quiescent"
    assert sharbaf(faint(at(-0.5, 0), hbeta=2.0), ew) == "unclassified"
    assert sharbaf(at(-0.5, 0), NONE) == "unclassified"


def test_metallicity_by_hand() -> None:
    # O3N2 = 0 - -1 = 1: 8.73 - 0.32. Four lines at S/N 10: 0.32 x sqrt(4 x 0.01) / ln 10.
    found = metallicity(at(-1, 0, snr=10))
    np.testing.assert_allclose(found.value, 8.41, atol=1e-12)
    np.testing.assert_allclose(found.error, 0.32 * 0.2 / 2.302585, rtol=1e-6)
    assert found.flag == 0


def test_metallicity_ends_where_its_calibration_does() -> None:
    for x, inside, outside in ((-1.3, 0.599, 0.601), (0.0, -0.999, -1.001)):
        assert np.isfinite(metallicity(at(x, inside)).value)
        found = metallicity(at(x, outside))
        assert np.isnan([found.value, found.error]).all()
        assert found.flag == Flag.OUTSIDE


def test_an_agn_has_no_metallicity_of_this_kind() -> None:
    found = metallicity(at(0.2, 0.8))
    assert np.isnan(found.value)
    assert found.flag == Flag.NOT_STARS


def pair(top: float, bottom: float, snr: tuple[float, float] = (20, 10)) -> tuple[Line, Line]:
    halpha, hbeta = np.array([top]), np.array([bottom])
    return Line(halpha, halpha / snr[0]), Line(hbeta, hbeta / snr[1])


def test_the_decrement_and_its_error() -> None:
    found = decrement(*pair(300, 100))
    np.testing.assert_allclose(found.value, 3)
    np.testing.assert_allclose(found.error, 3 * np.sqrt(0.05**2 + 0.1**2))


def test_reddening_undoes_a_screen() -> None:
    slope = K_HBETA - K_HALPHA
    found = reddening(*pair(CASE_B * 100 * 10 ** (0.4 * 0.3 * slope), 100))
    np.testing.assert_allclose(found.value, 0.3, rtol=1e-6)
    # 2.5 / 1.073341 x sqrt(1/400 + 1/100) / ln 10
    np.testing.assert_allclose(found.error, 0.113094, rtol=1e-4)
    assert found.flag == 0


def test_no_dust_is_none_and_less_than_none_is_said() -> None:
    np.testing.assert_allclose(reddening(*pair(286, 100)).value, 0, atol=1e-12)
    found = reddening(*pair(270, 100))
    assert found.value < 0
    assert found.flag == Flag.BELOW_CASE_B


@pytest.mark.parametrize("flux", [-3.0, 0.0, np.nan])
def test_a_line_that_is_not_there_has_no_ratio(flux: float) -> None:
    for halpha, hbeta in (pair(300, flux), pair(flux, 100)):
        one = Line(np.array([1.0]), np.array([1.0]))
        for found in (
            decrement(halpha._replace(error=one.error), hbeta._replace(error=one.error)),
            reddening(halpha._replace(error=one.error), hbeta._replace(error=one.error)),
        ):
            assert np.isnan([found.value, found.error]).all()
            assert found.flag == Flag.FAINT


def test_errors_are_the_scatter_of_noisy_lines() -> None:
    rng, n = np.random.default_rng(1), 40_000
    truth = at(-0.8, 0.1, snr=30)
    noisy = Lines(
        *(
            Line(rng.normal(line.flux, line.error, n), np.full(n, line.error[0]))
            for line in truth
        )
    )  # fmt: skip
    for function, lines in (
        (metallicity, (noisy,)),
        (decrement, noisy[:2]),
        (reddening, noisy[:2]),
    ):
        expected = function(*((truth,) if function is metallicity else truth[:2])).error
        np.testing.assert_allclose(np.nanstd(function(*lines).value), expected, rtol=0.03)
