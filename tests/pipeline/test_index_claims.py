"""The sizes of traps that docs/indices.md gives, on the MIUSCAT populations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.definition import Atomic
from pipeline.index import find, measure
from storage.grid import Grid, air_to_vacuum
from tests.pipeline import dap_peer
from training.frames import named

FINE = Grid(kind="linear", start=3700, step=0.25, size=16800)


@pytest.fixture(scope="module")
def populations(survey_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Air wavelength and flux."""
    return dap_peer.miuscat(survey_data / "ssp_miuscat")


def in_vacuum(name: str) -> Atomic:
    """The index with its bands moved to vacuum, and said to be in air."""
    index = find(name)
    assert isinstance(index, Atomic)
    bands = zip(("blue", "feature", "red"), air_to_vacuum(index.bands).tolist(), strict=True)
    return replace(index, **{side: (low, high) for side, (low, high) in bands})


def test_the_shifted_table_moves_iron_by_a_sixth(
    populations: tuple[np.ndarray, np.ndarray],
) -> None:
    wave, flux = populations
    names = ("Mgb", "Fe5335")
    right, wrong = (
        measure(wave, flux, None, indices, medium="air").value.numpy()
        for indices in (names, [in_vacuum(name) for name in names])
    )
    moved = wrong - right
    np.testing.assert_allclose(np.median(moved, axis=0), [0.17, -0.30], atol=0.01)
    share = np.median(np.abs(moved / right), axis=0)
    np.testing.assert_allclose(share, [0.10, 0.17], atol=0.01)


def rebinned(edges: np.ndarray, wave: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """Mean flux density between vacuum edges, of flux that is constant in its own pixels."""
    middles = (wave[1:] + wave[:-1]) / 2
    own = air_to_vacuum(np.concatenate([[2 * wave[0] - middles[0]], middles, [wave[-1] + 0.45]]))
    total = np.concatenate([[0], np.cumsum(flux * np.diff(own))])
    return np.asarray(np.diff(np.interp(edges, own, total)) / np.diff(edges))


def test_the_bins_of_s23_are_for_comparisons_among_themselves(
    populations: tuple[np.ndarray, np.ndarray],
) -> None:
    wave, flux = populations
    names, frame = ("Dn4000", "Mgb", "Fe5335"), named("s23").grid

    def of(grid: Grid) -> np.ndarray:
        # The oldest and most metal-rich one.
        made = rebinned(grid.edges, wave, flux[-1])
        return measure(grid.wavelength, made[None], None, names).value[0].numpy()

    fine = of(FINE)
    shifts = np.arange(0, 1, 0.125) * frame.step
    said = frame.model_dump()
    wide = np.array([of(Grid(**said | {"start": frame.start + shift})) for shift in shifts])
    np.testing.assert_allclose(fine, [2.35, 4.72, 4.15], atol=0.01)
    np.testing.assert_allclose(np.ptp(wide, axis=0), [0.005, 0.24, 0.23], atol=0.02)
    assert np.ptp(wide[:, 0]) < 0.01
    assert fine[2] - wide[:, 2].mean() == pytest.approx(0.27, abs=0.02)
