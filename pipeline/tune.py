"""Tune: a random search for the hyper-parameters of a model, by its validation loss.

Which trials there are follows from the card; what ended is a line of <run.dir>/tune/<model>.jsonl.
A search that was broken off is started again with the same command, and repeats no finished trial.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import signals
from pipeline.card import Card, Train, TrainModel, digest8
from pipeline.train import tasks
from storage.lease import Lease
from storage.whole import replace
from training.ranges import draw
from training.search import Result, search
from training.session import session
from training.task import Task

logger = logging.getLogger(__name__)

FOLDER = "tune"
Line = dict[str, Any]
"One trial that ended: trial (its digest), number, set, parameters, and the fields of `Result`."


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One draw from the ranges."""

    number: int
    "From 0."
    set: Mapping[str, Any]
    "Values by dotted key of the model's card."
    task: Task
    "What it learns."

    @property
    def digest(self) -> str:
        """Of all that its result depends on."""
        return digest8([self.task.digest8, self.task.card.model_dump(mode="json")])


def tune(card: Card) -> list[Line]:
    """Train the trials that have not ended yet; gives all of them, the best first.

    Raises
    ------
    ValueError
        When the card has no [tune], the model learns nothing, a range is of a key that its card
        has not, a value is none that it takes, or there is no GPU; as `pipeline.train.tasks`.
    RuntimeError
        When a trial broke off for no fault of its own; what ended is kept.
    LeaseError
        When another process searches for the same model in the same run.
    """
    wanted, file = trials(card), results(card)
    file.parent.mkdir(parents=True, exist_ok=True)
    lease = Lease(str(file.with_suffix("")), "tune")
    try:
        return _tuned(card, wanted, file)
    finally:
        lease.release()


def _tuned(card: Card, wanted: list[Trial], file: Path) -> list[Line]:
    assert card.tune is not None
    ended = [line for line in read(file) if line["trial"] in {trial.digest for trial in wanted}]
    left = {
        trial.digest: trial
        for trial in wanted
        if trial.digest not in {line["trial"] for line in ended}
    }
    if not left:
        return _finished(file, ended)
    logger.info("tune %s: %d trials, %d to do", card.tune.model, len(wanted), len(left))

    def note(result: Result) -> None:
        ended.append(_line(left[result.name], result))
        write(file, [*_others(file, ended), *ended])
        logger.info("trial %d: %s", ended[-1]["number"], _said(ended[-1]))

    gpu, at_once = card.cluster.gpus > 0, side_by_side(card)
    resources = card.cluster.resources()
    threads = max(1, resources.workers * resources.threads // at_once)
    with session(threads=threads, workers=at_once, gpus=at_once if gpu else 0):
        # Ray's core has put its own handlers in the place of ours.
        signals.rearm()
        broken = search(
            {digest: trial.task for digest, trial in left.items()},
            file.with_suffix(""),
            note,
            threads=threads,
            at_once=at_once,
            gpu=gpu,
        )
    if broken:
        first = next(iter(broken.values()))
        raise RuntimeError(
            f"{len(broken)} of {len(left)} trials broke off; the same command tries them again. "
            f"The first: {first}"
        )
    return _finished(file, ended)


def side_by_side(card: Card) -> int:
    """Trials that run at a time: with GPUs, each has one to itself.

    Raises
    ------
    ValueError
        When the cluster is to have GPUs, and this machine shows none.
    """
    assert card.tune is not None
    if not card.cluster.gpus or "RAY_ADDRESS" in os.environ:
        return card.tune.at_once
    if there := torch.cuda.device_count():
        return min(card.tune.at_once, there)
    raise ValueError(
        f"cluster.gpus: {card.cluster.gpus} asked for, but this machine shows none; set gpus = 0 "
        "of [cluster] to search on cores, or RAY_ADDRESS to search on a cluster that has them"
    )


def trials(card: Card) -> list[Trial]:
    """The trials of a card, whether they have ended or not.

    Raises
    ------
    ValueError
        As `tune`.
    """
    if card.tune is None or card.train is None:
        raise ValueError("the card has no table for tune; add [tune], and the model to [[train]]")
    base = next(model for model in card.train.model if model.name == card.tune.model)
    drawn = [draw(card.tune.ranges, card.tune.seed, n) for n in range(card.tune.trials)]
    models = {
        f"{base.name}_{number}": TrainModel(
            name=f"{base.name}_{number}",
            card=base.card or base.name,
            overrides={**base.overrides, **values, "fit.epochs": card.tune.epochs},
        )
        for number, values in enumerate(drawn)
    }
    train = Train(model=tuple(models.values()))
    made = tasks(card.model_copy(update={"train": train}))
    one = next(iter(made.values()))
    if one.card.build(one.frame.grid).fit == "none":
        raise ValueError(f"tune.model: {base.name!r} learns nothing, so it has no losses")
    found: dict[str, Trial] = {}
    for number, (name, values) in enumerate(zip(models, drawn, strict=True)):
        trial = Trial(number=number, set=values, task=made[name])
        # A choice of few values is drawn twice; one trial says it.
        found.setdefault(trial.digest, trial)
    return list(found.values())


def results(card: Card) -> Path:
    """The file with a line a trial."""
    assert card.tune is not None
    return Path(card.run.dir) / FOLDER / f"{card.tune.model}.jsonl"


def read(file: Path) -> list[Line]:
    """Trials that ended."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(file: Path, lines: list[Line]) -> None:
    """The lines of a file, replaced whole: a kill leaves the old ones or the new ones."""
    # allow_nan: a NaN is a mistake of ours, and no JSON.
    replace(file, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def ranked(lines: list[Line]) -> list[Line]:
    """The lowest validation loss first; those whose loss did not stay finite last."""
    return sorted(lines, key=lambda line: (line["val"] is None, line["val"] or 0, line["number"]))


def overrides(card: Card, line: Line) -> str:
    """A trial as the table of a card that trains it, at the epochs of the model's own card."""
    assert card.tune is not None
    assert card.train is not None
    base = next(model for model in card.train.model if model.name == card.tune.model)
    said = {**base.overrides, **line["set"]}
    inner = ", ".join(f'"{key}" = {json.dumps(value)}' for key, value in said.items())
    named = f'name = "{base.name}"\ncard = "{base.card or base.name}"'
    return f"[[train.model]]\n{named}\noverrides = {{ {inner} }}"


def markdown(lines: list[Line]) -> str:
    """The trials as a table."""
    head, *rows = table(lines)
    marks = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows)) + "\n"


def table(lines: list[Line]) -> list[list[str]]:
    """A heading, and a row a trial."""
    keys = sorted({key for line in lines for key in line["set"]})
    head = ["trial", *keys, "validation", "training", "best epoch", "parameters", "seconds"]
    return [head, *([*_row(line, keys)] for line in lines)]


def _row(line: Line, keys: list[str]) -> list[str]:
    values = [json.dumps(line["set"].get(key, "")).strip('"') for key in keys]
    losses = ["not finite" if line["val"] is None else f"{line['val']:.6g}"]
    losses.append("" if line["train"] is None else f"{line['train']:.6g}")
    epochs = f"{line['best_epoch']} of {line['epochs']}"
    cost = [f"{line['parameters']:,}", f"{line['seconds']:.1f}"]
    return [str(line["number"]), *values, *losses, epochs, *cost]


def _finished(file: Path, ended: list[Line]) -> list[Line]:
    """The trials in order, which the table beside the file shows."""
    best = ranked(ended)
    file.with_suffix(".md").write_text(markdown(best))
    return best


def _line(trial: Trial, result: Result) -> Line:
    task = trial.task
    parameters = task.card.build(task.frame.grid).parameters_count()
    said = {key: value for key, value in asdict(result).items() if key != "name"}
    about = {"trial": trial.digest, "number": trial.number, "set": dict(trial.set)}
    return {**about, "parameters": parameters, **said}


def _others(file: Path, ended: list[Line]) -> list[Line]:
    """Trials of another search, or of an older survey, that the file has: they stay."""
    mine = {line["trial"] for line in ended}
    return [line for line in read(file) if line["trial"] not in mine]


def _said(line: Line) -> str:
    loss = "not finite" if line["val"] is None else f"validation {line['val']:.6g}"
    return f"{loss} with {json.dumps(line['set'])}"
