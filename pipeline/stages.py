"""Stages: what a card does, in order, with one owner of the machine at a time."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from distributed import Client

from deploy.backend import Backend
from pipeline import rates, signals
from pipeline.blocks import Tally
from pipeline.card import Card
from pipeline.worker import Setup
from storage.names import resolve
from storage.whole import replace

logger = logging.getLogger(__name__)

ORDER = ("simulate", "ingest", "train", "map", "evaluate", "report")
"What a whole run does; map is denoise and measure in one pass."
APART = ("denoise", "measure")
"What map does, each by itself."
TIMES = "times.json"


@dataclass
class Machine:
    """The workers of a card: started when a stage needs them, closed before another owner."""

    card: Card
    _stack: ExitStack = field(default_factory=ExitStack)
    _client: Client | None = None

    def client(self) -> Client:
        """The Dask client."""
        if self._client is None:
            cluster = self.card.cluster
            backend = cast(Backend, resolve("deploy.backends", cluster.backend))
            folder = Path(self.card.run.dir) / "workers"
            self._client = self._stack.enter_context(backend.cluster(cluster.resources(), folder))
            self._client.register_plugin(Setup(str((folder / "logs").absolute())))
            logger.info("Dask dashboard: %s", self._client.dashboard_link)
        return self._client

    def release(self) -> None:
        """Close the workers."""
        self._client = None
        self._stack.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def applies(name: str, card: Card) -> bool:
    """Whether a card has anything for a stage: simulate and train have their own tables."""
    return {"simulate": card.simulate, "train": card.train}.get(name, card) is not None


def require_models(card: Card) -> None:
    """Refuse a card that lacks the models of another run, before any work is done for them.

    Raises
    ------
    FileNotFoundError, ValueError
        As `route.plan`.
    """
    if card.train is None:
        from pipeline import route

        route.plan(card)


def stage(name: str, card: Card, machine: Machine) -> str:
    """Do what is missing of one stage; gives what there is to say of it."""
    # Imported here: a stage that is not asked for costs no import of torch or Ray.
    if not applies(name, card):
        raise ValueError(f"the card has no table for {name}; add one")
    signals.rearm()
    begin = time.monotonic()
    said = _DO[name](card, machine)
    if said is None:
        return "nothing to do"
    _note_time(card, name, time.monotonic() - begin)
    return said


def _note_time(card: Card, name: str, seconds: float) -> None:
    """Keep the wall time of a stage for the report."""
    file = Path(card.run.dir) / TIMES
    known = json.loads(file.read_text()) if file.exists() else {}
    replace(file, json.dumps({**known, name: round(seconds, 1)}))


def _simulate(card: Card, machine: Machine) -> str | None:
    from pipeline import simulate

    machine.release()
    if simulate.is_done(card):
        return None
    return f"{simulate.simulate(card)} spectra in {card.survey.root}"


def _ingest(card: Card, machine: Machine) -> str | None:
    from pipeline import ingest

    if ingest.is_done(card):
        return None
    ingest.require_files(card)
    tally = ingest.ingest(card, machine.client())
    rates.note(card, ["ingest"], tally.computed, {"ingest": tally})
    return str(tally)


def _train(card: Card, machine: Machine) -> str | None:
    from pipeline import train

    machine.release()
    if train.is_done(card):
        return None
    return train.train(card)


def _pass(*stages: str) -> Callable[[Card, Machine], str | None]:
    def do(card: Card, machine: Machine) -> str | None:
        from pipeline import passes

        if passes.is_done(card, stages):
            return None
        return _lines(passes.run(card, machine.client(), stages))

    return do


def _evaluate(card: Card, machine: Machine) -> str | None:
    from pipeline import evaluate

    machine.release()
    if evaluate.is_done(card):
        return None
    evaluate.evaluate(card)
    return "written to evaluate.json"


def _report(card: Card, machine: Machine) -> str | None:
    from pipeline import report

    machine.release()
    return None if report.is_done(card) else str(report.report(card))


_DO: dict[str, Callable[[Card, Machine], str | None]] = {
    "simulate": _simulate,
    "ingest": _ingest,
    "train": _train,
    "denoise": _pass("denoise"),
    "measure": _pass("measure"),
    "map": _pass("denoise", "measure"),
    "evaluate": _evaluate,
    "report": _report,
}


def _lines(tallies: dict[str, Tally]) -> str:
    return "\n".join(f"  {group}: {tally}" for group, tally in tallies.items())
