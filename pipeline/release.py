"""Release: a tag that says what a survey's products were made of, and proof that they are.

The card, the routes with their checkpoints, and the machine are kept with the version that the tag
names. From them every product can be made again and held against what the tag holds.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, as_completed

from pipeline import passes, route
from pipeline.block import Block
from pipeline.card import Card
from pipeline.passes import Pass
from pipeline.stage import config_of, origin, reading
from storage import versions
from storage.store import Survey
from storage.writer import writing

KEY = "release"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came of making a release again."""

    rows: int
    "Rows that were made again."
    arrays: int
    "Arrays of products that were held against the release."
    different: dict[str, int]
    "Rows that differ by a bit, by array."
    machine: str
    "What differs of the machine; empty where it is of the same kind."


def publish(card: Card, name: str) -> str:
    """Tag the newest version of a card's store as a release; gives its snapshot.

    Raises
    ------
    ValueError
        When something of the card is missing or stale, or the tag is taken.
    """
    if stale := passes.look(card):
        raise ValueError(
            f"{card.store}: {stale[0]}; a release is whole: `specmill run` or `reprocess` first"
        )
    plan = route.plan(card)
    about = {
        "name": name,
        "card": card.model_dump(mode="json"),
        "plan": {
            "where": list(plan.where),
            "reasons": list(plan.reasons),
            "chosen": [asdict(one) if one else None for one in plan.chosen],
        },
        "origin": origin(card),
    }
    group = f"spectra/{config_of(card)}"
    with writing(card.store, f"release {name}") as writer:
        writer.set_attrs(group, {KEY: name})
        snapshot = writer.commit(f"release {name}", {KEY: json.dumps(about)})
    versions.tag(card.store, name, snapshot)
    return snapshot


def card_of(store: str, name: str) -> Card:
    """The card of a release, on the store where it is now.

    Raises
    ------
    ValueError
        When no release has that name.
    """
    card = Card.model_validate(_about(store, name)["card"])
    survey = card.survey.model_copy(update={"store": store})
    return card.model_copy(update={"survey": survey})


def prove(
    store: str, name: str, client: Client, checkpoints: str = "", rows: int | None = None
) -> Proof:
    """Make the products of a release again, and hold them against it; nothing is written.

    checkpoints : folder that they are in now; where they were, when empty.
    rows : the first so many only.

    Raises
    ------
    ValueError, FileNotFoundError
        When there is no such release, or a checkpoint of it is gone.
    """
    about = _about(store, name)
    card, plan = card_of(store, name), _plan(about["plan"], checkpoints)
    survey = Survey.open(store, snapshot=name)
    steps = tuple(passes.steps_of(card, survey, passes.STAGES, plan))
    work = Pass(store=store, snapshot=survey.snapshot, config=config_of(card), steps=steps)
    groups = frozenset(step.group for step in steps)
    total = survey.rows(f"spectra/{work.config}")
    blocks = _blocks(min(total, rows or total), survey.chunk_rows(f"spectra/{work.config}"), groups)
    different: Counter[str] = Counter()
    arrays: set[str] = set()
    for found in _mapped(client, work, blocks):
        arrays |= found.keys()
        different.update({array: count for array, count in found.items() if count})
    return Proof(
        rows=min(total, rows or total),
        arrays=len(arrays),
        different=dict(different),
        machine=_differs(about["origin"], origin(card)),
    )


def _about(store: str, name: str) -> dict[str, Any]:
    survey = Survey.open(store, snapshot=name)
    for version in survey.history():
        if version.snapshot == survey.snapshot and KEY in version.metadata:
            return dict(json.loads(version.metadata[KEY]))
    raise ValueError(f"{store}: {name!r} is no release; `specmill release CARD NAME` makes one")


def _plan(said: dict[str, Any], checkpoints: str) -> route.Plan:
    chosen = [route.Chosen(**one) if one else None for one in said["chosen"]]
    if checkpoints:
        chosen = [c and replace(c, path=str(Path(checkpoints) / c.name)) for c in chosen]
    for one in chosen:
        if one and not Path(one.path).is_dir():
            raise FileNotFoundError(f"{one.path}: a checkpoint of the release; --checkpoints DIR")
    return route.Plan(
        where=tuple(said["where"]), reasons=tuple(said["reasons"]), chosen=tuple(chosen)
    )


def _blocks(rows: int, chunk: int, groups: frozenset[str]) -> Iterator[Block]:
    for first in range(0, rows, chunk):
        yield Block(first=first, last=min(first + chunk, rows), groups=groups)


def _mapped(client: Client, work: Pass, blocks: Iterator[Block]) -> Iterator[dict[str, int]]:
    """Differences block by block, two a worker under way."""
    ahead = 2 * max(1, len(client.nthreads()))
    running = as_completed(
        [client.submit(_held, work, b, pure=False) for b in islice(blocks, ahead)]
    )
    for future in running:
        yield future.result()
        for block in islice(blocks, 1):
            running.add(client.submit(_held, work, block, pure=False))


def _held(work: Pass, block: Block) -> dict[str, int]:
    """Rows of each array of a block that differ from the release's."""
    survey, found = reading(work.store, work.snapshot), {}
    for group, made in work(block, work.read(block)).items():
        there = survey.dataset(group).isel(spectrum=block.rows)
        for name, variable in made.data_vars.items():
            found[f"{group}/{name}"] = _different(variable.to_numpy(), there[name].to_numpy())
    return found


def _different(one: np.ndarray, other: np.ndarray) -> int:
    if one.dtype.kind == "T":
        return int((one != other).sum())
    rows = len(one)
    left, right = (np.ascontiguousarray(a).view("u1").reshape(rows, -1) for a in (one, other))
    return int((left != right).any(axis=1).sum())


def _differs(was: dict[str, Any], now: dict[str, Any]) -> str:
    keys = ("platform", "packages", "threads_per_worker", "code_version")
    return "; ".join(f"{k}: {was.get(k)} -> {now.get(k)}" for k in keys if was.get(k) != now.get(k))
