"""The mock of stars: what is seen is what was drawn, and its noise is what it says."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import CubicSpline
from scipy.ndimage import uniform_filter1d

from storage import dust
from storage.grid import Float, Grid, air_to_vacuum
from storage.mocks.star import Star, build
from storage.simulation.instrument import C_KMS, load
from storage.simulation.stellar_light import optics
from storage.simulation.stellar_night import FRAME, PAPER, PFS
from storage.simulation.stellar_toy import spectra

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
CARD = Path(__file__).parents[2] / "deploy/cards/mocks/star-v1.toml"
FEW = {"teff": (4250.0, 4500.0), "logg": (2.0, 2.5), "feh": (-0.5, -0.25), "alpha_m": (0.0, 0.25)}


def ab(magnitude: float, wavelength: Float) -> Float:
    """Flux of a source flat in frequency, 1e-17 erg s-1 cm-2 A-1."""
    return 3631e-23 * 10 ** (-0.4 * magnitude) * 2.99792458e18 / wavelength**2 * 1e17


def test_the_card_names_every_option_at_its_default() -> None:
    card = tomllib.loads(CARD.read_text())

    assert card.pop("mock") == "star"
    assert set(card) == set(Star.model_fields)
    assert build(**card) == build()


def test_parameters_are_uniform_in_the_ranges_of_the_paper() -> None:
    truth = build(**PAPER).truth(0, FRAME, seed=1, stream="survey")
    assert truth.sizes["spectrum"] == 0

    u = np.random.default_rng(1).random((4000, 6))
    mock = build(**PAPER)
    drawn, _ = mock.draw(u, mock.nodes(PFS, FRAME)[0])

    ranges = {
        "teff": (3500, 5000), "logg": (0, 5), "feh": (-2.5, 0.75), "alpha_m": (-0.25, 0.5),
        "z": (-0.003, 0.003), "magnitude": (19.0, 22.5), "ebv": (0.0, 0.1),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        assert drawn[name].min() >= low - 1e-9
        assert drawn[name].max() <= high + 1e-9
        assert abs(drawn[name].mean() - (low + high) / 2) < 0.03 * (high - low)


def velocity(star: Float, still: Float, grid: Grid) -> float:
    """Shift by cross-correlation in log wavelength, km/s, to a fraction of a pixel."""
    axis = np.arange(3.76, 3.94, 2e-6)
    one, other = (CubicSpline(np.log10(grid.wavelength), f)(axis) for f in (star, still))
    # Lines alone: a slope of the continuum pulls the peak towards no shift.
    one, other = (f / uniform_filter1d(f, 4001) - 1 for f in (one, other))
    lags = np.arange(-800, 801)
    score = [(one[3000:-3000] * other[3000 - k : other.size - 3000 - k]).sum() for k in lags]
    best = int(np.argmax(score))
    a, b, c = score[best - 1 : best + 2]
    return float((lags[best] + 0.5 * (a - c) / (a - 2 * b + c)) * 2e-6 * np.log(10) * C_KMS)


@pytest.mark.parametrize("z", [-0.003, -0.00041, 0.0017])
def test_the_doppler_shift_is_found_by_cross_correlation(z: float) -> None:
    seen = optics(load("sdss"), SDSS)
    one = [np.array([value]) for value in (4500.0, 2.0, -0.5, 0.2)]
    kept = np.repeat(seen.keep(spectra(*one, seen.fine)), 2, axis=0)

    still, moved = seen.seen(kept, np.array([0.0, z]), np.zeros(2), np.full(2, 17.0))

    found = velocity(moved / ab(17, SDSS.wavelength), still / ab(17, SDSS.wavelength), SDSS)
    # A pixel is 69 km/s.
    assert found == pytest.approx(np.log1p(z) * C_KMS, abs=1.0)


@pytest.mark.parametrize(("instrument", "grid"), [("sdss", SDSS), (PFS, FRAME)])
def test_shift_spread_and_pixels_are_those_of_an_integral(instrument: object, grid: Grid) -> None:
    arm = load(instrument)  # type: ignore[arg-type]
    seen, z = optics(arm, grid), 0.0023
    one = [np.array([value]) for value in (4250.0, 2.0, 0.0, 0.2)]
    fine = spectra(*one, seen.fine)[0].astype(np.float64)

    flux = seen.seen(seen.keep(fine[None]), np.array([z]), np.zeros(1), np.array([17.0]))[0]

    # By hand, pixel by pixel: shift, Gaussian of the instrument, mean over the pixel.
    where = np.flatnonzero((grid.wavelength > 8400) & (grid.wavelength < 8800))[::7]
    moved = seen.fine.wavelength * (1 + z)
    direct = []
    for pixel in where:
        sigma = grid.wavelength[pixel] * arm.lsf_kms(grid.wavelength[[pixel]])[0] / C_KMS
        inside = np.linspace(*grid.edges[pixel : pixel + 2], 41)
        near = np.abs(moved - grid.wavelength[pixel]) < 8 * sigma
        weight = np.exp(-0.5 * ((moved[near] - inside[:, None]) / sigma) ** 2).mean(axis=0)
        weight *= moved[near]
        direct.append((weight * fine[near]).sum() / weight.sum())
    ratio = flux[where] / np.array(direct)
    np.testing.assert_allclose(ratio / np.median(ratio), 1, atol=2e-3)


def test_magnitude_is_that_behind_the_dust() -> None:
    truth = build(**FEW, galactic=(0.1, 0.1)).truth(20, SDSS, seed=2, stream="survey")

    band = (SDSS.wavelength > 7100) & (SDSS.wavelength < 8400)
    flux, x, dx = truth["flux"].to_numpy()[:, band], SDSS.wavelength[band], SDSS.widths[band]
    frequency = (flux * x * dx).sum(axis=1) / (dx / x).sum()
    magnitude = -2.5 * np.log10(frequency / (3631e-23 * 2.99792458e18 * 1e17))
    np.testing.assert_allclose(magnitude, truth["magnitude"], atol=0.005)


def test_dust_reddens_by_the_curve_of_ccm89() -> None:
    plain, dusty = (
        build(**FEW, galactic=(e, e)).truth(3, SDSS, seed=2, stream="survey") for e in (0.0, 0.1)
    )

    magnitudes = -2.5 * np.log10((dusty["flux"] / plain["flux"]).to_numpy())
    curve = 0.1 * dust.curve("CCM89", SDSS.wavelength)
    colour = magnitudes - magnitudes[:, [1000]]
    np.testing.assert_allclose(colour, np.tile(curve - curve[1000], (3, 1)), atol=2e-4)


def test_rows_are_the_same_whatever_was_drawn_before_and_with_whom() -> None:
    first = build(**FEW).truth(300, SDSS, seed=5, stream="survey")
    second = build(**FEW, z=(-0.0030001, 0.003))  # nothing is kept of the first
    second.truth(9, SDSS, seed=6, stream="other")
    again = build(**FEW).truth(2, SDSS, seed=5, stream="survey")

    for name in first.data_vars:
        np.testing.assert_array_equal(first[name][:2], again[name])
    seen, few = (build(**FEW).observe(t, SDSS, 5, "night") for t in (first, again))
    for name in ("flux", "ivar", "mask", "z", "snr"):
        np.testing.assert_array_equal(seen[name][:2], few[name])


def test_parameters_do_not_depend_on_the_grid() -> None:
    sdss, frame = (build(**FEW).truth(5, g, seed=5, stream="survey") for g in (SDSS, FRAME))

    for name in set(sdss.data_vars) - {"flux"}:
        np.testing.assert_array_equal(sdss[name], frame[name])


@pytest.mark.parametrize("paper", [True, False])
def test_chi2_of_the_noise_is_one_at_every_brightness_of_the_sky(paper: bool) -> None:
    grid = FRAME if paper else SDSS
    mock = build(**({**PAPER, **FEW} if paper else FEW))
    truth = mock.truth(200, grid, seed=3, stream="survey")

    seen = mock.observe(truth, grid, seed=3, stream="night")

    good = (seen["ivar"] > 0).to_numpy()
    chi = ((seen["flux"] - truth["flux"]) * np.sqrt(seen["ivar"])).to_numpy()
    sky = (PFS if paper else load("sdss")).sky_over(grid)
    for low, high in ((0, 50), (50, 90), (90, 100)):
        some = (sky >= np.percentile(sky, low)) & (sky <= np.percentile(sky, high))
        values = chi[:, some][good[:, some]]
        # 5 sigma of a chi2 of this many pixels.
        assert abs((values**2).mean() - 1) < 5 * np.sqrt(2 / values.size)
        assert abs(values.mean()) < 5 / np.sqrt(values.size)


def test_no_pixel_is_lost_in_the_frame_of_the_paper() -> None:
    mock = build(**{**PAPER, **FEW})
    seen = mock.observe(mock.truth(3, FRAME, 1, "a"), FRAME, 1, "a")

    assert (seen["ivar"] > 0).all()
    np.testing.assert_allclose(seen["lsf"] * FRAME.step, 0.68, rtol=1e-3)


def test_noise_can_be_scaled_to_a_signal_to_noise_in_g() -> None:
    mock = build(**FEW)
    truth = mock.truth(50, SDSS, seed=3, stream="survey")

    seen = mock.observe(truth, SDSS, seed=3, stream="night", snr_g=(5, 6))

    g = (SDSS.wavelength > 4000) & (SDSS.wavelength < 5400)
    each = np.where(seen["ivar"] > 0, truth["flux"] * np.sqrt(seen["ivar"]), np.nan)[:, g]
    snr = np.nanmean(each, axis=1)
    assert snr.min() > 4.9
    assert snr.max() < 6.1
    np.testing.assert_allclose(seen["snr_g"], snr, atol=0.35)


def depth(wavelength_air: float, half: float, *parameters: float) -> float:
    """Equivalent width in the toy, A."""
    centre = float(air_to_vacuum(wavelength_air))
    axis = Grid(
        kind="log",
        start=np.log10(centre - 3 * half),
        step=8e-6,
        size=int(np.log10((centre + 3 * half) / (centre - 3 * half)) / 8e-6),
    )
    flux = spectra(*[np.array([p]) for p in parameters], axis)[0].astype(np.float64)
    inside = np.abs(axis.wavelength - centre) < half
    level = np.percentile(flux, 95)
    return float(((1 - flux / level) * axis.widths)[inside].sum())


def test_lines_of_the_toy_have_the_signs_of_real_ones() -> None:
    triplet = [depth(8542.09, 12, 4500.0, g, f, 0.0) for g, f in ((2, -2), (2, -1), (2, 0), (4, 0))]
    assert triplet[0] < triplet[1] < triplet[2]  # metals
    assert triplet[3] < triplet[2]  # gravity weakens ionised calcium
    assert 2.0 < triplet[2] < 8.0
    assert depth(5183.60, 5, 4500.0, 4.5, -0.5, 0.4) > depth(5183.60, 5, 4500.0, 4.5, -0.5, 0.0)
    assert depth(8194.82, 6, 4000.0, 5.0, 0.0, 0.0) > depth(8194.82, 6, 4000.0, 1.0, 0.0, 0.0)
    assert depth(9014.91, 8, 6750.0, 4.0, -1.0, 0.0) > depth(9014.91, 8, 4500.0, 4.0, -1.0, 0.0) + 1
    assert depth(6562.80, 8, 6500.0, 4.0, -1.0, 0.0) > depth(6562.80, 8, 4500.0, 4.0, -1.0, 0.0)
    titanium = [depth(7090.0, 40, t, 4.5, 0.0, 0.0) for t in (3500.0, 4000.0, 4500.0)]
    assert titanium[0] > titanium[1] > titanium[2]


def test_what_a_mock_cannot_be_is_refused() -> None:
    for options, message in (
        ({"teff": (5000.0, 4000.0)}, r"teff = \(5000, 4000\): the first is the lower end"),
        ({"z": (-0.02, 0.0)}, r"z = \(-0.02, 0.0\): stars of this mock are within 0.01"),
        ({"models": "folder"}, r"physics = 'toy' with models = 'folder'"),
        ({"physics": "bosz"}, r"physics = 'bosz' with models = ''"),
        ({"instrument": "desi"}, r"instrument desi: 3 arms are joined"),
        ({"zenith_angle": (0.0, 85.0)}, r"at most 80 deg is observed"),
        ({"moon_phase": (0.0, 0.7)}, r"0 is new, 0.5 full Moon"),
        ({"coverage": (9000.0, 4000.0)}, r"coverage = \(9000.0, 4000.0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**options)


def test_a_grid_that_a_mock_cannot_make_is_refused() -> None:
    mock = build(**{**PAPER, **FEW})
    truth = mock.truth(1, FRAME, seed=1, stream="survey")
    with pytest.raises(
        ValueError, match=r"7100-8850 A has no good pixel in 4000-5400 A; leave snr_g"
    ):
        mock.observe(truth, FRAME, seed=1, stream="night", snr_g=(5, 6))
    with pytest.raises(ValueError, match=r"truth is not on the grid given"):
        mock.observe(truth, SDSS, seed=1, stream="night")
    coarse = Grid(kind="log", start=3.85, step=1e-3, size=90)
    with pytest.raises(ValueError, match=r"has pixels of 690 km/s; take one of 300 km/s or less"):
        mock.truth(1, coarse, seed=1, stream="survey")


def test_the_truth_says_which_parameter_was_interpolated() -> None:
    truth: xr.Dataset = build(**FEW).truth(60, SDSS, seed=1, stream="survey")

    axis = truth["interp_axis"]
    assert axis.attrs["flag_meanings"].split() == ["teff", "logg", "feh", "alpha_m"]
    off = np.stack([truth[n] % s != 0 for n, s in zip(FEW, (250, 0.5, 0.25, 0.25), strict=True)])
    np.testing.assert_array_equal(off.argmax(axis=0), axis)
    assert (off.sum(axis=0) == 1).all()
