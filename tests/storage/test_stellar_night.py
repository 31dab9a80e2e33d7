"""The night of a star: electrons, sky and Moon, against what is published of them."""

import numpy as np
import pytest

from storage.grid import Float, Grid
from storage.simulation.instrument import load
from storage.simulation.stellar_night import FRAME, PAPER, PFS, Night, moonlight, over, seen_through

SDSS = Grid(kind="log", start=3.55, step=1e-4, size=4700)
DARK = {
    "seeing": 0.8, "zenith_angle": 45.0, "field_angle": 0.65,
    "moon_zenith": 90.0, "moon_target": 180.0, "moon_phase": 0.0,
}  # fmt: skip
NIGHT = {name: np.array([value]) for name, value in DARK.items()}


def ab(magnitude: float, wavelength: Float) -> Float:
    """Flux of a source flat in frequency, 1e-17 erg s-1 cm-2 A-1."""
    return 3631e-23 * 10 ** (-0.4 * magnitude) * 2.99792458e18 / wavelength**2 * 1e17


def test_electrons_are_those_of_the_calculator() -> None:
    per_unit = PAPER["electrons"] * PFS.electrons_per_unit(
        PFS.arms[0], FRAME.wavelength, FRAME.widths
    )

    star = per_unit * ab(18.0, FRAME.wavelength)
    sky = per_unit * over(PFS, FRAME, seen_through(NIGHT, PFS.fibre))[0]

    # Its percentiles for 900 s, AB 18, 0.8 arcsec, 45 deg, edge of the field.
    np.testing.assert_allclose(np.percentile(star, [5, 50, 95]), [472, 550, 593], rtol=0.05)
    told = [82, 97, 118, 189, 1189, 3468]
    np.testing.assert_allclose(np.percentile(sky, [5, 25, 50, 75, 95, 99]), told, rtol=0.25)


@pytest.mark.parametrize(
    ("magnitude", "told"), [(19.0, 45.0), (20.0, 21.5), (21.0, 9.4), (22.0, 3.9), (22.5, 2.5)]
)
def test_signal_to_noise_is_that_of_the_calculator(magnitude: float, told: float) -> None:
    night = Night(**{k: v for k, v in PAPER.items() if k in Night.model_fields})
    flux = ab(magnitude, FRAME.wavelength)[None].astype(np.float32)

    variance = night.variance(flux, FRAME, PFS, NIGHT)

    assert np.median(flux / np.sqrt(variance)) == pytest.approx(told, rel=0.05)


def test_sdss_reaches_its_depth() -> None:
    """Plates are exposed until (S/N)^2 in g is 15 at 20.2 mag."""
    flux = ab(20.2, SDSS.wavelength)[None].astype(np.float32)
    zenith = {**NIGHT, "zenith_angle": np.array([0.0])}

    snr = flux / np.sqrt(Night().variance(flux, SDSS, load("sdss"), zenith))

    inside = (SDSS.wavelength > 4000) & (SDSS.wavelength < 5400)
    assert snr[0, inside].mean() == pytest.approx(np.sqrt(15), rel=0.1)


def test_a_worse_night_is_noisier() -> None:
    flux = ab(20.0, FRAME.wavelength)[None].astype(np.float32)
    night = Night(**{k: v for k, v in PAPER.items() if k in Night.model_fields})

    def snr(**changed: float) -> float:
        now = {k: np.array([v]) for k, v in {**DARK, "seeing": 0.5, **changed}.items()}
        return float(np.median(flux / np.sqrt(night.variance(flux, FRAME, PFS, now))))

    assert snr(seeing=1.5) < snr(seeing=1.0) < snr()
    assert snr() < snr(zenith_angle=0.0)
    assert snr() < snr(field_angle=0.0)
    moon = {"moon_zenith": 45.0, "moon_target": 60.0}
    assert snr(**moon, moon_phase=0.25) < snr(**moon, moon_phase=0.15) < snr()


def test_moonlight_is_that_of_krisciunas_and_schaefer() -> None:
    """Their V band at half Moon, 60 deg away, both 60 deg high, is worked out by hand."""
    night = {"moon_phase": 0.25, "moon_zenith": 30.0, "moon_target": 60.0}
    airmass = (1 - 0.96 * 0.25) ** -0.5
    intensity = 10 ** (-0.4 * (3.84 + 0.026 * 90 + 4e-9 * 90**4))
    scattering = 10**5.36 * (1.06 + 0.25) + 10 ** (6.15 - 1.5)
    extinct = 10 ** (-0.4 * 0.115 * airmass)
    dark = 34.08 * np.exp(20.7233 - 0.92104 * 21.6)

    found = moonlight({k: np.array([v]) for k, v in night.items()}, np.array([airmass]))

    assert found[0] == pytest.approx(intensity * scattering * extinct * (1 - extinct) / dark)
    below = {**night, "moon_zenith": 90.0}
    assert moonlight({k: np.array([v]) for k, v in below.items()}, np.array([airmass]))[0] == 0
