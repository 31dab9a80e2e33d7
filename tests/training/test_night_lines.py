"""The strongest lines of the night sky are where the sky is bright."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from training.frames import named
from training.night_lines import STRONGEST, clear

KNOWN = (5578.89, 5891.58, 5897.56, 6302.05, 6365.54, 7278.41, 8346.90, 8829.52, 8922.08)
"[O I], Na and OH in vacuum, A (Osterbrock et al. 1996; Hanuschik 2003)."


def test_they_are_a_hundred_and_the_known_ones_are_among_them() -> None:
    assert len(set(STRONGEST)) == 100
    away = np.abs(np.array(KNOWN)[:, None] - np.array(STRONGEST)).min(axis=1)
    assert away.max() < 1


def test_pixels_near_a_line_are_not_clear() -> None:
    wavelength = np.array([5573.0, 5575.0, 5579.0, 5584.0, 5585.0])
    assert clear(wavelength, 4, 5.0).tolist() == [True, False, False, False, True]
    assert clear(wavelength, 3, 5.0).all()
    assert clear(wavelength, 0, 5.0).all()


def test_an_eighth_of_what_sdss_sees_is_near_one() -> None:
    assert np.mean(clear(named("spender").grid.wavelength, 100, 5.0)) == pytest.approx(
        0.87, abs=0.01
    )


def test_the_sky_that_sdss_took_off_is_bright_there(survey_data: Path) -> None:
    files = sorted((survey_data / "sdss_sky").glob("*.fits"))[::5]
    bright = []
    for file in files:
        with fits.open(file) as found:
            wavelength, sky = 10.0 ** found[1].data["loglam"], found[1].data["sky"]
        lines = np.array([line for line in STRONGEST if line < wavelength[-1] - 30])
        away = np.abs(wavelength[:, None] - lines)
        at, beside = (away < 2).astype(float), ((away > 6) & (away < 30)).astype(float)
        level = [np.percentile(sky[column > 0], 20) for column in beside.T]
        bright.extend(sky @ at / at.sum(0) > 1.1 * np.array(level))
    assert len(files) == 10
    assert np.mean(bright) > 0.97
