"""Reprocess: only what a changed file, card, model or code has made stale."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline import passes
from pipeline.card import Card
from pipeline.stage import config_of
from pipeline.stages import Machine, stage
from storage.schema import Reason
from storage.store import Survey, exists
from storage.writer import writing

FAILED = (Reason.FAILED, Reason.STORE_DAMAGED)
"Reasons that a repaired store, or more memory, may take away."


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something that is stale."""

    stage: str
    "The stage that makes it again."
    what: str
    "What, and why, in words."


def look(card: Card) -> list[Found]:
    """What is stale, in the order of the stages; nothing is changed.

    Raises
    ------
    ValueError, FileNotFoundError
        As the stages.
    """
    return [*_ingest(card), *_train(card), *_passes(card)]


def do(card: Card, machine: Machine) -> Iterator[tuple[str, str]]:
    """Make what is stale again; (stage, what it says) as each is done."""
    for name in ("ingest", "train", "map"):
        if any(found.stage == name for found in look(card)):
            yield name, stage(name, card, machine)


def retry(card: Card) -> int:
    """Rows that failed, or whose chunk was damaged, are pending again; gives how many there are.

    Rows that failed at ingest are so in every group: what is made of them is made anew.
    """
    config, tried = config_of(card), set[int]()
    with writing(card.store, "retry") as writer:
        spectra = f"spectra/{config}"
        unread = np.flatnonzero(np.isin(writer.read_column(spectra, "reason_code"), FAILED))
        for group in [name for name in writer.groups() if name.split("/")[1] == config]:
            failed = np.isin(writer.read_column(group, "reason_code"), FAILED)
            rows = np.union1d(np.flatnonzero(failed), unread)
            if len(rows):
                writer.reset(group, rows)
                tried |= set(rows.tolist())
        if len(unread):
            writer.set_attrs(spectra, {"complete": False})
        if tried:
            writer.commit(f"{config}: {len(tried)} rows that failed are tried again")
    return len(tried)


def _ingest(card: Card) -> Iterator[Found]:
    from pipeline import ingest

    try:
        plan = ingest.plan(card)
    except FileNotFoundError:
        # Files may be put away once they are in the store.
        if not exists(card.store):
            raise
        return
    if plan:
        named = f" ({', '.join(plan.names)})" if plan.names else ""
        yield Found(stage="ingest", what=f"{plan}{named}")


def _train(card: Card) -> Iterator[Found]:
    if card.train is None or not _has_spectra(card):
        return
    from pipeline import train

    for name in train.missing(card):
        yield Found(stage="train", what=f"{name}: not trained and judged as the card says now")


def _passes(card: Card) -> Iterator[Found]:
    if not _has_spectra(card):
        return
    try:
        found = passes.look(card)
    except (FileNotFoundError, ValueError) as error:
        # No model yet, or none that passes: what there will be to do shows when there is one.
        yield Found(stage="map", what=str(error))
        return
    for stale in found:
        yield Found(stage="map", what=str(stale))


def _has_spectra(card: Card) -> bool:
    group = f"spectra/{config_of(card)}"
    return exists(card.store) and bool(_complete(card, group))


def _complete(card: Card, group: str) -> bool:
    survey = Survey.open(card.store)
    return group in survey and bool(survey.attrs(group).get("complete"))
