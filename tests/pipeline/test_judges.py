"""Judges: which indices a frame is judged by, and that stars have a judge of their own."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.judges import INDICES, are_stars, galaxies, indices_on
from pipeline.simulate import mock
from storage.grid import Grid
from tests.pipeline.scene import card_of
from training.frame import Frame
from training.frames import named
from training.model import Denoiser
from training.recipe import ModelCard
from training.trials import examine
from training.verdict import judge

GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)


@pytest.mark.parametrize("name", ["fs", "s23", "spender", "desi"])
def test_frames_that_reach_them_are_judged_by_the_indices_of_the_paper(name: str) -> None:
    assert indices_on(named(name)) == INDICES


def test_an_arm_is_judged_by_what_it_reaches() -> None:
    assert indices_on(named("weave-blue")) == ("Dn4000", "HdeltaF", "Hbeta")
    assert indices_on(named("weave-red")) == ("NaD", "TiO2", "Fe5709")


def test_a_frame_that_reaches_no_index_is_refused() -> None:
    grid = Grid(kind="linear", start=8000, step=1, size=300)
    with pytest.raises(ValueError, match=r"none of Dn4000, .* lies on it; a verdict on galaxies"):
        indices_on(Frame(name="red", grid=grid, window=(8050, 8250)))


@pytest.mark.parametrize(("name", "stars"), [("mock-v1", False), ("star-v1", True)])
def test_a_mock_says_what_its_objects_are(name: str, stars: bool) -> None:
    assert are_stars(mock(name)[0], GRID) == stars


@pytest.mark.slow
def test_on_observed_wavelengths_the_reference_answers_at_rest() -> None:
    card = card_of(Path("x"), verdict={"n": 60, "reference": 300, "library": 300})
    made = mock("mock-v1")[0]
    rest, seen = (galaxies(card, made, named(name), GRID) for name in ("fs", "spender"))
    for name, exposure in seen.exposures.items():
        answers = exposure.references["linear"]
        np.testing.assert_array_equal(answers, rest.exposures[name].references["linear"])
        assert exposure.draws == rest.exposures[name].draws
        assert exposure.draws["library"] >= 1
        # The same galaxies with the same noise, but for the rebinning.
        apart = (exposure.noisy - rest.exposures[name].noisy) / np.nanstd(exposure.noisy, axis=0)
        assert (np.nanmedian(np.abs(apart), axis=0) < 0.1).all()
        assert exposure.batch.x.shape[1] == named("spender").grid.size
    assert judge(examine(_copies(), seen), 1000, ("5-6",)).reason.startswith("copies the noise")


def _copies() -> Denoiser:
    return ModelCard(model="butterworth").build(named("spender").grid)
