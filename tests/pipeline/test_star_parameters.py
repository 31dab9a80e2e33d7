"""Parameters of stars: found between nodes, at ends, beside holes, on grids of the user's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.stars.between import Box
from pipeline.stars.denoised import start_from
from pipeline.stars.fit import Start, measure_stars, start_values
from pipeline.stars.flag import Flag
from pipeline.stars.templates import Templates, TemplateSet, line_spread, templates
from tests.pipeline.star_scene import CHOSEN, GRID, SIGMA, noisy, seen, write_table
from training import checkpoint
from training.checkpoint import Card
from training.frame import Frame
from training.recipe import ModelCard

AXES = (np.array([1.0, 2.0, 4.0, 4.5]), np.array([0.0, 5.0]), np.array([7.0]))
PLACES = ((4430.0, 2.3, -0.6), (4130.0, 1.4, -1.2), (4880.0, 3.7, -0.1))


@pytest.fixture(scope="module")
def stars() -> Templates:
    return templates(CHOSEN)


@pytest.mark.parametrize("place", PLACES)
def test_parameters_between_nodes_are_found(
    place: tuple[float, float, float], stars: Templates
) -> None:
    flux = seen([77.0], place)
    ivar = np.full(flux.shape, 1e6)
    start = start_values(GRID.wavelength, flux, ivar, templates=stars)
    node = (stars.box.index(start.parameters) - stars.box.index(_values(place)))[0, :3]
    assert (node.abs() < 1.5).all()
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars)
    assert found.teff.item() == pytest.approx(place[0], abs=15)
    assert found.logg.item() == pytest.approx(place[1], abs=0.1)
    assert found.feh.item() == pytest.approx(place[2], abs=0.03)
    assert found.flag.item() == 0
    # The templates have one [alpha/M] alone.
    assert found.alpha_m.item() == 0
    assert found.alpha_m_err.isnan().all()


def test_any_start_leads_to_the_same_place(stars: Templates) -> None:
    flux, ivar = noisy(np.repeat(seen([77.0]), 20, axis=0), snr=60)
    expected = measure_stars(GRID.wavelength, flux, ivar, templates=stars)
    near = _start(77.0, (4500.0, 2.0, -0.5), 20)
    far = _start(40.0, (4900.0, 3.8, -0.1), 20)
    steps = []
    for start in (near, far):
        found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=start)
        assert found.velocity.numpy() == pytest.approx(expected.velocity.numpy(), abs=1.0)
        assert found.chi2.numpy() == pytest.approx(expected.chi2.numpy(), abs=0.15)
        steps.append(found.iterations.double().mean().item())
    assert steps[0] < steps[1]


def test_a_start_at_the_minimum_needs_no_step(stars: Templates) -> None:
    flux, ivar = noisy(seen([77.0]), snr=60)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars)
    place = (found.teff.item(), found.logg.item(), found.feh.item())
    there = _start(found.velocity.item(), place, 1)
    again = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=there)
    assert again.iterations.item() == 0
    assert again.velocity.item() == pytest.approx(found.velocity.item(), abs=0.1)


def test_a_denoised_spectrum_starts_the_fit_of_the_noisy_one(stars: Templates) -> None:
    clean = seen([77.0])
    flux, ivar = noisy(clean, snr=20)
    start = start_values(GRID.wavelength, clean, ivar, templates=stars)
    assert start.velocity.item() == pytest.approx(77.0, abs=1)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=start)
    expected = measure_stars(GRID.wavelength, flux, ivar, templates=stars)
    assert found.velocity.item() == pytest.approx(expected.velocity.item(), abs=0.5)
    assert found.velocity_err.item() == pytest.approx(expected.velocity_err.item(), rel=0.05)


def test_a_model_says_where_to_start(stars: Templates, tmp_path: Path) -> None:
    model = checkpoint.load(_smoother(tmp_path, rest=False))
    flux, ivar = noisy(seen([77.0, -300.0]), snr=20)
    start = start_from(model, GRID.wavelength, flux, ivar, templates=stars)
    assert start.velocity.numpy() == pytest.approx([77.0, -300.0], abs=25)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=start)
    assert found.velocity.numpy() == pytest.approx([77.0, -300.0], abs=25)


def test_a_model_at_rest_says_nothing_of_velocities(stars: Templates, tmp_path: Path) -> None:
    model = checkpoint.load(_smoother(tmp_path, rest=True))
    flux, ivar = noisy(seen([77.0]), snr=20)
    with pytest.raises(ValueError, match=r"frame 'small' is at rest, where a star has no velocity"):
        start_from(model, GRID.wavelength, flux, ivar, templates=stars)


def test_a_row_without_a_start_starts_in_the_middle(stars: Templates) -> None:
    flux, ivar = noisy(seen([20.0]), snr=60)
    nowhere = _start(np.nan, (np.nan, np.nan, np.nan), 1)
    found = measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=nowhere)
    assert found.velocity.item() == pytest.approx(20.0, abs=10)


def test_a_start_is_of_as_many_stars(stars: Templates) -> None:
    flux, ivar = noisy(seen([20.0, 30.0]), snr=60)
    with pytest.raises(ValueError, match=r"start: 3 stars, expected 2 as flux has"):
        measure_stars(GRID.wavelength, flux, ivar, templates=stars, start=_start(0.0, PLACES[0], 3))


def test_a_star_outside_the_templates_stands_at_their_end(stars: Templates) -> None:
    flux = seen([0.0], (4500.0, 2.0, -2.2))
    found = measure_stars(GRID.wavelength, flux, np.full(flux.shape, 1e4), templates=stars)
    assert found.flag.item() & Flag.EDGE
    assert found.feh.item() == -1.5
    assert found.feh_err.isnan().all()
    assert found.velocity.item() == pytest.approx(0.0, abs=2)


def test_lines_are_as_wide_as_the_instrument_and_the_pixel() -> None:
    sigma = np.full(GRID.size, 0.9)
    sigma[:40] = 0
    curve = np.array(line_spread(sigma, GRID))
    assert curve[:, 1] == pytest.approx(69.03 * np.sqrt(0.81 + 1 / 12), rel=1e-3)
    with pytest.raises(ValueError, match=r"lsf: no pixel has a line spread"):
        line_spread(0 * sigma, GRID)
    with pytest.raises(ValueError, match=r"lsf: shape \(9,\), expected \(250,\)"):
        line_spread(sigma[:9], GRID)


def a_table(path: Path, missing: tuple[float, float, float] | None = None) -> TemplateSet:
    """The toy's models as anybody's table, perhaps without one."""
    write_table(path, missing)
    own = {"physics": "table", "models": str(path)}
    return TemplateSet(**{**CHOSEN.model_dump(), **own})


def test_a_grid_of_the_user_s_is_fitted(tmp_path: Path) -> None:
    mine = templates(a_table(tmp_path / "mine.fits"))
    assert mine.flux.shape[0] == 48
    flux = seen([-210.0])
    found = measure_stars(GRID.wavelength, flux, np.full(flux.shape, 1e6), templates=mine)
    assert found.velocity.item() == pytest.approx(-210.0, abs=0.5)
    assert found.feh.item() == pytest.approx(-0.6, abs=0.05)
    assert found.flag.item() == 0


def test_a_star_beside_a_hole_says_so(tmp_path: Path) -> None:
    mine = templates(a_table(tmp_path / "mine.fits", missing=(4500.0, 2.0, -0.5)))
    assert (~mine.there).sum() == 1
    flux = np.concatenate([seen([-210.0], place) for place in PLACES[::2]])
    found = measure_stars(GRID.wavelength, flux, np.full(flux.shape, 1e4), templates=mine)
    assert (found.flag & Flag.BESIDE_HOLE > 0).tolist() == [True, False]
    assert found.velocity.numpy() == pytest.approx(-210.0, abs=3)


def test_models_must_reach_over_the_band(tmp_path: Path) -> None:
    wide = a_table(tmp_path / "mine.fits").model_copy(update={"wavelength": (7100.0, 8850.0)})
    with pytest.raises(ValueError, match=r"mine.fits.*8150-.* A; the mock needs"):
        templates(wide)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"teff": (5000.0, 4000.0)}, r"teff = \(5000, 4000\): the first is the lower end"),
        ({"physics": "bosz"}, r"physics = 'bosz' with models = ''"),
        ({"models": "somewhere"}, r"the toy has no files"),
        ({"nodes": (0, 1, 1, 1)}, r"greater than 0"),
        ({"colour": 3}, r"Extra inputs"),
    ],
)
def test_what_makes_no_templates_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TemplateSet(**{"line_spread": SIGMA, **options})


def test_a_range_without_a_node_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logg = \(2.1, 2.4\): grid toy has no node there"):
        templates(CHOSEN.model_copy(update={"logg": (2.1, 2.4)}))


def test_weights_are_those_of_splines() -> None:
    box = Box(AXES)
    nodes = box.parameters
    whole = box.weights(nodes)
    assert whole[0].numpy() == pytest.approx(np.eye(len(nodes)), abs=1e-12)
    place = torch.tensor([[1.3, 2.0, 7.0], [4.4, 4.9, 7.0]], dtype=torch.float64)
    found = box.weights(place)
    assert found[0].sum(1).numpy() == pytest.approx(1)
    # A spline through four points is the cubic, whose slope is known.
    cubic = nodes[:, 0] ** 3 * nodes[:, 1]
    x, y = place[:, 0], place[:, 1]
    assert (found[0] @ cubic).numpy() == pytest.approx((x**3 * y).numpy())
    assert (found[1] @ cubic).numpy() == pytest.approx((3 * x**2 * y).numpy())
    assert (found[2] @ cubic).numpy() == pytest.approx((x**3).numpy())
    assert (found[3] == 0).all()


def test_numbers_of_nodes_and_values_are_the_same_places() -> None:
    box = Box(AXES)
    place = torch.tensor([[1.3, 2.0, 7.0], [4.5, 0.0, 7.0], [4.2, 5.0, 7.0]], dtype=torch.float64)
    index = box.index(place)
    assert index[:, 0].tolist() == pytest.approx([0.3, 3.0, 2.4])
    assert box.value(index).numpy() == pytest.approx(place.numpy())


def _values(place: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor([[*place, 0.0]], dtype=torch.float64)


def _start(kms: float, place: tuple[float, float, float], count: int) -> Start:
    one = torch.full((count,), kms, dtype=torch.float64)
    flag = torch.zeros(count, dtype=torch.uint8)
    return Start(one, one, _values(place).repeat(count, 1), one, flag)


def _smoother(folder: Path, rest: bool) -> Path:
    frame = Frame(name="small", grid=GRID, window=(8400.0, 8800.0), dust=None, rest=rest)
    options = {"model": "butterworth", "options": {}}
    model = ModelCard.model_validate(options).build(frame.grid)
    return checkpoint.save(folder, "smoother", model, Card(**options, frame=frame))
