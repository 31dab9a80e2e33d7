"""Progress: what a training run says of itself while it runs, and the table that shows it.

The first rank writes files, the driver reads them: they need not be on one machine.
"""

import json
import logging
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler
from rich.table import Table

from storage.whole import replace
from training import curves, ranks
from training.learner import Learner
from training.state import Record

logger = logging.getLogger(__name__)

NOW = "progress.json"
"What the first rank is at, within an epoch."
WRITTEN_S, SHOWN_S, LOGGED_S = 1.0, 0.5, 5.0
"Seconds between two of these files, two looks at it, two lines of a log."
ROWS = 10
"Epochs that the table has, the last ones."


@dataclass(frozen=True, kw_only=True)
class Step:
    """A batch that is done."""

    epoch: int
    "Its epoch, from 1."
    batch: int
    "Its number, from 1."
    batches: int
    "Of an epoch, about."
    seconds: float
    "Since the epoch began, s."
    learner: Learner
    "Who learnt it; to ask it how well makes a GPU wait."

    def record(self) -> Record:
        """As an epoch's record, so far."""
        spectra = float(self.learner.sums["spectra"]) * ranks.world()
        found = {"epoch": self.epoch, "batch": self.batch, "batches": self.batches}
        said = {"lr": self.learner.lr, "seconds": self.seconds}
        if (loss := self.learner.loss) is not None:
            said["train"] = loss
        return {**found, **said, "spectra_per_s": spectra / self.seconds}


@dataclass
class Pulse:
    """Writes what a run is at, once a second."""

    path: Path
    "The file."
    last: float = field(default_factory=time.monotonic)
    "When it was written."

    def __call__(self, step: Step) -> None:
        """A batch is done."""
        if time.monotonic() - self.last < WRITTEN_S:
            return
        replace(self.path, json.dumps(step.record()))
        self.last = time.monotonic()


@contextmanager
def shown(folder: Path, epochs: int, console: Console | None = None) -> Iterator[None]:
    """Show how a run goes while everything inside works on it.

    On a terminal a table that stays in place, elsewhere a line of the log after an epoch, if the
    last one was not just before.

    Parameters
    ----------
    folder : Path
        Of the run.
    epochs : int
        That it has at most.
    console : Console
        Where the table goes; stderr, unless given.
    """
    (folder / NOW).unlink(missing_ok=True)
    console = console or _console()
    reader = _Reader(folder, epochs)
    over = threading.Event()
    work = _draw if console.is_terminal else _log
    thread = threading.Thread(target=work, args=(reader, over, console), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        (folder / NOW).unlink(missing_ok=True)


def table(history: list[Record], now: Record, epochs: int, title: str = "") -> Table:
    """The last epochs and the one that is being done; the best one in bold."""
    made = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for name in ("epoch", "train loss", "val loss", "step size", "spectra/s", "left, at most"):
        made.add_column(name, justify="right", no_wrap=True)
    best = min((record["val"] for record in history), default=None)
    for record in history[-ROWS:]:
        style = "bold" if record["val"] == best else None
        made.add_row(f"{record['epoch']}/{epochs}", *_cells(record), "", style=style)
    left = remaining(history, now, epochs)
    if _is_next(now, history):
        share = min(now["batch"] / now["batches"], 1)
        made.add_row(f"{now['epoch']}/{epochs} {share:4.0%}", *_cells(now), _clock(left))
    elif left:
        made.add_row("", "", "", "", "", _clock(left))
    return made


def line(history: list[Record], epochs: int) -> str:
    """The last epoch in words."""
    train, val, lr, rate = _cells(history[-1])
    left = _clock(remaining(history, {}, epochs))
    return (
        f"epoch {history[-1]['epoch']}/{epochs}: train {train}, val {val}, step {lr}, "
        f"{rate} spectra/s, {left} left at most"
    )


def remaining(history: list[Record], now: Record, epochs: int) -> float | None:
    """Seconds until the last epoch is over, if none is left out; None where nothing is known."""
    part = now["batch"] / now["batches"] if _is_next(now, history) else 0.0
    if history:
        each = statistics.median(record["seconds"] for record in history[-5:])
    elif part:
        each = now["seconds"] / part
    else:
        return None
    return max(epochs - len(history) - part, 0.0) * each


@dataclass
class _Reader:
    """What the files of a run say."""

    folder: Path
    epochs: int
    history: list[Record] = field(default_factory=list)
    now: Record = field(default_factory=dict)
    _seen: int = 0

    def look(self) -> None:
        """Read what has changed."""
        path = self.folder / curves.LINES
        with suppress(FileNotFoundError):
            # Thousands of epochs are not read anew twice a second.
            if (written := path.stat().st_mtime_ns) != self._seen:
                self.history, self._seen = curves.read(path), written
        self.now = {}
        with suppress(FileNotFoundError):
            self.now = json.loads((self.folder / NOW).read_text())


def _draw(reader: _Reader, over: threading.Event, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            last = over.wait(SHOWN_S)
            reader.look()
            made = table(reader.history, reader.now, reader.epochs, reader.folder.name)
            live.update(made, refresh=True)
            if last:
                return


def _log(reader: _Reader, over: threading.Event, console: Console) -> None:
    reader.look()
    said, at = len(reader.history), -LOGGED_S
    while True:
        last = over.wait(SHOWN_S)
        reader.look()
        # A run that has begun anew has fewer.
        said = min(said, len(reader.history))
        if len(reader.history) > said and (last or time.monotonic() - at >= LOGGED_S):
            logger.info("%s: %s", reader.folder.name, line(reader.history, reader.epochs))
            said, at = len(reader.history), time.monotonic()
        if last:
            return


def _console() -> Console:
    """Where log lines go on a terminal, so that they scroll above the table."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler):
            return handler.console
    return Console(stderr=True)


def _cells(record: Record) -> tuple[str, str, str, str]:
    losses = (f"{record[key]:.5g}" if key in record else "" for key in ("train", "val"))
    train, val = losses
    return train, val, f"{record['lr']:.2g}", f"{record['spectra_per_s']:,.0f}"


def _is_next(now: Record, history: list[Record]) -> bool:
    return bool(now) and now["epoch"] == len(history) + 1


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
