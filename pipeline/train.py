"""Train: fit the models of a card on the survey, then judge each on mocks it has never seen."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pipeline import index, signals
from pipeline.card import Card, TrainModel, digest8, read_toml, shipped
from pipeline.expression import evaluate
from pipeline.simulate import mock
from pipeline.stage import (
    config_of,
    everywhere,
    footprint_columns,
    grid_of,
    require_ingested,
    snapshot_of,
)
from storage.provenance import code_version
from storage.schema import COLUMNS, ObjectType, Split, Status
from storage.store import Survey, exists
from training import checkpoint, fit, registry
from training.footprint import Footprint
from training.frames import named
from training.recipe import ModelCard
from training.reference import Linear
from training.source import StoreSource
from training.task import Task
from training.trials import Trials, examine, linear, trial
from training.verdict import Verdict, deciding, judge

logger = logging.getLogger(__name__)

INDICES = ("Dn4000", "HdeltaF", "Mgb")
"What a verdict is about: the three indices of Camilleri et al. 2025, whatever a card measures."
VERSION = 1
"Raised when the same spectra and card teach something else: models are stale then."


def is_done(card: Card) -> bool:
    """Whether every model of the card is trained and judged as the card says now."""
    if not exists(card.store) or f"spectra/{config_of(card)}" not in Survey.open(card.store):
        return False
    return not missing(card)


def train(card: Card) -> str:
    """Fit and judge what is missing; gives a line per model.

    Raises
    ------
    ValueError
        When the survey is not ingested whole, the sample is empty, or a model card is wrong.
    RuntimeError
        When training failed.
    """
    wanted = missing(card)
    folder = Path(card.run.dir) / "checkpoints"
    resources = card.cluster.resources()
    threads = max(1, resources.workers * resources.threads)
    fitted = {}
    with fit.session(threads=threads):
        # Ray's core has put its own handlers in the place of ours.
        signals.rearm()
        for name, task in wanted.items():
            logger.info("train %s: %d spectra", name, len(task.train))
            fitted[name] = fit.train(task, Path(card.run.dir) / "training", name, threads=threads)
    torch.set_num_threads(threads)
    trials = _trials(card)
    lines = []
    for name, done in fitted.items():
        task = wanted[name]
        learnt = _footprint(card, task)
        verdict = judge(
            examine(done.model, trials),
            len(task.train),
            decisive=deciding(learnt.snr_g),
            seed=card.run.seed,
        )
        about = _card(card, task, done, _proven(learnt, verdict))
        path = checkpoint.save(folder, name, done.model, about)
        checkpoint.write_verdict(path, verdict.model_dump(mode="json"))
        registry.set_alias(folder, name, path)
        word = "passes" if verdict.passed else "fails"
        lines.append(f"  {path.name}: {word}, {verdict.reason}")
        logger.info("judged%s", lines[-1][1:])
    return "\n".join(lines)


def tasks(card: Card) -> dict[str, Task]:
    """What each model of a card learns, and from which rows.

    Raises
    ------
    ValueError
        When the survey is not ingested whole, the sample is empty, or a model card is wrong.
    """
    assert card.train is not None
    config = config_of(card)
    survey, group = Survey.open(card.store), f"spectra/{config}"
    require_ingested(survey, group)
    # Ray workers live in folders of their own.
    source = StoreSource(
        path=everywhere(card.store), config=config, snapshot=snapshot_of(survey, group)
    )
    train, val = (sample(card, survey, side) for side in (Split.TRAIN, Split.VAL))
    frame = named(card.frame.name)
    return {
        model.name: Task(
            card=model_card(card, model), source=source, frame=frame, train=train, val=val
        )
        for model in card.train.model
    }


def missing(card: Card) -> dict[str, Task]:
    """The models that are not trained and judged as the card says now."""
    folder = Path(card.run.dir) / "checkpoints"
    known = registry.aliases(folder)
    wanted = {}
    for name, task in tasks(card).items():
        path = folder / known.get(name, name)
        found = _sound(path) if path.is_dir() else None
        if found is None or found.verdict is None or _is_stale(card, task, found):
            wanted[name] = task
    return wanted


def _is_stale(card: Card, task: Task, found: checkpoint.Checkpoint) -> bool:
    assert card.train is not None
    said = found.card.training
    if said["recipe"] != _recipe(card, task):
        return True
    if said.get("rows_digest") == _rows(card, task):
        return False
    if not card.train.follow:
        logger.info(
            "%s was trained on %d spectra, the sample has %d or others now; "
            "train.follow = true trains it anew",
            found.label,
            said["rows"]["train"],
            len(task.train),
        )
    return card.train.follow


def _sound(path: Path) -> checkpoint.Checkpoint | None:
    """A checkpoint, or None for one that is damaged: it is put aside, and trained again."""
    try:
        return checkpoint.load(path)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("%s; put aside as .damaged-%s", error, path.name)
        path.rename(path.with_name(f".damaged-{path.name}"))
        return None


def sample(card: Card, survey: Survey, side: Split) -> np.ndarray:
    """Rows of one side that may teach: done, of the sky's objects, chosen by the card.

    Raises
    ------
    ValueError
        When there are none to train on.
    """
    ds = survey.dataset(f"spectra/{config_of(card)}")
    n = ds.sizes["spectrum"]
    chosen = evaluate(card.sample.where, {name: ds[name] for name in COLUMNS}, n)
    chosen &= (ds["status"] == Status.DONE).to_numpy()
    chosen &= (ds["object_type"] == ObjectType.SCIENCE).to_numpy()
    chosen &= (ds["split"] == side).to_numpy()
    if side == Split.TRAIN and not chosen.any():
        raise ValueError(f"sample.where: {card.sample.where!r} leaves none of {n} spectra to train")
    return np.flatnonzero(chosen)


def model_card(card: Card, model: TrainModel) -> ModelCard:
    """The card of a model with what the run card overrides, seeded by the run."""
    content = read_toml(shipped("models", model.card or model.name))
    for key, value in model.overrides.items():
        _put(content, key, value)
    content.setdefault("fit", {}).setdefault("seed", card.run.seed)
    return ModelCard.parse(content)


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    head, _, rest = key.partition(".")
    if rest:
        _put(content.setdefault(head, {}), rest, value)
    elif isinstance(value, dict):
        for inner, item in value.items():
            _put(content.setdefault(head, {}), inner, item)
    else:
        content[head] = value


def _recipe(card: Card, task: Task) -> str:
    """What a checkpoint and its verdict depend on, but for the rows that it learns from."""
    _, digest = mock(card.verdict.mock)
    judged = [digest, card.verdict.n, card.verdict.reference, card.run.seed]
    chosen = [card.sample.where, card.split.model_dump(mode="json"), task.frame.label]
    return digest8([task.card.model_dump(mode="json"), chosen, judged, VERSION])


def _rows(card: Card, task: Task) -> str:
    """The rows that a model learns from, by the content of their files, not their store."""
    files = Survey.open(card.store).dataset(f"spectra/{config_of(card)}")["digest"].to_numpy()
    rows = hashlib.blake2b(digest_size=8)
    for side in (task.train, task.val):
        rows.update(side.astype("<i8").tobytes() + "".join(files[side]).encode() + b"|")
    return rows.hexdigest()


def _card(card: Card, task: Task, done: fit.Trained, footprint: Footprint) -> checkpoint.Card:
    # Neither times nor snapshot ids: the same data and card give the same digest anywhere.
    return checkpoint.Card(
        model=task.card.model,
        options=task.card.options,
        frame=task.frame,
        footprint=footprint,
        training={
            "recipe": _recipe(card, task),
            "fit": task.card.fit.model_dump(mode="json"),
            "rows": {"train": len(task.train), "val": len(task.val)},
            "rows_digest": _rows(card, task),
            "sample": card.sample.where,
            "split": card.split.model_dump(mode="json"),
            "seed": card.run.seed,
            "verdict_mock": mock(card.verdict.mock)[1],
            "epochs": len(done.history),
        },
        code=code_version(),
    )


def _footprint(card: Card, task: Task) -> Footprint:
    """Where the training rows are."""
    survey = Survey.open(card.store, snapshot=task.source.identity.rpartition("@")[2])
    group = f"spectra/{config_of(card)}"
    mapper = task.frame.on(grid_of(survey, group))
    missing, columns = [], []
    for first in range(0, survey.rows(group), survey.chunk_rows(group)):
        last = first + survey.chunk_rows(group)
        rows = task.train[(task.train >= first) & (task.train < last)]
        if len(rows):
            ds = survey.dataset(group).isel(spectrum=slice(first, last)).load()
            ds = ds.isel(spectrum=rows - first)
            flux, ivar, z, ebv = (ds[name].to_numpy() for name in ("flux", "ivar", "z", "ebv"))
            batch = mapper.to(flux, ivar, z, ebv)
            missing.append(batch.missing.numpy())
            columns.append(footprint_columns(ds))
    return Footprint.learn(xr.concat(columns, "spectrum"), np.concatenate(missing))


def _proven(learnt: Footprint, verdict: Verdict) -> Footprint:
    """A footprint down to the S/N where the model passed, and with the ceiling above which not."""
    low, high = learnt.snr_g
    floor = low if verdict.floor is None else min(low, verdict.floor)
    return learnt.model_copy(update={"snr_ceiling": verdict.ceiling, "snr_g": (floor, high)})


def _trials(card: Card) -> Trials:
    """The mocks of the verdict, drawn afresh in memory, with the linear reference's answers."""
    survey, config = Survey.open(card.store), config_of(card)
    grid, frame = grid_of(survey, f"spectra/{config}"), named(card.frame.name)
    made, _ = mock(card.verdict.mock)
    reference: Linear = linear(made, frame, grid, card.verdict.reference, card.run.seed)
    references: Mapping[str, Linear] = {"linear": reference}
    return trial(
        made,
        frame,
        grid,
        n=card.verdict.n,
        seed=card.run.seed,
        measure=_indices,
        names=INDICES,
        references=references,
    )


def _indices(wavelength: np.ndarray, flux: Tensor, ivar: Tensor | None) -> Tensor:
    return index.measure(wavelength, flux, ivar, INDICES).value
