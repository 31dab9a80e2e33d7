"""Calibrate: the tables of errors of a card's models, beside their verdicts.

A table costs no training: where it is missing, or the card asks for another, it alone is made.
Mocks are measured by the rules of the card, as the survey is.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from pydantic import ValidationError
from torch import Tensor

from pipeline.card import Card, digest8
from pipeline.index_lick import on_axis
from pipeline.index_rules import Rules
from pipeline.judges import lies_on
from pipeline.simulate import mock
from pipeline.stage import config_of, grid_of
from storage.grid import Grid
from storage.store import Survey
from training import calibrate, calibrated, checkpoint, registry
from training.calibrated import Calibrated
from training.frame import Frame
from training.shown import Shown, draw

logger = logging.getLogger(__name__)

VERSION = 2
"Raised when the same mock and card give another table."


def lacking(card: Card) -> list[Path]:
    """Checkpoints of the card's models whose table is not what the card says now.

    None where emission lines are taken out of products first, since they stay in the mocks; and not
    those on whose frame no index of the card lies.
    """
    rules = Rules.of(card.measure)
    if card.train is None or not card.verdict.calibrate or rules.products_lose_lines:
        return []
    folder = Path(card.run.dir) / "checkpoints"
    known, wanted = registry.aliases(folder), recipe(card)
    paths = [folder / known[model.name] for model in card.train.model if model.name in known]
    other = [path for path in paths if path.is_dir() and _recipe_of(path) != wanted]
    return [path for path in other if _reaches(path, rules)]


def run(card: Card) -> list[str]:
    """Make the tables that are lacking; a line for each.

    Raises
    ------
    ValueError, FileNotFoundError
        When a checkpoint is damaged.
    """
    if card.verdict.calibrate and Rules.of(card.measure).products_lose_lines:
        logger.info("no tables of errors: products lose their emission lines, mocks keep theirs")
    models = [checkpoint.load(path) for path in lacking(card)]
    lines = []
    for frame in dict.fromkeys(model.frame for model in models):
        # The mock spectra of one frame at a time: they are large.
        shown = shown_on(card, frame)
        for model in (model for model in models if model.frame == frame):
            calibrated.write(model.path, table_of(card, model, shown))
            lines.append(f"  {model.label}: errors from {len(shown.snr)} mock spectra")
            logger.info("calibrated%s", lines[-1][1:])
    return lines


def shown_on(card: Card, frame: Frame, stream: str = "calibrate") -> Shown:
    """Mock spectra of a card's verdict, drawn afresh and seen on a frame."""
    made, _ = mock(card.verdict.mock)
    # A product is corrected for velocity dispersion after the table has been looked up.
    rules = Rules.of(card.measure).as_seen
    grid = grid_of(Survey.open(card.store), f"spectra/{config_of(card)}")
    return draw(
        made,
        frame,
        grid,
        n=card.verdict.calibrate,
        seed=card.run.seed,
        measure=partial(_values, rules),
        names=rules.keys,
        stream=stream,
        spread=partial(_spread, grid, frame) if rules.lick else None,
    )


def table_of(card: Card, model: checkpoint.Checkpoint, shown: Shown) -> Calibrated:
    """The table of a model, as a card asks for it."""
    return calibrate.calibrate(
        model.model,
        shown,
        draws=card.measure.draws,
        seed=card.run.seed,
        recipe=recipe(card),
    )


def recipe(card: Card) -> str:
    """What a table depends on beside its model."""
    _, drawn = mock(card.verdict.mock)
    keys = list(Rules.of(card.measure).keys)
    asked = [card.verdict.calibrate, keys, card.measure.draws, card.run.seed]
    return digest8([drawn, config_of(card), asked, VERSION])


def _values(
    rules: Rules,
    wavelength: np.ndarray,
    flux: Tensor,
    ivar: Tensor | None,
    z: Tensor | None = None,
    lsf: Tensor | None = None,
) -> Tensor:
    """Indices (N, I) by the rules of a card."""
    return rules(wavelength, flux, ivar, z=z, lsf=lsf).value


def _spread(grid: Grid, frame: Frame, seen: xr.Dataset) -> Tensor:
    """Line spread (N, P), pixels of a frame, of mock spectra."""
    z = seen["z"].to_numpy() if frame.rest else None
    return torch.from_numpy(on_axis(seen["lsf"].to_numpy(), grid, frame.grid, z))


def _reaches(path: Path, rules: Rules) -> bool:
    """Whether an index lies on the frame of a checkpoint, at a redshift that it was taught."""
    try:
        card = checkpoint.Card.model_validate_json((path / checkpoint.CARD).read_text())
    except (FileNotFoundError, ValidationError):
        # Whoever loads it says what is wrong.
        return True
    z = card.footprint.z if card.footprint else (0.0, 0.0)
    return any(lies_on(each, card.frame, z) for each in rules.indices)


def _recipe_of(path: Path) -> str:
    """That of the table that is there; empty where there is none, or none that can be read."""
    try:
        found = calibrated.read(path)
    except ValueError as error:
        logger.warning("%s", error)
        return ""
    return found.recipe if found else ""
