"""Leaderboard: all trained models of a run side by side: quality, size, speed, cost; one page.

Quality is what the verdicts say, cost what the training runs left; the speed is measured now, on
one thread. Models that were judged on other mocks, or split otherwise, are not compared.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import ValidationError

from pipeline.card import Card
from pipeline.standings import Entry, bins, indices, quality, speeds, tests
from storage.provenance import provenance
from storage.whole import replace
from training import checkpoint, registry
from training.apply import ROWS, apply
from training.batch import Batch
from training.checkpoint import Checkpoint
from training.curves import LINES
from training.verdict import QUOTED, Verdict

logger = logging.getLogger(__name__)

TEMPLATE = "leaderboard.html.jinja"
FOLDER = "leaderboard"
PASSES, ENOUGH_S = 5, 1.0
"Of a measurement of speed: passes at most, and seconds after which there is no other."


def leaderboard(card: Card) -> tuple[Path, list[Entry]]:
    """Write the page and its numbers; gives its path and the models, the best first.

    Raises
    ------
    ValueError
        When no model of the run was judged.
    """
    found = entries(card)
    if not found:
        raise ValueError(
            f"{card.checkpoints}: no model with a verdict; `specmill train CARD` makes them"
        )
    target = Path(card.run.dir) / FOLDER / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    replace(target.with_name("leaderboard.json"), _json(found))
    replace(target, _environment().get_template(TEMPLATE).render(**_content(card, found)))
    return target, found


def entries(card: Card) -> list[Entry]:
    """The judged models in the folder of the checkpoints: those that pass first, by their score."""
    folder = Path(card.checkpoints)
    found = []
    for alias, name in sorted(registry.aliases(folder).items()):
        try:
            loaded = checkpoint.load(folder / name)
            judged = None if loaded.verdict is None else Verdict.model_validate(loaded.verdict)
        except (ValueError, ValidationError, FileNotFoundError) as error:
            logger.warning("%s is left out: %s", alias, error)
            continue
        if judged is not None:
            found.append(_entry(card, alias, loaded, judged))
            logger.info("%s: %.0f spectra/s", alias, found[-1].speed)
    return sorted(found, key=lambda entry: (not entry.verdict.passed, entry.score))


def groups(found: list[Entry]) -> list[list[Entry]]:
    """Models that may be compared: of one mock and one split; the largest group first."""
    key = [(entry.mock, entry.split) for entry in found]
    order = sorted(range(len(found)), key=lambda number: key[number])
    parts = [[found[n] for n in sorted(part)] for _, part in groupby(order, key=key.__getitem__)]
    return sorted(parts, key=len, reverse=True)


def speed(loaded: Checkpoint) -> float:
    """Spectra that a model denoises in a second, on one thread: the best of some passes."""
    rng = np.random.default_rng(0)
    pixels = loaded.frame.grid.size
    x = torch.from_numpy(1 + 0.1 * rng.standard_normal((ROWS, pixels), dtype=np.float32))
    some = torch.ones(ROWS)
    batch = Batch(
        x=x,
        weight=torch.full_like(x, 100.0),
        scale=some,
        z=torch.from_numpy(rng.uniform(0.05, 0.1, ROWS)),
        ok=some > 0,
    )
    best, began = np.inf, time.perf_counter()
    with _one_thread():
        for _ in range(PASSES):
            start = time.perf_counter()
            apply(loaded.model, batch)
            end = time.perf_counter()
            best = min(best, end - start)
            if end - began > ENOUGH_S:
                break
    return ROWS / best


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _entry(card: Card, alias: str, loaded: Checkpoint, judged: Verdict) -> Entry:
    about = loaded.card.training
    return Entry(
        alias=alias,
        checkpoint=loaded.label,
        model=loaded.card.model,
        frame=loaded.frame.name,
        parameters=loaded.model.parameters_count(),
        speed=speed(loaded),
        seconds=_seconds(Path(card.run.dir) / "training", alias, about.get("epochs", 0)),
        epochs=about.get("epochs", 0),
        n_train=judged.n_train,
        mock=about.get("verdict_mock", ""),
        split=json.dumps(about.get("split", {}), sort_keys=True),
        verdict=judged,
    )


def _seconds(folder: Path, alias: str, epochs: int) -> float | None:
    """What the newest run of a model with that many epochs took; 0 for one that learns nothing."""
    if not epochs:
        return 0.0
    files = folder.glob(f"{alias}-????????/{LINES}")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        history = [json.loads(line) for line in file.read_text().splitlines()]
        if len(history) == epochs:
            return float(sum(record["seconds"] for record in history))
    return None


def _content(card: Card, found: list[Entry]) -> dict[str, Any]:
    parts = groups(found)
    return {
        "card": card,
        "parts": [
            {
                "entries": part,
                "mock": part[0].mock or "unknown",
                "split": _split_words(part[0].split),
                "bins": bins(part),
                "indices": indices(part),
                "tests": tests(part),
                "quality": quality(part),
                "speeds": speeds(part),
            }
            for part in parts
        ],
        "quoted": QUOTED,
        "machine": machine(),
        "provenance": provenance(),
    }


def machine() -> str:
    """The processor, as the system names it."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else provenance()["platform"]


def _split_words(split: str) -> str:
    said = json.loads(split)
    shares = said.get("shares", {})
    return ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "unknown"


def _json(found: list[Entry]) -> str:
    rows = [
        {
            **{k: v for k, v in entry.__dict__.items() if k not in ("verdict", "split")},
            "split": json.loads(entry.split),
            "passed": entry.verdict.passed,
            "reason": entry.verdict.reason,
            "score": _finite(entry.score),
            "delta_o_over_noise": ratios(entry),
        }
        for entry in found
    ]
    said = {"machine": machine(), **provenance(), "models": rows}
    return json.dumps(said, indent=1, allow_nan=False) + "\n"


def ratios(entry: Entry) -> dict[str, dict[str, float | None]]:
    """Delta_O over the noise by bin and index; None where it is no number."""
    return {
        where: {index: _finite(s.delta_o.value / s.noise.value) for index, s in indices.items()}
        for where, indices in entry.verdict.statistics.items()
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["short"] = short
    found.filters["hundredths"] = lambda value: f"{value:.2f}" if np.isfinite(value) else "–"
    return found


def short(value: float | None) -> str:
    """A number in three digits, with thousands apart; a dash for none."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
