"""Rates: how fast the stages of a run went, for whoever plans the next one."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.blocks import Tally
from pipeline.card import Card
from storage.whole import replace

FILE = "rates.json"
FEWEST = 256
"Rows that say nothing of a rate yet."


def note(card: Card, stages: Collection[str], rows: int, tallies: Mapping[str, Tally]) -> None:
    """Keep what a pass took."""
    name = "map" if len(stages) > 1 else next(iter(stages))
    if rows < FEWEST:
        return
    seconds = max(tally.seconds for tally in tallies.values())
    said = {"rows": rows, "seconds": round(seconds, 3), "workers": card.cluster.workers}
    text = json.dumps({**known(card), name: said}, indent=1)
    replace(Path(card.run.dir) / FILE, text)


def known(card: Card) -> dict[str, Any]:
    """The rates of a run: {stage: {rows, seconds, workers}}."""
    file = Path(card.run.dir) / FILE
    return dict(json.loads(file.read_text())) if file.is_file() else {}
