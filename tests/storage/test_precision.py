"""Rounding to the noise: what is lost is a small part of the noise, and is not a bias."""

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure import measure_indices
from storage.precision import STEP, rounded

L = 4000


def spectra(n: int = 50) -> xr.Dataset:
    rng = np.random.default_rng(1)
    ivar = rng.uniform(0.5, 9, (n, L)).astype("f4")
    ivar[:, 100:120] = 0
    flux = np.where(ivar > 0, 10 + rng.standard_normal((n, L)) / np.sqrt(np.maximum(ivar, 0.1)), 0)
    axes = ("spectrum", "wavelength")
    model = np.full((n, L), 10.01, "f4")
    return xr.Dataset(
        {"flux": (axes, flux.astype("f4")), "ivar": (axes, ivar), "model": (axes, model)}
    )


def test_lossless_changes_nothing() -> None:
    xr.testing.assert_identical(rounded(spectra(), "lossless"), spectra())


def test_what_rounding_adds_is_a_small_part_of_the_noise_and_no_bias() -> None:
    before, after = spectra(), rounded(spectra(), "noise")
    good = before["ivar"].to_numpy() > 0
    error = ((after["flux"] - before["flux"]) * np.sqrt(before["ivar"])).to_numpy()[good]
    assert np.abs(error).max() <= STEP / 2 * (1 + 1e-6)
    assert error.std() < STEP / np.sqrt(12)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(error.size)
    np.testing.assert_allclose(after["ivar"], before["ivar"], rtol=2**-9)
    assert not after["flux"].to_numpy()[~good].any()
    assert ((after["ivar"] > 0) == good).all()


def test_rounding_twice_is_rounding_once() -> None:
    once = rounded(spectra(), "noise")
    xr.testing.assert_identical(rounded(once.copy(deep=True), "noise")["ivar"], once["ivar"])


def test_most_bits_are_zero_then() -> None:
    bits = rounded(spectra(), "noise")["flux"].to_numpy().view(np.uint32)
    assert np.mean((bits & 0x3FFF) == 0) > 0.95


def test_indices_move_by_less_than_a_tenth_of_their_errors() -> None:
    names = ("Dn4000", "HdeltaF", "Mgb")
    wavelength = np.linspace(3700, 5700, L)
    before, after = spectra(), rounded(spectra(), "noise")
    one, other = (
        measure_indices(wavelength, ds["flux"].to_numpy(), ds["ivar"].to_numpy(), names=names)
        for ds in (before, after)
    )
    shift = ((other["value"] - one["value"]) / one["error"]).to_numpy()
    assert np.sqrt(np.mean(shift**2)) < 0.04
    assert np.abs(shift).max() < 0.1


@given(st.floats(2.0**-100, 2.0**100, width=32), st.floats(-1e6, 1e6, width=32))
def test_any_flux_stays_finite_and_within_its_step(ivar: float, flux: float) -> None:
    axes = ("spectrum", "wavelength")
    ds = xr.Dataset(
        {
            name: (axes, np.array([[value]], "f4"))
            for name, value in (("flux", flux), ("ivar", ivar), ("model", 0))
        }
    )
    after = rounded(ds.copy(deep=True), "noise")
    error = abs(after["flux"].item() - ds["flux"].item()) * np.sqrt(ds["ivar"].item())
    assert np.isfinite(after["flux"])
    assert after["ivar"].item() > 0
    assert error <= STEP / 2 * (1 + 1e-3)
