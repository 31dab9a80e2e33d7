"""The door: indices of anybody's spectra, no store and no workers needed."""

import numpy as np

from pipeline.index import Flag
from pipeline.measure import measure_indices
from storage.grid import air_to_vacuum

AXIS = np.arange(3600.0, 7600.0)
NAMES = ("Dn4000", "HdeltaF", "Mgb")


def test_a_flat_spectrum_has_no_break_and_no_lines() -> None:
    found = measure_indices(AXIS, np.full((2, AXIS.size), 3.0), None)
    assert found["value"].dims == ("spectrum", "index")
    assert found["index"].to_numpy().tolist() == list(NAMES)
    assert found.attrs["units"] == {"Dn4000": "1", "HdeltaF": "Angstrom", "Mgb": "Angstrom"}
    # Of a flat F_lambda, F_nu rises with wavelength squared.
    blue, red = (air_to_vacuum(np.array(band)) for band in ((3850.0, 3950.0), (4000.0, 4100.0)))
    mean = [np.mean(np.linspace(*band, 10_001) ** 2) for band in (blue, red)]
    np.testing.assert_allclose(found["value"][:, 0], mean[1] / mean[0], rtol=1e-5)
    np.testing.assert_allclose(found["value"][:, 1:], 0, atol=1e-5)
    assert np.isnan(found["error"]).all()
    assert (found["flag"].to_numpy() & Flag.NO_ERROR).all()


def test_a_gaussian_line_has_the_width_of_its_area() -> None:
    depth, sigma = 0.3, 2.0
    centre = float(air_to_vacuum(np.array(5176.4)))
    flux = 1 - depth * np.exp(-0.5 * ((AXIS - centre) / sigma) ** 2)
    found = measure_indices(AXIS, flux, np.full_like(flux, 100), names=("Mgb",))
    np.testing.assert_allclose(found["value"], depth * sigma * np.sqrt(2 * np.pi), rtol=1e-3)
    assert found["flag"] == 0


def test_errors_are_the_scatter_of_the_noise() -> None:
    random, sigma = np.random.default_rng(2), 0.1
    flux = 1 + sigma * random.normal(size=(3000, AXIS.size))
    found = measure_indices(AXIS, flux, np.full_like(flux, sigma**-2))
    actual, expected = found["error"].mean("spectrum"), found["value"].std("spectrum")
    np.testing.assert_allclose(actual, expected, rtol=0.05)


def test_observed_spectra_are_measured_at_their_redshift() -> None:
    centre = float(air_to_vacuum(np.array(5176.4)))
    rest = 1 - 0.3 * np.exp(-0.5 * ((AXIS - centre) / 4) ** 2)
    seen = 1 - 0.3 * np.exp(-0.5 * ((AXIS / 1.1 - centre) / 4) ** 2)
    here = measure_indices(AXIS, rest, None, names=("Mgb",))["value"]
    there = measure_indices(AXIS, seen, None, names=("Mgb",), z=0.1)["value"]
    np.testing.assert_allclose(there, here, rtol=1e-3)
