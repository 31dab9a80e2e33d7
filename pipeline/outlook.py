"""The outlook of a stage: rows to do, and how long they take at the rate measured before."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline import rates
from pipeline.card import Card
from pipeline.stage import config_of
from storage.schema import Status
from storage.store import Survey, exists
from storage.writer import CHUNK_ROWS


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What there is to do of a stage, and how long it takes."""

    rows: int | None
    "Spectra of the survey; None where nobody can say yet."
    pending: int | None
    "Those that the stage has still to do, at most; None likewise."
    seconds: float | None
    "Wall time of what is to do, on the card's workers; None without a rate."

    @property
    def tasks(self) -> str:
        """Chunks of rows, of which a task takes some."""
        return "?" if self.pending is None else f"<= {-(-self.pending // CHUNK_ROWS)}"

    @property
    def hours(self) -> str:
        """The wall time in words."""
        if self.seconds is None:
            return "?"
        return f"{self.seconds / 3600:.2f} h" if self.seconds >= 60 else f"{self.seconds:.0f} s"


def outlook(stages: Iterable[str], card: Card) -> dict[str, Outlook]:
    """The outlook of stages, by their names."""
    rows, known, found = _rows(card), rates.known(card), {}
    for stage in stages:
        pending = _pending(stage, card, rows)
        rate = known.get(stage)
        seconds = None
        if rate and pending is not None:
            worker_s = rate["seconds"] * rate["workers"] / rate["rows"]
            seconds = pending * worker_s / card.cluster.workers
        found[stage] = Outlook(rows=rows, pending=pending, seconds=seconds)
    return found


def _rows(card: Card) -> int | None:
    """Of the store, or as many as the card simulates."""
    group = f"spectra/{config_of(card)}"
    if exists(card.store) and group in (survey := Survey.open(card.store)):
        return survey.rows(group)
    made = card.simulate
    return None if made is None else made.n + round(made.n * made.repeats)


def _pending(stage: str, card: Card, rows: int | None) -> int | None:
    if not exists(card.store) or stage not in ("ingest", "map", "denoise", "measure"):
        return rows
    if stage == "ingest":
        group, survey = f"spectra/{config_of(card)}", Survey.open(card.store)
        if group not in survey:
            return rows
        return int((survey.dataset(group)["status"] == Status.PENDING).sum())
    from pipeline import passes

    try:
        found = passes.look(card, passes.STAGES if stage == "map" else (stage,))
        return max((stale.rows for stale in found), default=0)
    except (ValueError, FileNotFoundError):
        # Not ingested whole, or its models are still to come.
        return rows
