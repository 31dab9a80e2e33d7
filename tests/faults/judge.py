"""What became of the rows: each is held against that of an undisturbed run."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from storage.lease import held
from storage.schema import Reason, Status
from storage.store import Survey
from tests.faults.ground import ROWS, STORE, Arrays, Sound, products

GOOD = ("whole", "named", "too late")
"""Every row as it should be; those quarantined that had to be, and the others as they should be;
the fault came when the run was over."""
BAD = (
    "LOST",
    "TWICE",
    "DIFFERENT",
    "LEASE",
    "LEFTOVER",
    "HANG",
    "CRASH",
    "WORDLESS",
    "REFUSED",
    "ACCEPTED",
)
"""Rows that are pending; committed twice; not the undisturbed run's; a lease that stays; processes
that stay; no end in time; an end other than was promised; one that tells the person at
the terminal nothing, or shows a traceback; a run that cannot be ended by starting it
again; a second coordinator that was let in."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    outcome: str
    "Of BAD."
    words: str


@dataclass(kw_only=True)
class Result:
    """One trial."""

    number: int
    kind: str
    engine: str = ""
    "How the engine was broken; empty when it was not."
    outcome: str = "whole"
    words: list[str] = field(default_factory=list)
    "What was done, and what is wrong."
    seconds: float = 0.0
    "Wall time of all runs together, without what the trial itself waited."
    undisturbed_s: float = 0.0
    "Wall time of a run to which nothing happens."
    computed: int = 0
    "Rows computed, those that were computed in vain among them."
    starts: int = 1
    "How often the command was started."


def problems(
    folder: Path, sound: Sound, *, bad: Collection[int] = (), retried: Collection[int] = ()
) -> list[Problem]:
    """What is wrong with the store of a trial.

    bad : rows that must be quarantined, in every group; retried : rows that were made once more.
    """
    found = products(folder)
    return [
        *_rows(found, sound, bad),
        *_history(folder, sound, retried),
        *_lease(str(folder / STORE)),
    ]


def quarantined(folder: Path) -> set[int]:
    """Rows that some group gives up, though the survey does not."""
    rows = set[int]()
    for arrays in products(folder).values():
        given_up = np.isin(arrays["reason_code"], (Reason.FAILED, Reason.STORE_DAMAGED))
        rows |= set(np.flatnonzero(given_up).tolist())
    return rows


def _rows(found: dict[str, Arrays], sound: Sound, bad: Collection[int]) -> Iterator[Problem]:
    kept = ~np.isin(np.arange(ROWS), list(bad))
    for group in sorted(found.keys() ^ sound.groups.keys()):
        outcome = "LOST" if group in sound.groups else "DIFFERENT"
        yield Problem(outcome=outcome, words=f"{group} is in one of the two stores alone")
    for group in sorted(found.keys() & sound.groups.keys()):
        mine, theirs = found[group], sound.groups[group]
        status = mine["status"]
        if (status == Status.PENDING).any():
            yield Problem(outcome="LOST", words=f"{group}: {_told(status == Status.PENDING)}")
        if (wrong := ~kept & (status != Status.QUARANTINED)).any():
            yield Problem(outcome="DIFFERENT", words=f"{group}: {_told(wrong)} not quarantined")
        if mine.keys() != theirs.keys():
            yield Problem(outcome="DIFFERENT", words=f"{group}: other variables")
            continue
        for name, values in mine.items():
            wrong = _differ(values, theirs[name]) & (kept if len(values) == ROWS else True)
            if wrong.any():
                yield Problem(outcome="DIFFERENT", words=f"{group}/{name}: {_told(wrong)}")


def _differ(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(rows,) whether the bytes of a row differ."""
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return np.ones(len(mine), bool)
    if mine.dtype.kind in "TO":
        return np.asarray(mine != theirs)
    both = [np.ascontiguousarray(values).reshape(len(mine), -1) for values in (mine, theirs)]
    one, other = (values.view(f"V{values.itemsize}") for values in both)
    return np.asarray((one != other).any(axis=1))


def _history(folder: Path, sound: Sound, retried: Collection[int]) -> Iterator[Problem]:
    """Whether the commits say of every row of every group that it was made, and once."""
    made = {group: np.zeros(ROWS, int) for group in sound.groups}
    for version in Survey.open(str(folder / STORE)).history():
        for first, last in re.findall(r"(?:rows |, )(\d+):(\d+)", version.message):
            for group in version.metadata.get("groups", ()):
                if group in made:
                    made[group][int(first) : int(last)] += 1
    once_more = np.isin(np.arange(ROWS), list(retried))
    for group, times in made.items():
        if (times == 0).any():
            yield Problem(outcome="LOST", words=f"{group}: {_told(times == 0)} in no commit")
        if (twice := (times > 1) & ~(once_more & (times == 2))).any():
            yield Problem(outcome="TWICE", words=f"{group}: {_told(twice)} in several commits")


def _lease(store: str) -> Iterator[Problem]:
    if (holder := held(store)) is not None:
        yield Problem(outcome="LEASE", words=f"still held by {holder}")


def _told(rows: np.ndarray) -> str:
    found = np.flatnonzero(rows)
    return f"{len(found)} rows, {found[0]} the first"
