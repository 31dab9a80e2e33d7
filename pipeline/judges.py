"""Judges: who says what the models of a card are worth, on mocks seen on the models' own frame."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from pipeline import index
from pipeline.card import Card
from pipeline.simulate import mock
from pipeline.stage import config_of, grid_of
from storage.grid import Grid, air_to_vacuum
from storage.mock import Mock
from storage.store import Survey
from training import star_verdict
from training.frame import Frame
from training.frames import named
from training.model import Denoiser
from training.reference import Reference
from training.trials import Trials, examine, library, linear, trial
from training.verdict import Verdict, judge

INDICES = ("Dn4000", "HdeltaF", "Mgb")
"What a verdict is about: the three indices of Camilleri et al. 2025, whatever a card measures."
OTHERS = ("Hbeta", "Fe4383", "NaD", "TiO2", "Fe5709")
"In the place of those that a frame does not reach, in this order."

Judge = Callable[[Denoiser, int, Sequence[str]], Verdict]
"The verdict on a model that learnt from so many spectra; these bins of S/N decide."


def judge_of(card: Card, frame: Frame) -> Judge:
    """Whoever judges models of a frame: the trials are drawn here, once for all of them.

    Raises
    ------
    ValueError
        When too few mock spectra lie on the frame, or none of the indices.
    """
    made, _ = mock(card.verdict.mock)
    grid = grid_of(Survey.open(card.store), f"spectra/{config_of(card)}")
    seed = card.run.seed
    if are_stars(made, grid):
        reference = linear(made, frame, grid, card.verdict.reference, seed)
        stars = star_verdict.trial(made, frame, grid, reference, n=card.verdict.n, seed=seed)
        return lambda model, rows, bins: star_verdict.judge(model, stars, rows, bins, seed)
    trials = galaxies(card, made, frame, grid)
    return lambda model, rows, bins: judge(examine(model, trials), rows, bins, seed)


def galaxies(card: Card, made: Mock, frame: Frame, grid: Grid) -> Trials:
    """Trials on a frame, with what the references of a card answer."""
    references = references_of(card, made, at_rest(card, frame), grid)
    return answered(card, made, frame, grid, references, card.verdict.n)


def answered(
    card: Card,
    made: Mock,
    frame: Frame,
    grid: Grid,
    references: Mapping[str, Reference],
    n: int,
    bins: Mapping[str, tuple[float, float] | None] | None = None,
) -> Trials:
    """n trials on a frame, with what references on the frame `at_rest` answer.

    On observed wavelengths lines move, and a linear reference is no better there than the average
    galaxy. So it answers at rest whatever the frame: the same objects, with the same noise.
    """
    names, seed = indices_on(frame), card.run.seed
    measure = partial(measured, names)
    drawn = partial(trial, made, grid=grid, n=n, seed=seed, measure=measure, names=names, bins=bins)
    found = drawn(frame=at_rest(card, frame), references=references)
    if frame.rest:
        return found
    answers = found.exposures
    found = drawn(frame=frame, references={})
    seen = {
        name: replace(one, references=answers[name].references, draws=answers[name].draws)
        for name, one in found.exposures.items()
    }
    return replace(found, exposures=seen)


def references_of(card: Card, made: Mock, frame: Frame, grid: Grid) -> dict[str, Reference]:
    """The linear reference of a mock, and the library one where the card asks for it."""
    seed = card.run.seed
    of_lines = linear(made, frame, grid, card.verdict.reference, seed)
    found: dict[str, Reference] = {"linear": of_lines}
    if card.verdict.library:
        found["library"] = library(made, frame, grid, card.verdict.library, seed, of_lines)
    return found


def are_stars(made: Mock, grid: Grid) -> bool:
    """Whether a mock is one of stars, by what it says of the first of them."""
    first = made.observe(made.truth(1, grid, 0, "kind"), grid, 0, "kind")
    return bool((first["class"] == "STAR").all())


def indices_on(frame: Frame) -> tuple[str, ...]:
    """The indices that judge models of a frame: `INDICES`, with `OTHERS` for those beyond it.

    Raises
    ------
    ValueError
        When the frame reaches none of them.
    """
    there = [name for name in (*INDICES, *OTHERS) if lies_on(index.find(name), frame)]
    if not there:
        raise ValueError(
            f"frame {frame.label}: none of {', '.join((*INDICES, *OTHERS))} lies on it; a verdict "
            "on galaxies needs one"
        )
    return tuple(there[: len(INDICES)])


def at_rest(card: Card, frame: Frame) -> Frame:
    """The frame, if it is at rest; else that of the run, if that is."""
    if frame.rest:
        return frame
    of_run = named(card.frame.name)
    return of_run if of_run.rest else named("fs")


def lies_on(one: index.Index, frame: Frame, z: tuple[float, float] = (0.0, 0.0)) -> bool:
    """Whether all bands of an index are on a frame; on observed wavelengths, at any of some z."""
    bands, (first, *_, last) = air_to_vacuum(one.bands), frame.grid.edges
    low, high = (1.0, 1.0) if frame.rest else (1 + z[0], 1 + z[1])
    # At some z the bluest band has come in, and the reddest has not yet left.
    return bool(max(low, first / bands.min()) <= min(high, last / bands.max()))


def measured(
    names: Sequence[str | index.Index],
    wavelength: np.ndarray,
    flux: Tensor,
    ivar: Tensor | None,
    z: Tensor | None = None,
) -> Tensor:
    """Indices (N, I) of spectra on the axis of a frame, as `training.trials.Measure` wants them."""
    return index.measure(wavelength, flux, ivar, names, z=z).value
