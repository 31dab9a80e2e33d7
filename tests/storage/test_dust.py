"""Extinction curves against the published anchors."""

import numpy as np
import pytest

from storage.dust import curve


def test_fitzpatrick_1999_passes_through_its_published_optical_anchors() -> None:
    r_v = 3.1
    # Fitzpatrick (1999), appendix; the Goddard IDL library refitted them, to within 5e-4.
    expected = [
        -0.426 + 1.0044 * r_v,
        -0.050 + 1.0016 * r_v,
        0.701 + 1.0016 * r_v,
        1.208 + 1.0032 * r_v - 0.00033 * r_v**2,
    ]
    refitted = [
        -4.22809e-1 + 1.00270 * r_v + 2.13572e-4 * r_v**2,
        -5.13540e-2 + 1.00216 * r_v - 7.35778e-5 * r_v**2,
        7.00127e-1 + 1.00184 * r_v - 3.32598e-5 * r_v**2,
        1.19456 + 1.01707 * r_v - 5.46959e-3 * r_v**2 + 7.97809e-4 * r_v**3 - 4.45636e-5 * r_v**4,
    ]
    actual = curve("F99", [6000.0, 5470.0, 4670.0, 4110.0], r_v)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    np.testing.assert_allclose(actual, refitted, atol=5e-4)


def test_fitzpatrick_1999_passes_through_its_infrared_anchors() -> None:
    actual = curve("F99", [26500.0, 12200.0])
    np.testing.assert_allclose(actual, [0.26469, 0.82925], atol=2e-3)


def test_reddening_between_b_and_v_is_the_unit() -> None:
    blue, visual = curve("F99", [4400.0, 5500.0])
    assert blue - visual == pytest.approx(1, abs=0.03)


def test_fitzpatrick_1999_falls_to_the_red() -> None:
    assert (np.diff(curve("F99", np.arange(3700.0, 7500.0))) < 0).all()


def test_cardelli_1989_is_a_v_at_its_reference_wavelength() -> None:
    # x = 1.82 per micron is where a = 1, b = 0.
    assert curve("CCM89", [1e4 / 1.82], r_v=3.1)[0] == pytest.approx(3.1, rel=1e-6)


def test_cardelli_1989_follows_its_optical_polynomial() -> None:
    wavelength = np.array([4000.0, 7100.0, 8850.0])
    y = 1e4 / wavelength - 1.82
    a = [1, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999]
    b = [0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002]
    expected = 3.1 * np.polyval(a[::-1], y) + np.polyval(b[::-1], y)
    np.testing.assert_allclose(curve("CCM89", wavelength), expected, rtol=1e-6)


def test_o_donnell_1994_leaves_the_infrared_to_cardelli_1989() -> None:
    np.testing.assert_allclose(curve("O94", [15000.0]), curve("CCM89", [15000.0]))


def test_unknown_law_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'SMC' is unknown; take one of \['F99'"):
        curve("SMC", [5000.0])  # type: ignore[arg-type]  # what a card may hold


def test_wavelength_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"F99: wavelength 500 A is outside .* 1000-33333"):
        curve("F99", [5000.0, 500.0])


def test_r_v_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"R\(V\) 9 is outside .* 2-6"):
        curve("F99", [5000.0], r_v=9)
