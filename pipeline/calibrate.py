"""Calibrate: the tables of errors of a card's models, beside their verdicts.

A table costs no training: where it is missing, or the card asks for another, it alone is made.
"""

import logging
from functools import partial
from pathlib import Path

from pipeline.card import Card, digest8
from pipeline.judges import measured
from pipeline.simulate import mock
from pipeline.stage import config_of, grid_of
from pipeline.user_indices import chosen, definitions
from storage.store import Survey
from training import calibrate, calibrated, checkpoint, registry
from training.calibrate import Shown
from training.calibrated import Calibrated
from training.frame import Frame

logger = logging.getLogger(__name__)

VERSION = 1
"Raised when the same mock and card give another table."


def lacking(card: Card) -> list[Path]:
    """Checkpoints of the card's models whose table is not what the card says now."""
    if card.train is None or not card.verdict.calibrate:
        return []
    folder = Path(card.run.dir) / "checkpoints"
    known, wanted = registry.aliases(folder), recipe(card)
    paths = [folder / known[model.name] for model in card.train.model if model.name in known]
    return [path for path in paths if path.is_dir() and _recipe_of(path) != wanted]


def run(card: Card) -> list[str]:
    """Make the tables that are lacking; a line for each.

    Raises
    ------
    ValueError, FileNotFoundError
        When a checkpoint is damaged.
    """
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
    wanted = chosen(card.measure.indices, card.measure.tables)
    return calibrate.draw(
        made,
        frame,
        grid_of(Survey.open(card.store), f"spectra/{config_of(card)}"),
        n=card.verdict.calibrate,
        seed=card.run.seed,
        measure=partial(measured, wanted),
        names=card.measure.indices,
        stream=stream,
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
    wanted = card.measure.indices
    defined = definitions(chosen(wanted, card.measure.tables))
    asked = [card.verdict.calibrate, list(wanted), defined, card.measure.draws, card.run.seed]
    return digest8([drawn, config_of(card), asked, VERSION])


def _recipe_of(path: Path) -> str:
    """That of the table that is there; empty where there is none, or none that can be read."""
    try:
        found = calibrated.read(path)
    except ValueError as error:
        logger.warning("%s", error)
        return ""
    return found.recipe if found else ""
