"""Routes: which model takes which spectrum, by the ordered rules of a card."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.card import Card
from pipeline.expression import evaluate, names
from storage.schema import ObjectType, Reason, Status
from training import checkpoint, registry
from training.verdict import Verdict

logger = logging.getLogger(__name__)

NOWHERE = 255
"The number of no route."


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One checkpoint that a route named, and what its verdict says."""

    path: str
    "Folder of the checkpoint."
    alias: str
    "Its name."
    verdict: str
    "'passed', 'failed: ...' or 'missing'."

    @property
    def name(self) -> str:
        """Its name with the digest: that of its product."""
        return Path(self.path).name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The routes of a card with their models found."""

    where: tuple[str, ...]
    "Expressions, in order."
    reasons: tuple[str, ...]
    "Why, for routes to no model."
    chosen: tuple[Chosen | None, ...]
    "The checkpoint of each route; None for 'none'."

    @property
    def checkpoints(self) -> tuple[Chosen, ...]:
        """Each checkpoint once, in the order of the routes."""
        return tuple(dict.fromkeys(c for c in self.chosen if c is not None))

    def columns(self, known: Iterable[str]) -> list[str]:
        """The columns that the rules name."""
        there = dict.fromkeys(known)
        return sorted({name for rule in self.where for name in names(rule, there)})

    def words(self, number: NDArray[np.uint8], code: NDArray[np.uint16]) -> NDArray[Any]:
        """Why rows (N,) are routed to no model, as the card says it; empty for all others."""
        said = np.array([*self.reasons, *[""] * (NOWHERE + 1)], np.dtypes.StringDType())
        return np.where(code == Reason.ROUTED_NOWHERE, said[number], "")

    def numbers(self, columns: Mapping[str, Any], n: int) -> NDArray[np.uint8]:
        """The route of each of n rows; NOWHERE where no rule fits."""
        number = np.full(n, NOWHERE, np.uint8)
        for route in reversed(range(len(self.where))):
            number[evaluate(self.where[route], columns, n)] = route
        return number

    def ledger(
        self, columns: Mapping[str, Any], n: int, chosen: Chosen
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.uint8]]:
        """Status, reason and route of n rows in the product of one checkpoint."""
        number = self.numbers(columns, n)
        mine = [route for route, found in enumerate(self.chosen) if found == chosen]
        nowhere = [route for route, found in enumerate(self.chosen) if found is None]
        science = np.asarray(columns["object_type"]) == ObjectType.SCIENCE
        upstream = np.asarray(columns["status"])
        # The first that is true counts: what became of the row before goes before the routes.
        cases = [
            (upstream == Status.QUARANTINED, Reason.UPSTREAM_QUARANTINED),
            (upstream != Status.DONE, Reason.UPSTREAM_NOT_APPLICABLE),
            (~science, Reason.NOT_SCIENCE),
            (np.isin(number, [*nowhere, NOWHERE]), Reason.ROUTED_NOWHERE),
            (~np.isin(number, mine), Reason.ROUTED_ELSEWHERE),
        ]
        code = np.select([case for case, _ in cases], [reason for _, reason in cases], Reason.NONE)
        status = np.where(code == Reason.NONE, Status.DONE, Status.NOT_APPLICABLE)
        return status.astype("u1"), code.astype("u2"), number


def plan(card: Card) -> Plan:
    """Find the models of a card's routes.

    Raises
    ------
    FileNotFoundError
        When there are no checkpoints, or not the one that is named; says which command makes them.
    ValueError
        When a model's verdict is failed or missing and the card does not allow that, or when no
        model passes and a route wants the best one.
    """
    routes = card.denoise.route
    if len(routes) >= NOWHERE:
        raise ValueError(f"denoise.route: {len(routes)} rules, at most {NOWHERE - 1}")
    return Plan(
        where=tuple(route.where for route in routes),
        reasons=tuple(route.reason for route in routes),
        chosen=tuple(None if r.model == "none" else _choose(card, r.model) for r in routes),
    )


def best(folder: str, among: Sequence[str] | None = None) -> str:
    """The alias of the model to prefer: lowest mean Delta_O over the noise among those that pass.

    among : aliases that may be taken; all of the folder when None.

    Raises
    ------
    ValueError
        When none passes; gives each one's reason.
    """
    known = registry.aliases(folder)
    verdicts = {
        name: verdict(Path(folder) / directory)
        for name, directory in known.items()
        if among is None or name in among
    }
    passed = {name: v.score for name, v in verdicts.items() if v is not None and v.passed}
    if passed:
        return min(passed, key=lambda name: (passed[name], name))
    said = "; ".join(f"{n}: {v.reason if v else 'no verdict'}" for n, v in verdicts.items())
    raise ValueError(f"{folder}: no model passes ({said}); train another, or name one in a route")


def verdict(path: Path) -> Verdict | None:
    """The verdict beside a checkpoint.

    Raises
    ------
    ValueError
        When it was written by another version.
    """
    found = checkpoint.load(path)
    try:
        return None if found.verdict is None else Verdict.model_validate(found.verdict)
    except ValueError as error:
        raise ValueError(
            f"{path}/{checkpoint.VERDICT}: not as this version writes it; remove it, and "
            "`specmill train` judges the model again"
        ) from error


def _choose(card: Card, model: str) -> Chosen:
    folder = card.checkpoints
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{folder}: no checkpoints; `specmill train CARD` with the card of that run makes them"
        )
    # However a route calls it, one checkpoint is one product.
    # Aliases outlive the card that made them: a run's own models are those of its card.
    own = (
        [m.name for m in card.train.model] if card.train and not card.denoise.checkpoints else None
    )
    path = registry.resolve(folder, best(folder, own) if model == "best" else model).resolve()
    said = verdict(path)
    words = "missing" if said is None else "passed" if said.passed else f"failed: {said.reason}"
    if words != "passed" and not card.denoise.unproven:
        raise ValueError(
            f"{path}: verdict {words}; a model must pass before it touches a survey "
            "(denoise.unproven = true uses it all the same, and the product says so)"
        )
    return Chosen(path=str(path), alias=path.name.rpartition("-")[0], verdict=words)
