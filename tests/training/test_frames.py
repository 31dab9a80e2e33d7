"""Named frames: other axes, other levels, and what each survey sees of them."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from storage.grid import Grid
from storage.simulation.instrument import load
from storage.simulation.stellar_night import FRAME as PAPER
from training.frame import Frame
from training.frames import FRAMES, named
from training.norm import NOISELESS, own_share

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
DESI = Grid(kind="linear", start=3600, step=0.8, size=7781)
S23, SPENDER, STAR = (named(name) for name in ("s23", "spender", "star"))

Array = NDArray[Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shape(grid: Grid) -> Array:
    """A slope and waves."""
    return 1.5 - grid.wavelength / 12000 + 0.2 * np.sin(grid.wavelength / 90)


def survey(rows: int, grid: Grid = SDSS, snr: float = 20, seed: int = 0) -> dict[str, Array]:
    """Noisy spectra; one pixel in 30 has no data."""
    draw = np.random.default_rng(seed)
    level = draw.uniform(1, 50, (rows, 1))
    flux = level * shape(grid)
    noisy = flux + level / snr * draw.normal(size=flux.shape)
    ivar = np.broadcast_to((snr / level) ** 2, flux.shape).copy()
    gone = draw.random(flux.shape) < 0.03
    noisy[gone], ivar[gone] = 0, 0
    z, ebv = draw.uniform(0, 0.2, rows), draw.uniform(0, 0.1, rows)
    return {"flux": noisy.astype("f4"), "ivar": ivar.astype("f4"), "z": z, "ebv": ebv}


def exact(rows: int, seed: int = 0) -> dict[str, Array]:
    """The same without noise or gaps."""
    found = survey(rows, seed=seed)
    level = np.random.default_rng(seed).uniform(1, 50, (rows, 1))
    flux = (level * shape(SDSS)).astype("f4")
    return {**found, "flux": flux, "ivar": np.full(flux.shape, NOISELESS, "f4")}


def test_fields_that_came_later_leave_older_labels_as_they_were() -> None:
    before = {"name", "grid", "window", "dust", "r_v", "min_good"}
    assert set(named("fs").model_dump(mode="json")) == before
    assert Frame(rest=True, norm="mean", level=1.0).label == named("fs").label
    labels = {frame.label for frame in FRAMES.values()}
    assert len(labels) == len(FRAMES)
    for frame in FRAMES.values():
        again = Frame.model_validate_json(frame.model_dump_json())
        assert again == frame
        assert again.label == frame.label


def test_axes_are_those_of_the_papers() -> None:
    bins = S23.grid.wavelength
    assert len(bins) == 825
    np.testing.assert_allclose(bins[[0, -1]], [3700, 7900])
    np.testing.assert_allclose(SPENDER.grid.wavelength, 10 ** (3.578 + 1e-4 * np.arange(3921)))
    assert STAR.grid == PAPER
    np.testing.assert_allclose(STAR.grid.edges[[0, -1]], [7100, 8850])
    pixels = S23.grid.wavelength
    assert ((pixels >= S23.window[0]) & (pixels < S23.window[1])).all()


def test_an_observed_frame_leaves_lines_where_they_were_seen() -> None:
    rows = exact(2)
    line = 20 * np.exp(-0.5 * ((SDSS.wavelength - 6000) / 3) ** 2).astype("f4")
    bare, lit = (SPENDER.on(SDSS).to(**{**rows, "flux": rows["flux"] + f}) for f in (0, line))
    found = lit.x * lit.scale[:, None] - bare.x * bare.scale[:, None]
    assert (SPENDER.grid.wavelength[found.argmax(1)] - 6000 < 1).all()


def test_pixels_that_are_the_survey_s_own_keep_their_values() -> None:
    rows = {**survey(4), "ebv": np.zeros(4)}
    batch = SPENDER.on(SDSS).to(**rows)
    inside = slice(280, 280 + 3921)
    flux, ivar = rows["flux"][:, inside], rows["ivar"][:, inside]
    good = ivar > 0
    assert ((batch.weight.numpy() > 0) == good).all()
    actual = (batch.x * batch.scale[:, None]).numpy()
    np.testing.assert_allclose(actual[good], flux[good], rtol=1e-5, atol=1e-5)
    weight = (batch.weight / batch.scale[:, None] ** 2).numpy()
    np.testing.assert_allclose(weight[good], ivar[good], rtol=1e-4)


def test_a_window_at_rest_moves_over_an_observed_axis() -> None:
    rows = survey(6)
    batch = SPENDER.on(SDSS).to(**rows)
    flux = (batch.x * batch.scale[:, None]).numpy()
    for row, z in enumerate(rows["z"]):
        rest = SPENDER.grid.wavelength / (1 + z)
        window = (rest >= 5300) & (rest < 5850) & (batch.weight[row].numpy() > 0)
        expected = np.percentile(flux[row, window], 50, method="lower")
        assert batch.scale[row] == pytest.approx(expected, rel=1e-5)


def test_the_median_of_a_star_becomes_a_half() -> None:
    batch = STAR.on(SDSS).to(**{**survey(5), "z": np.full(5, 1e-3)})
    for x, weight in zip(batch.x.numpy(), batch.weight.numpy(), strict=True):
        assert np.percentile(x[weight > 0], 50, method="lower") == pytest.approx(0.5, rel=1e-5)
    assert batch.ok.all()


def test_squares_of_a_spectrum_without_noise_sum_to_one() -> None:
    batch = S23.on(SDSS).to(**exact(4))
    torch.testing.assert_close(batch.x.square().sum(1), torch.ones(4), rtol=1e-4, atol=0)


@pytest.mark.parametrize("grid", [SDSS, DESI], ids=["sdss", "desi"])
def test_noise_and_gaps_do_not_change_the_level_of_squares(grid: Grid) -> None:
    many = {name: np.repeat(value[:1], 300, axis=0) for name, value in survey(1, grid).items()}
    flux = shape(grid).astype("f4")
    draw = np.random.default_rng(2)
    gone = draw.random((300, grid.size)) < 0.02
    # S/N 1 a pixel: the sum of squares of the noise is as large as that of the light.
    noisy = np.where(gone, 0, flux + draw.normal(size=gone.shape)).astype("f4")
    seen = {**many, "flux": noisy, "ivar": np.where(gone, 0, 1).astype("f4")}
    clean = {**many, "flux": np.tile(flux, (300, 1)), "ivar": np.full(gone.shape, NOISELESS)}
    frame = Frame(name="s", grid=S23.grid, window=S23.window, norm="l2", dust=None)
    noisy_scale, due = (frame.on(grid).to(**rows).scale for rows in (seen, clean))
    ratio = (noisy_scale / due).square().mean().item()
    assert ratio == pytest.approx(1, abs=0.01)


def test_a_rebinned_pixel_by_itself_has_its_share_of_the_variance_of_sums() -> None:
    draw = np.random.default_rng(1)
    noise = draw.normal(size=(40, SDSS.size))
    frame = Frame(norm="l2", dust=None, grid=S23.grid, window=S23.window)
    batch = frame.on(SDSS).to(1e3 + noise, np.ones(noise.shape), np.full(40, 0.03), np.zeros(40))
    single = (batch.x * batch.scale[:, None] - 1e3).var(0)
    sums = (batch.scale[:, None] ** 2 / batch.weight).mean(0)
    shares = own_share(torch.tensor([0.5, 1.0, 3.998])).tolist()
    assert shares == pytest.approx([5 / 12, 2 / 3, 11 / 12], rel=1e-3)
    assert (single / sums).mean().item() == pytest.approx(shares[2], rel=0.02)


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_a_row_does_not_depend_on_its_company(name: str) -> None:
    rows = survey(70)
    rows["z"][8], rows["ivar"][9] = np.nan, 0
    mapper = named(name).on(SDSS)
    together = mapper.to(**rows)
    assert not together.ok[[8, 9]].any()
    for row in (0, 31, 32, 69):
        alone = mapper.to(**{k: v[row : row + 1] for k, v in rows.items()})
        for key in ("x", "weight", "scale"):
            assert torch.equal(getattr(alone, key)[0], getattr(together, key)[row])


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_there_and_back_recovers_bands(name: str) -> None:
    rows = exact(2)
    rows["z"][:] = 0.08 if named(name).rest or name == "spender" else 0.001
    mapper = named(name).on(SDSS)
    batch = mapper.to(**rows)
    flux, _ = mapper.back(batch.x, batch.scale, rows["z"], rows["ebv"])
    inside = np.flatnonzero(flux[0].numpy())
    bands = inside[50 : 50 + 20 * ((len(inside) - 100) // 20)].reshape(-1, 20)
    assert len(bands) > 15
    actual = flux[0].numpy()[bands].mean(axis=1)
    np.testing.assert_allclose(actual, rows["flux"][0][bands].mean(axis=1), rtol=2e-3)


def test_what_is_fainter_than_its_noise_has_no_level() -> None:
    rows = survey(3)
    rows["flux"] = 1e-3 * rows["flux"]
    batch = S23.on(SDSS).to(**rows)
    assert not batch.ok.any()
    assert (batch.x == 0).all()
    assert (batch.weight == 0).all()


def test_a_window_that_has_moved_off_the_data_has_no_level() -> None:
    rows = {**survey(3), "z": np.array([0.1, 0.75, 0.9])}
    batch = SPENDER.on(SDSS).to(**rows)
    assert batch.ok.tolist() == [True, False, False]


def test_redshifts_are_seen_where_the_axis_is_observed_alone() -> None:
    z = np.array([0.1, 0.2])
    assert named("fs").z_seen(z) is None
    assert SPENDER.z_seen(z) is z


def test_a_window_at_rest_on_rest_wavelengths_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"window_rest on rest wavelengths, where every"):
        Frame(window_rest=True)


def test_a_near_name_is_offered() -> None:
    with pytest.raises(ValueError, match=r"frame 'weave' is unknown.*did you mean 'weave-"):
        named("weave")


SEEN = {
    # frame, instrument and arms, grid, lowest and highest z with at most a tenth missing
    "desi": ("desi", ("b", "r", "z"), DESI, (0.0, 0.33)),
    "weave-blue": ("weave-lr", ("blue",), Grid(kind="linear", start=3660, step=0.25, size=9601),
                   (0.01, 0.27)),
    "weave-red": ("weave-lr", ("red",), Grid(kind="linear", start=5790, step=0.25, size=15201),
                  (0.02, 0.28)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_a_survey_s_frame_is_covered_where_its_galaxies_are(name: str) -> None:
    instrument, arms, grid, limits = SEEN[name]
    spans = [arm.wavelength for arm in load(instrument).arms if arm.name in arms]
    covered = np.any([(grid.wavelength >= a) & (grid.wavelength <= b) for a, b in spans], axis=0)
    z = np.array([0.05, 0.24, *limits, limits[1] + 0.05])
    ivar = np.broadcast_to(covered.astype("f4"), (len(z), grid.size))
    batch = named(name).on(grid).to(np.ones_like(ivar), ivar, z, np.zeros(len(z)))
    assert batch.ok[:4].all()
    assert (batch.missing[:2] <= 0.03).all()
    assert (batch.missing[2:4] <= 0.1).all()
    assert batch.missing[4] > 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(FRAMES))
def test_gpu_agrees_with_cpu(name: str) -> None:
    rows, mapper = survey(40), named(name).on(SDSS)
    here, there = mapper.to(**rows), mapper.to(**rows, device=torch.device("cuda"))
    for key in ("x", "weight", "scale", "ok"):
        one, other = getattr(here, key), getattr(there, key)
        assert other.is_cuda
        torch.testing.assert_close(other.cpu(), one, rtol=1e-4, atol=1e-5)
