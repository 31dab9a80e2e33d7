"""Plan: what an ingest would do, before it does it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from pipeline import arrivals
from pipeline.arrivals import Folder, Known, Step
from pipeline.card import Card
from pipeline.stage import config_of, reader
from storage import schema
from storage.schema import Status
from storage.store import Survey, exists

NAMED = 20
"Changed files that are named."


@dataclass
class Plan:
    """What an ingest of a folder would do, or did."""

    new: int = 0
    "Rows to append."
    changed: int = 0
    "Rows whose file holds other content now."
    lost: int = 0
    "Rows that a changed file holds no more."
    gone: int = 0
    "Rows whose file is not in the folder any more; they stay."
    pending: int = 0
    "Rows of an ingest that was broken off."
    names: list[str] = field(default_factory=list)
    "Some of the files that changed."

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.new} new, {self.changed} changed, {self.lost} no more in their file, "
            f"{self.pending} left over from before, {self.gone} whose file is gone (kept)"
        )

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.lost or self.pending)


def look(card: Card) -> tuple[Plan, bool]:
    """What there is to do, and whether any file is other than the store remembers it."""
    survey = Survey.open(card.store) if exists(card.store) else None
    config = config_of(card)
    group = f"spectra/{config}"
    there = survey is not None and group in survey
    known = Known(_columns(survey.dataset(group)) if survey and there else _nothing())
    found = Plan(pending=int((known.columns["status"] == Status.PENDING).sum()))
    changed: set[str] = set()
    touched = False
    folder = Folder(reader(card), card.survey.root, config)
    for files in arrivals.steps(folder):
        step = known.compare(files, card.survey.root)
        found.new += len(step.new)
        touched |= bool(len(step.touched))
        if survey and len(step.touched):
            digests = survey.dataset(group)["digest"].to_numpy()[step.touched_at]
            other = changed_files(step, digests, folder)
            found.changed += int(other.sum())
            changed.update(step.touched.take(other).paths)
    _count_gone(found, known, changed, card.survey.root)
    return found, bool(found) or touched


def changed_files(
    step: Step, digests: Any, folder: Folder, client: Client | None = None
) -> NDArray[np.bool_]:
    """Touched rows whose files hold other bytes than were read."""
    paths = sorted(set(step.touched.paths))
    found = (
        [f.result() for f in client.map(folder.digest, paths, pure=False)]
        if client
        else [folder.digest(path) for path in paths]
    )
    now = dict(zip(paths, found, strict=True))
    # Nothing was read of a file without a digest.
    return np.array(
        [not was or now[path] != was for path, was in zip(step.touched.paths, digests, strict=True)]
    )


def _columns(ds: xr.Dataset) -> dict[str, Any]:
    return {name: ds[name].to_numpy() for name in arrivals.NEEDED}


def _nothing() -> dict[str, Any]:
    empty = schema.blank(0, None, {name: schema.SPECTRA[name] for name in arrivals.NEEDED})
    return _columns(empty)


def _count_gone(found: Plan, known: Known, changed: set[str], root: str) -> None:
    names = {arrivals.relative(path, root) for path in changed}
    found.lost = len(known.gone(names))
    found.gone = int((~known.seen).sum()) - found.lost
    found.names = sorted(changed)[:NAMED]
