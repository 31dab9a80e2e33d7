"""Indices at the resolution of Lick/IDS, of spectra that are sharper."""

import numpy as np
import pytest

from pipeline.index import Flag, measure
from pipeline.index_lick import FWHM, PER_FWHM
from storage.grid import Grid

GRID = Grid(kind="log", start=3.66, step=1e-4, size=1000)
WAVE = GRID.wavelength
CENTRES = (4993.0, 5015.0, 5040.0, 5100.0, 5165.0, 5178.0, 5184.0, 5266.0, 5272.0, 5330.0, 5334.0)
LICK = 8.4 * PER_FWHM
"Between 4900 and 5400 A it is the same everywhere."
NAMES = ("Fe5015", "Mg1", "Mg2", "Mgb", "Fe5270", "Fe5335", "Fe_mean", "MgFe_prime")


def galaxy(sigma: float, wave: np.ndarray = WAVE) -> np.ndarray:
    """Lines of one width and the same area, whatever it is; A."""
    depth = 1.5 / (sigma * np.sqrt(2 * np.pi))
    shape = np.exp(-0.5 * ((wave[:, None] - np.array(CENTRES)) / sigma) ** 2)
    return np.asarray(1 + (wave - 5000) / 4000 - depth * shape.sum(1))[None]


def spread(sigma: float, wave: np.ndarray = WAVE) -> np.ndarray:
    return np.asarray(sigma / np.gradient(wave))[None]


def test_the_table_is_that_of_the_spectrograph() -> None:
    assert FWHM == ((4000, 11.5), (4400, 9.2), (4900, 8.4), (5400, 8.4), (6000, 9.8))


def test_a_sharp_spectrum_is_as_one_of_the_spectrograph() -> None:
    expected = measure(WAVE, galaxy(LICK), None, NAMES).value
    for sigma in (1.2, 2.5):
        sharp = galaxy(sigma)
        found = measure(WAVE, sharp, None, NAMES, lsf=spread(sigma)).value
        native = measure(WAVE, sharp, None, NAMES).value
        np.testing.assert_allclose(found, expected, atol=5e-3)
        assert (native - expected).abs().max() > 0.05


def test_redshifts_move_the_resolution_with_the_bands() -> None:
    z = np.array([0.05])
    expected = measure(WAVE, galaxy(LICK), None, NAMES).value
    # A line of 2 A at rest is seen 1 + z wider.
    wave = WAVE * 1.05
    found = measure(wave, galaxy(2.0), None, NAMES, z=z, lsf=spread(2.0)).value
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_spectrum_as_broad_already_is_left_as_it_is() -> None:
    flux = galaxy(LICK)
    found = measure(WAVE, flux, None, NAMES, lsf=spread(LICK * 0.9999))
    np.testing.assert_allclose(found.value, measure(WAVE, flux, None, NAMES).value, atol=2e-3)


def test_errors_stay_the_scatter_though_smoothed_pixels_are_correlated() -> None:
    sigma = 0.04 * (1.3 + np.sin(WAVE / 20))
    truth, lsf = galaxy(2.0), spread(2.0)
    names = ("Mgb", "Fe_mean", "MgFe_prime")
    noise = np.random.default_rng(6).normal(size=(1000, WAVE.size)) * sigma
    ivar = np.broadcast_to(sigma**-2, noise.shape)
    drawn = measure(WAVE, truth + noise, ivar, names, lsf=lsf.repeat(1000, 0))
    once = measure(WAVE, truth, ivar[:1], names, lsf=lsf)
    # Scatter of 1000 draws is known to 2.2 %; the seed is fixed.
    np.testing.assert_allclose(once.error[0] / drawn.value.std(0), 1.0, atol=0.04)


@pytest.mark.parametrize("name", ["Dn4000", "B4000", "HdeltaF", "CN2", "Ca4227", "Fe_mean"])
def test_errors_are_those_of_every_derivative(name: str) -> None:
    wave = 3720 + 1.7 * np.arange(1000 if name == "Fe_mean" else 380)
    flux = (1 + 0.2 * np.sin(wave / 9) + (wave > 3980) * 0.3)[None]
    ivar = 300 * (1.5 + np.sin(wave / 30))[None]
    lsf, step = np.full_like(flux, 1.1), 1e-5 * np.eye(wave.size)
    values = [
        measure(wave, flux + s, ivar.repeat(wave.size, 0), (name,), lsf=lsf.repeat(wave.size, 0))
        for s in (step, -step)
    ]
    slope = (values[0].value - values[1].value).numpy()[:, 0] / 2e-5
    expected = np.sqrt((slope**2 / ivar[0]).sum())
    found = measure(wave, flux, ivar, (name,), lsf=lsf)
    assert float(found.error) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lsf", [spread(LICK * 1.05), np.zeros_like(spread(1.0))])
def test_a_broad_spectrum_or_one_of_unknown_resolution_has_no_index(lsf: np.ndarray) -> None:
    flux = galaxy(LICK)
    found = measure(WAVE, flux, np.ones_like(flux), NAMES, lsf=lsf)
    assert (found.flag & int(Flag.RESOLUTION)).all()
    assert found.value.isnan().all()
    assert found.error.isnan().all()


@pytest.mark.parametrize("z", [None, np.zeros(1)])
def test_off_the_axis_there_is_no_index(z: np.ndarray | None) -> None:
    flux = galaxy(2.0)
    found = measure(WAVE, flux, None, ("Dn4000", "CaT", "Mgb"), z=z, lsf=spread(2.0))
    assert (found.flag[0] & int(Flag.OUTSIDE) > 0).tolist() == [True, True, False]
    assert found.value.isnan().tolist() == [[True, True, False]]
    nowhere = measure(WAVE, flux, None, ("Mgb",), z=np.array([np.nan]), lsf=spread(2.0))
    assert int(nowhere.flag) & Flag.OUTSIDE
    assert measure(WAVE, flux[:0], None, NAMES, lsf=flux[:0]).value.shape == (0, len(NAMES))


def test_masked_pixels_take_no_part() -> None:
    flux, ivar = galaxy(2.0), np.full((1, WAVE.size), 100.0)
    lsf = spread(2.0)
    bad = np.abs(WAVE - 5201) < 0.8
    flux[0, bad], ivar[0, bad], lsf[0, bad] = 1e6, 0, 0
    found = measure(WAVE, flux, ivar, ("Mgb",), lsf=lsf)
    whole = measure(WAVE, galaxy(2.0), np.full((1, WAVE.size), 100.0), ("Mgb",), lsf=spread(2.0))
    assert int(found.flag) == Flag.MASKED
    assert float(found.value) == pytest.approx(float(whole.value), abs=0.03)


@pytest.mark.parametrize("z", [None, np.array([0.0, 0.01, 0.002] * 30)])
@pytest.mark.parametrize("lick", [True, False])
def test_a_row_does_not_depend_on_those_beside_it(z: np.ndarray | None, lick: bool) -> None:
    flux = np.concatenate([galaxy(2.0), galaxy(1.5), galaxy(LICK)] * 30).astype("f4")
    spreads = [spread(2.0), spread(1.5), spread(LICK * 0.999)] * 30
    lsf = np.concatenate(spreads).astype("f4") if lick else None
    ivar = np.random.default_rng(2).uniform(5, 15, flux.shape).astype("f4")
    names = (*NAMES, "B4000", "HdeltaF")
    together = measure(WAVE, flux, ivar, names, z=z, lsf=lsf)
    for rows in ([0], [1], [2], [88, 4, 7], list(range(20, 85))):
        few = [None if a is None else a[rows] for a in (flux, ivar, z, lsf)]
        alone = measure(WAVE, few[0], few[1], names, z=few[2], lsf=few[3])
        for one, other in zip(alone, together, strict=True):
            assert one.numpy().tobytes() == other[rows].numpy().tobytes()


class Depth:
    """An index of a kind of its own."""

    name, units, reference = "Depth", "1", "ours"
    bands = ((5000.0, 5010.0),)


def test_an_index_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"index 'Depth': no derivative of a Depth; .* native"):
        measure(WAVE, galaxy(2.0), None, (Depth(),), lsf=spread(2.0))  # type: ignore[arg-type]


def test_line_spread_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lsf: shape \(1, 3\), expected \(1, 1000\) as flux"):
        measure(WAVE, galaxy(2.0), None, NAMES, lsf=np.ones((1, 3)))
