"""Grids and the two kinds of wavelength."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.grid import Grid, air_to_vacuum, vacuum_to_air

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)


def test_linear_grid_has_even_pixels() -> None:
    grid = Grid(kind="linear", start=3700, step=1, size=3800)
    assert grid.wavelength[[0, -1]].tolist() == [3700, 7499]
    assert grid.edges[[0, -1]].tolist() == [3699.5, 7499.5]
    assert (grid.widths == 1).all()


def test_log_pixel_is_69_kms_wide() -> None:
    speed_of_light_kms = 299792.458
    expected = 69.03
    actual = speed_of_light_kms * SDSS.widths / SDSS.wavelength
    np.testing.assert_allclose(actual, expected, atol=0.01)


@given(st.integers(0, 4699))
def test_pixel_numbers_count_centres(number: int) -> None:
    assert SDSS.pixel(SDSS.wavelength[number]) == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize("grid", [SDSS, Grid(kind="linear", start=3600, step=0.8, size=7781)])
def test_grid_is_inferred_from_its_own_wavelengths(grid: Grid) -> None:
    actual = Grid.infer(grid.wavelength)
    assert (actual.kind, actual.size) == (grid.kind, grid.size)
    np.testing.assert_allclose(actual.wavelength, grid.wavelength, rtol=1e-12)


def test_uneven_axis_is_no_grid() -> None:
    with pytest.raises(ValueError, match="even neither in A nor in log10"):
        Grid.infer(np.linspace(60, 90, 50) ** 2)


def test_descending_axis_is_no_grid() -> None:
    with pytest.raises(ValueError, match="expected an ascending axis"):
        Grid.infer(SDSS.wavelength[::-1])


@pytest.mark.parametrize(
    ("air", "vacuum"), [(5000.0, 5001.39), (6562.80, 6564.61), (8542.09, 8544.44)]
)
def test_air_to_vacuum_agrees_with_published_lines(air: float, vacuum: float) -> None:
    assert air_to_vacuum(air) == pytest.approx(vacuum, abs=0.01)


@given(st.floats(2000, 25000))
def test_air_and_vacuum_are_inverse(wavelength: float) -> None:
    assert vacuum_to_air(air_to_vacuum(wavelength)) == pytest.approx(wavelength, abs=1e-8)


def test_air_to_vacuum_agrees_with_edlen() -> None:
    vacuum = np.linspace(3600, 9300, 50)
    s2 = (1e4 / vacuum) ** 2
    n = 1 + 6.4328e-5 + 2.94981e-2 / (146 - s2) + 2.5540e-4 / (41 - s2)
    np.testing.assert_allclose(vacuum_to_air(vacuum), vacuum / n, atol=0.01)


def test_a_copy_with_another_size_has_its_own_axis() -> None:
    grid = Grid(kind="linear", start=4000, step=1, size=20)
    assert grid.wavelength.size == 20
    assert grid.model_copy(update={"size": 10}).wavelength.tolist() == list(range(4000, 4010))
