"""Coverage: what each route of a card takes, and what becomes of it."""

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from pipeline import passes, route
from pipeline.card import Card
from pipeline.denoise import Denoise
from pipeline.product import ABOVE_CEILING, EXTRAPOLATED, MISFIT
from pipeline.stage import config_of
from storage import schema
from storage.schema import ObjectType, Reason, Status
from storage.store import Survey

COLUMNS = ("spectra", "done", "outside", "extrapolated", "above ceiling", "misfit", "quarantined")


def coverage(card: Card) -> Table:
    """A line per route: spectra that its rule takes, and what its model made of them.

    Raises
    ------
    ValueError, FileNotFoundError
        As `route.plan`.
    """
    plan = route.plan(card)
    table = Table("route", "model", *COLUMNS)
    for name, model, counts in _lines(card, plan):
        table.add_row(name, model, *(str(count) if count is not None else "" for count in counts))
    return table


def _lines(card: Card, plan: route.Plan) -> Iterator[tuple[str, str, list[int | None]]]:
    survey, config = Survey.open(card.store), config_of(card)
    spectra = f"spectra/{config}"
    names = sorted({"status", "object_type", *plan.columns(schema.COLUMNS)})
    columns = {name: survey.read_column(spectra, name) for name in names}
    rows = survey.rows(spectra)
    number = plan.numbers(columns, rows)
    usable = (columns["status"] == Status.DONE) & (columns["object_type"] == ObjectType.SCIENCE)
    products = {
        step.chosen: step
        for step in passes.steps_of(card, survey, ["denoise"], plan)
        if isinstance(step, Denoise)
    }
    for at, where in enumerate(plan.where):
        mine, chosen, rule = usable & (number == at), plan.chosen[at], where or "all others"
        if chosen is None:
            yield rule, f"none: {plan.reasons[at]}", _taken(mine)
        else:
            yield rule, chosen.name, _counts(mine, survey, products[chosen].group)
    yield "no rule fits", "none", _taken(usable & (number == route.NOWHERE))
    yield "no targets, or bad", "none", _taken(~usable)


def _taken(mine: np.ndarray) -> list[int | None]:
    return [int(mine.sum())] + [None] * (len(COLUMNS) - 1)


def _counts(mine: np.ndarray, survey: Survey, group: str) -> list[int | None]:
    if group not in survey:
        return _taken(mine)
    status, code, flag = (survey.read_column(group, n) for n in ("status", "reason_code", "flag"))
    marks = [mine & (flag & bit > 0) for bit in (EXTRAPOLATED, ABOVE_CEILING, MISFIT)]
    found = [
        mine,
        mine & (status == Status.DONE),
        mine & (code == Reason.OUTSIDE_FOOTPRINT),
        *marks,
        mine & (status == Status.QUARANTINED),
    ]
    return [int(one.sum()) for one in found]
