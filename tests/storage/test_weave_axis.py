"""The wavelengths of WEAVE files: air becomes vacuum, and nothing of a line is lost."""

from pathlib import Path

import numpy as np
import pytest

from storage.grid import Grid, air_to_vacuum, vacuum_to_air
from storage.schema import Reason, Status
from storage.weave.axis import Axis, onto
from storage.weave.layout import GRIDS
from tests.storage.weave_mock import FIBRES, PIXELS, START, STEP, counts, inside, l1, load

STACK = "stack_1002046.fit"
OIII = 5008.24
"Vacuum wavelength of [O III], A; 5006.84 in air."


def line(axis: np.ndarray, centre: float, sigma: float = 0.6) -> np.ndarray:
    """A Gaussian of flux 1000 on nothing, averaged over pixels of an even axis."""
    from scipy.special import erf

    step = axis[1] - axis[0]
    edge = (np.append(axis, axis[-1] + step) - step / 2 - centre) / sigma / np.sqrt(2)
    return 500 * np.diff(erf(edge)) / step


def test_a_line_in_air_comes_out_where_it_is_in_vacuum(tmp_path: Path) -> None:
    centre = float(vacuum_to_air(OIII))
    assert centre == pytest.approx(5006.84, abs=0.01)
    axis = START + STEP * np.arange(PIXELS)
    data = np.broadcast_to(line(axis, centre), (FIBRES, PIXELS)).astype("f4")
    l1(tmp_path / STACK, axis={"CTYPE1": "AWAV"}, DATA=data)
    ds = load(tmp_path)
    assert (ds["status"] == Status.DONE).all()
    flux, wavelength = ds["flux"].to_numpy()[0].astype(float), ds["wavelength"].to_numpy()
    assert np.average(wavelength, weights=flux) == pytest.approx(OIII, abs=2e-3)
    # Counts of 1000 A; a count is 3 in house units.
    assert flux.sum() * STEP == pytest.approx(3000, rel=1e-5)


@pytest.mark.parametrize("config", GRIDS)
def test_every_grid_conserves_the_flux_of_lines_in_air(config: str) -> None:
    grid = GRIDS[config]
    begin = float(vacuum_to_air(grid.wavelength[0])) - 3
    air = Grid(kind="linear", start=begin, step=grid.step, size=grid.size + 400)
    for place in (0.1, 0.5, 0.9):
        vacuum = grid.start + place * grid.step * grid.size
        spectrum = line(air.wavelength, float(vacuum_to_air(vacuum)), 4 * grid.step)
        flux = spectrum[None].astype("f4")
        found, _ = onto(Axis(grid=air, medium="air"), grid, flux, np.ones_like(flux))
        assert found.sum(dtype=float) * grid.step == pytest.approx(1000, rel=1e-4)
        mean = np.average(grid.wavelength, weights=found[0].astype(float))
        assert mean == pytest.approx(vacuum, abs=0.01 * grid.step)


def test_every_pixel_of_air_has_its_own_shift() -> None:
    grid = GRIDS["weave-lr-blue"]
    shift = air_to_vacuum(grid.wavelength) - grid.wavelength
    assert shift[0] == pytest.approx(1.04, abs=0.01)
    assert shift[-1] == pytest.approx(1.68, abs=0.01)
    # 1000 counts in one pixel near each end: a single shift could not place both.
    air = Grid(kind="linear", start=grid.start, step=grid.step, size=grid.size)
    flux = np.zeros((1, grid.size), "f4")
    for pixel in (50, 9000):
        flux[:] = 0
        flux[0, pixel] = 1000
        found, _ = onto(Axis(grid=air, medium="air"), grid, flux, np.ones_like(flux))
        expected = float(air_to_vacuum(air.wavelength[pixel]))
        mean = np.average(grid.wavelength, weights=found[0].astype(float))
        # Within a pixel the light is taken to be even: the mean is that of the parts' pixels.
        assert mean == pytest.approx(expected, abs=grid.step / 2)


def test_sums_over_rebinned_pixels_have_the_error_that_ivar_says() -> None:
    grid = GRIDS["weave-lr-blue"]
    air = Grid(kind="linear", start=3650.0, step=grid.step, size=grid.size + 80)
    rng = np.random.default_rng(1)
    flux = rng.normal(0, 2, (200, air.size)).astype("f4")
    ivar = np.full_like(flux, 0.25)
    found, weight = onto(Axis(grid=air, medium="air"), grid, flux, ivar)
    blocks = found[:, :9600].reshape(200, -1, 40).sum(axis=2, dtype=float)
    stated = (1 / weight[:, :9600]).reshape(200, -1, 40).sum(axis=2, dtype=float)
    assert (blocks**2 / stated).mean() == pytest.approx(1, abs=0.02)
    # Of one pixel it says no less than the truth.
    assert 0.5 < (found**2 * weight).mean() < 1


def test_pixels_of_the_grid_are_copied_bit_for_bit(tmp_path: Path) -> None:
    l1(tmp_path / STACK, axis={"CRVAL1": 3660.0 + 0.25 * 100})
    flux = load(tmp_path)["flux"].to_numpy()
    expected = (counts() * np.float64(np.float32(3e-17)) * 1e17).astype("f4")
    np.testing.assert_allclose(flux[:, 100 : 100 + PIXELS], expected, rtol=1e-7)
    assert not flux[:, :100].any()
    assert not flux[:, 100 + PIXELS :].any()


def test_a_file_that_begins_before_the_grid_is_cut(tmp_path: Path) -> None:
    l1(tmp_path / STACK, axis={"CRVAL1": 3660.0 - 0.25 * 100})
    flux = load(tmp_path)["flux"].to_numpy()
    np.testing.assert_allclose(flux[:, : PIXELS - 100], counts()[:, 100:] * 3, rtol=1e-6)


def test_binned_pixels_in_vacuum_are_rebinned(tmp_path: Path) -> None:
    data = np.full((FIBRES, PIXELS), 100, "f4")
    l1(tmp_path / STACK, axis={"CD1_1": 0.5}, DATA=data)
    ds = load(tmp_path)
    good = ds["ivar"].to_numpy()[0] > 0
    assert good.sum() == pytest.approx(2 * PIXELS, abs=1)
    np.testing.assert_allclose(ds["flux"].to_numpy()[:, good], 300, rtol=1e-6)


@pytest.mark.parametrize(
    "axis",
    [
        {"CRVAL1": 500.0, "CD1_1": 0.025, "CUNIT1": "nm"},
        {"CUNIT1": "Angstroms"},
        {"CD1_1": None, "CDELT1": 0.25},
        {"CRPIX1": 101.0, "CRVAL1": 5025.0},
        {"CRPIX1": None},
    ],
)
def test_ways_of_writing_the_axis(tmp_path: Path, axis: dict[str, object]) -> None:
    l1(tmp_path / STACK, axis=axis)
    np.testing.assert_allclose(inside(load(tmp_path)), counts() * 3, rtol=1e-6)


@pytest.mark.parametrize("kind", [None, "LINEAR", "LAMBDA"])
def test_without_a_medium_the_file_is_refused(tmp_path: Path, kind: str | None) -> None:
    l1(tmp_path / STACK, axis={"CTYPE1": kind})
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.BAD_GRID).all()
    assert "set survey.options.medium to 'air' or 'vacuum'" in str(ds["reason"].values[0])


def test_the_card_says_the_medium_also_against_the_header(tmp_path: Path) -> None:
    l1(tmp_path / "none" / STACK, axis={"CTYPE1": None})
    l1(tmp_path / "wave" / STACK, axis={"CTYPE1": "WAVE"})
    l1(tmp_path / "awav" / STACK, axis={"CTYPE1": "AWAV"})
    expected = load(tmp_path / "awav")
    for folder in ("none", "wave"):
        np.testing.assert_array_equal(
            load(tmp_path / folder, medium="air")["flux"], expected["flux"]
        )
    assert not np.array_equal(load(tmp_path / "wave")["flux"], expected["flux"])


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ({"CRVAL1": "red"}, "CRVAL1 of BLUE_DATA is 'red', expected a number"),
        ({"CD1_1": None}, "CD1_1 of BLUE_DATA is None, expected a number"),
        ({"CD1_1": -0.25}, "in steps of -0.25 A"),
        ({"CUNIT1": "furlong"}, "CUNIT1 of BLUE_DATA is 'furlong'"),
        ({"CRVAL1": 7000.0}, "7000.0 to 7100.0 A has nothing of weave-lr-blue, 3660 to 6060 A"),
    ],
)
def test_an_absurd_axis_is_refused(tmp_path: Path, axis: dict[str, object], words: str) -> None:
    l1(tmp_path / STACK, axis=axis)
    ds = load(tmp_path)
    assert (ds["reason_code"] == Reason.BAD_GRID).all()
    assert words in str(ds["reason"].values[0])
