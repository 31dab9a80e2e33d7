"""Train: fit the models of a card on the survey, then judge each on mocks it has never seen."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pipeline import calibrate, signals
from pipeline.card import Card, TrainModel, digest8, read_toml, shipped
from pipeline.judges import Judge, judge_of
from pipeline.sample import said, sample
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
from storage.schema import Split
from storage.store import Survey, exists
from training import checkpoint, fit, origin, registry
from training.footprint import Footprint
from training.frame import Frame
from training.frames import named
from training.recipe import ModelCard
from training.session import require_gpus, session
from training.source import StoreSource
from training.task import VERSION, Task
from training.verdict import Verdict, deciding

logger = logging.getLogger(__name__)

# Of what is known of the rounding: the shifts of every band would be a long list.
_PRECISION = ("asked", "taken", "worst")


def is_done(card: Card) -> bool:
    """Whether every model of the card is trained, judged and calibrated as the card says now."""
    if not exists(card.store) or f"spectra/{config_of(card)}" not in Survey.open(card.store):
        return False
    return not missing(card) and not calibrate.lacking(card)


def train(card: Card) -> str:
    """Fit, judge and calibrate what is missing; gives a line for each.

    Raises
    ------
    ValueError
        When the survey is not ingested whole, the sample is empty or hardly lies on a model's
        frame, a model card is wrong, or there are fewer GPUs than workers.
    RuntimeError
        When training failed.
    """
    wanted = missing(card)
    lines = _taught(card, wanted) if wanted else []
    return "\n".join([*lines, *calibrate.run(card)])


def _taught(card: Card, wanted: dict[str, Task]) -> list[str]:
    """Fit and judge models; gives a line for each."""
    resources = card.cluster.resources()
    assert card.train is not None
    ranks, gpu = card.train.workers, resources.gpus > 0
    require_gpus(ranks if gpu else 0)
    # All learn from the same rows. What hardly lies on a frame is refused here, not hours later.
    on_frame = {task.frame: task for task in wanted.values()}
    learnt = {frame: _footprint(card, task) for frame, task in on_frame.items()}
    threads = max(1, resources.workers * resources.threads)
    each = max(1, threads // ranks)
    fitted = {}
    with session(threads=each, workers=ranks, gpus=ranks if gpu else 0):
        # Ray's core has put its own handlers in the place of ours.
        signals.rearm()
        for name, task in wanted.items():
            logger.info("train %s: %d spectra", name, len(task.train))
            fitted[name] = fit.train(
                task,
                Path(card.run.dir) / "training",
                name,
                workers=ranks,
                threads=each,
                gpu=gpu,
                kept_bytes=int(1e9 * card.train.kept_gb),
            )
    torch.set_num_threads(threads)
    lines = []
    for frame, footprint in learnt.items():
        # The trials of one frame at a time: they are large.
        judge = judge_of(card, frame)
        for name, done in fitted.items():
            if wanted[name].frame == frame:
                lines.append(_judged(card, name, wanted[name], done, judge, footprint))
                logger.info("judged%s", lines[-1][1:])
    return lines


def _judged(
    card: Card, name: str, task: Task, done: fit.Trained, judge: Judge, learnt: Footprint
) -> str:
    """Write the checkpoint of a model with its verdict; gives the line that says it."""
    folder = Path(card.run.dir) / "checkpoints"
    verdict = judge(done.model, len(task.train), deciding(learnt.snr_g))
    about = _card(card, task, done, _proven(learnt, verdict))
    path = checkpoint.save(folder, name, done.model, about)
    checkpoint.write_verdict(path, verdict.model_dump(mode="json"))
    if done.origin is not None:
        origin.write(path, done.origin.model_copy(update={"snapshot": _snapshot(task)}))
    registry.set_alias(folder, name, path)
    return f"  {path.name}: {'passes' if verdict.passed else 'fails'}, {verdict.reason}"


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
    cards = {model.name: model_card(card, model) for model in card.train.model}
    return {
        name: Task(card=made, source=source, frame=frame_of(card, made), train=train, val=val)
        for name, made in cards.items()
    }


def frame_of(card: Card, model: ModelCard) -> Frame:
    """The frame of a model: its own, or that of the run.

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    return named(model.frame or card.frame.name)


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
    if said.get("recipe") != _recipe(card, task):
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
    if card.verdict.library:
        judged.append(card.verdict.library)
    chosen = [said(card), card.split.model_dump(mode="json"), task.frame.label]
    return digest8([task.card.model_dump(mode="json"), chosen, judged, VERSION])


def _rows(card: Card, task: Task) -> str:
    """The rows that a model learns from, by the content of their files, not their store."""
    files = Survey.open(card.store).dataset(f"spectra/{config_of(card)}")["digest"].to_numpy()
    rows = hashlib.blake2b(digest_size=8)
    for side in (task.train, task.val):
        rows.update(side.astype("<i8").tobytes() + "".join(files[side]).encode() + b"|")
    return rows.hexdigest()


def _card(card: Card, task: Task, done: fit.Trained, footprint: Footprint) -> checkpoint.Card:
    # Neither times nor snapshot ids, which are in its origin: the same data and card give the same
    # digest anywhere.
    return checkpoint.Card(
        model=task.card.model,
        options=task.card.options,
        frame=task.frame,
        footprint=footprint,
        training={
            "recipe": _recipe(card, task),
            "parameters": done.model.parameters_count(),
            "fit": task.card.fit.model_dump(mode="json"),
            "augment": task.card.augment.model_dump(mode="json"),
            "rows": {"train": len(task.train), "val": len(task.val)},
            "rows_digest": _rows(card, task),
            "sample": said(card),
            "split": card.split.model_dump(mode="json"),
            "seed": card.run.seed,
            "verdict_mock": mock(card.verdict.mock)[1],
            "epochs": len(done.history),
            "metrics": done.metrics,
            "precision": {k: v for k, v in done.precision.items() if k in _PRECISION},
        },
        code=", ".join(done.origin.code) if done.origin else code_version(),
    )


def _snapshot(task: Task) -> str:
    return task.source.identity.rpartition("@")[2]


def _footprint(card: Card, task: Task) -> Footprint:
    """Where the training rows are."""
    survey = Survey.open(card.store, snapshot=_snapshot(task))
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
            columns.append(footprint_columns(ds, mapper.grid))
    return Footprint.learn(xr.concat(columns, "spectrum"), np.concatenate(missing))


def _proven(learnt: Footprint, verdict: Verdict) -> Footprint:
    """A footprint down to the S/N where the model passed, and with the ceiling above which not."""
    low, high = learnt.snr_g
    floor = low if verdict.floor is None else min(low, verdict.floor)
    return learnt.model_copy(update={"snr_ceiling": verdict.ceiling, "snr_g": (floor, high)})
