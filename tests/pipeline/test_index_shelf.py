"""Every index of the shelf against analysis: a line's width, a step's height, a slope."""

import numpy as np
import pytest

from pipeline.definition import Atomic, Break
from pipeline.index import find, measure, names
from pipeline.index_generic import Generic
from storage.grid import Grid, air_to_vacuum

FINE = Grid(kind="linear", start=3650.0, step=0.25, size=20800)
WAVE = FINE.wavelength
LINE = 1.0
"Equivalent width, A, of the line that is drawn."


def line(centre_air: float, ew: float = LINE, sigma: float = 1.2) -> np.ndarray:
    """The depth of an absorption line."""
    centre = float(air_to_vacuum(centre_air))
    depth = ew / (sigma * np.sqrt(2 * np.pi))
    return np.asarray(depth * np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2))


def value(flux: np.ndarray, name: str) -> float:
    return float(measure(WAVE, flux[None], None, (name,)).value)


def of(kind: type) -> list[str]:
    return [name for name in names() if isinstance(find(name), kind)]


# Waves that no shift leaves where they are, on lines of which there is a root.
WAVES = 1 + 0.1 * np.sin(WAVE / 7.3) + 0.1 * np.sin(WAVE / 11.0 + WAVE**2 / 3e6)
for centre in (5177.0, 5267.0, 5334.0):
    WAVES -= line(centre, 4.0, 5.0)


def smooth(wave: np.ndarray) -> np.ndarray:
    """A slope with lines."""
    flux = 1.2 + wave / 2e4
    for centre in (5177.0, 5267.0, 5334.0, *np.arange(3800.0, 8800.0, 333.0)):
        flux = flux - 0.3 * np.exp(-0.5 * ((wave - centre) / 7) ** 2)
    return np.asarray(flux)


SMOOTH = np.stack([smooth(WAVE), 2 * smooth(WAVE), smooth(WAVE + 3)])
MOVED = [
    (axis, smooth(axis / (1 + z)), z)
    for start, z in ((3650.17, 0.0), (3850.0, 0.05), (3850.3, 0.05))
    for axis in [start + 0.5 * np.arange(11500)]
]


def atomic(name: str) -> Atomic:
    found = find(name)
    assert isinstance(found, Atomic)
    return found


def middle(name: str) -> float:
    return sum(atomic(name).feature) / 2


@pytest.mark.parametrize("name", of(Atomic))
def test_a_line_in_the_middle_of_the_feature_is_its_width(name: str) -> None:
    index = atomic(name)
    width = index.feature[1] - index.feature[0]
    expected = LINE if index.units == "Angstrom" else -2.5 * np.log10(1 - LINE / width)
    assert value(1 - line(middle(name)), name) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", of(Atomic))
def test_the_continuum_is_the_line_through_the_side_bands(name: str) -> None:
    # On a slope, a line as deep in units of the continuum has the same width.
    slope = 1 + (WAVE - air_to_vacuum(middle(name))) / 4000
    level = value(1 - line(middle(name)), name)
    assert value(slope * (1 - line(middle(name))), name) == pytest.approx(level, abs=3e-4)


@pytest.mark.parametrize("name", of(Break))
def test_a_step_between_the_bands_is_its_height(name: str) -> None:
    index = find(name)
    assert isinstance(index, Break)
    step = float(air_to_vacuum((index.blue[1] + index.red[0]) / 2))
    flat = WAVE**-2.0 if index.density == "nu" else np.ones_like(WAVE)
    assert value(np.where(step > WAVE, 1.0, 1.6) * flat, name) == pytest.approx(1.6, abs=1e-9)


@pytest.mark.parametrize("name", of(Generic))
def test_a_generic_index_is_the_sum_of_its_features(name: str) -> None:
    index = find(name)
    assert isinstance(index, Generic)
    widths = 0.4 + 0.3 * np.arange(len(index.features))
    lines = [line(sum(b) / 2, ew) for b, ew in zip(index.features, widths, strict=True)]
    expected = float(np.dot(index.factors, widths))
    assert value(1 - np.sum(lines, axis=0), name) == pytest.approx(expected, rel=1e-3)
    slope = 1 + (WAVE - 8600) / 3000
    assert value(slope * (1 - np.sum(lines, axis=0)), name) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["Fe_mean", "MgFe", "MgFe_prime"])
def test_a_composite_is_the_formula_of_its_parts(name: str) -> None:
    mg, fe1, fe2 = 3.0, 2.5, 2.0
    flux = 1 - line(middle("Mgb"), mg, 3) - line(middle("Fe5270"), fe1, 3)
    flux = flux - line(middle("Fe5335"), fe2, 3)
    expected = {
        "Fe_mean": (fe1 + fe2) / 2,
        "MgFe": np.sqrt(mg * (fe1 + fe2) / 2),
        "MgFe_prime": np.sqrt(mg * (0.72 * fe1 + 0.28 * fe2)),
    }
    assert value(flux, name) == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.parametrize("name", names())
def test_bands_in_air_on_a_vacuum_axis_would_be_seen(name: str) -> None:
    # The trap: bands as published on wavelengths as observed, 1.1-2.4 A off.
    trap = float(measure(WAVE, WAVES[None], None, (name,), medium="air").value)
    assert abs(trap - value(WAVES, name)) > 3e-4


@pytest.mark.parametrize("name", of(Break))
def test_the_other_flux_density_would_be_seen(name: str) -> None:
    index = find(name)
    assert isinstance(index, Break)
    other = Break(
        name="other",
        blue=index.blue,
        red=index.red,
        density="lambda" if index.density == "nu" else "nu",
        reference="the trap",
    )
    found = measure(WAVE, np.ones((1, WAVE.size)), None, (index, other)).value[0]
    assert abs(float(found[0] - found[1])) > 0.05


@pytest.mark.parametrize("name", names())
def test_neither_order_nor_part_of_a_pixel_nor_redshift_matters(name: str) -> None:
    at_rest = value(SMOOTH[0], name)
    found = [
        float(measure(wave, flux[None], None, (name,), z=np.array([z])).value)
        for wave, flux, z in MOVED
    ]
    np.testing.assert_allclose(found, at_rest, atol=2e-3 * max(1.0, abs(at_rest)))
    forward, backward = (
        measure(WAVE, rows, None, (name,)).value for rows in (SMOOTH, SMOOTH[::-1])
    )
    np.testing.assert_array_equal(forward.flip(0), backward)
