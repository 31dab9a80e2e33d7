"""A footprint sees line spreads as velocities, whatever the pixels of a survey are."""

import numpy as np
import pytest

from pipeline.stage import footprint_columns
from storage import schema
from storage.grid import Grid
from training.footprint import Footprint

SDSS = Grid(kind="log", start=3.58, step=1e-4, size=3840)
DESI = Grid(kind="linear", start=3600, step=0.8, size=7781)


def test_a_line_spread_is_a_velocity() -> None:
    for grid, expected in (
        # 1e-4 dex are 69.03 km/s everywhere; 0.8 A, at the middle of the axis, 0.8 / 6712 of light.
        (SDSS, 0.9 * 69.03),
        (DESI, 0.9 * 0.8 / 6712 * 299792.458),
    ):
        rows = schema.blank(4, grid)
        rows["z"][:], rows["snr_g"][:], rows["class"][:] = 0.1, 5, "GALAXY"
        rows["lsf"][:] = 0.9
        found = Footprint.learn(footprint_columns(rows, grid), np.zeros(4))
        assert found.lsf_kms is not None
        assert np.mean(found.lsf_kms) == pytest.approx(expected, rel=2e-3)
