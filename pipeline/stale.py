"""Stale: what of a survey's products must be made again, and why; and making room for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import line_group, star_group
from pipeline.card import Card
from pipeline.denoise import Columns, Denoise
from pipeline.index import Flag
from pipeline.infill import MeasureFilled
from pipeline.line_stage import MeasureLines
from pipeline.measure import Measure, indices
from pipeline.precise import known
from pipeline.product import EXTRAPOLATED, loaded, product
from pipeline.recipe import BY_ROW, Step, differences, recipe
from pipeline.stage import origin
from pipeline.star_stage import MeasureStars
from storage.schema import Reason, Status
from storage.store import Survey
from storage.writer import Writer

_ROUTED = (
    Reason.UPSTREAM_QUARANTINED,
    Reason.UPSTREAM_NOT_APPLICABLE,
    Reason.NOT_SCIENCE,
    Reason.ROUTED_NOWHERE,
    Reason.ROUTED_ELSEWHERE,
)


@dataclass(frozen=True, kw_only=True)
class Stale:
    """Rows of a group that are to be made."""

    group: str
    rows: int
    why: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.group}: {self.rows} rows ({'; '.join(self.why)})"


def look(steps: Iterable[Step], there: Columns) -> list[Stale]:
    """What the steps have to do, in order; reads the ledger and the columns of the rules."""
    found: list[Stale] = []
    moved: dict[str, NDArray[np.bool_]] = {}
    for step in steps:
        if step.group not in there:
            found.append(Stale(group=step.group, rows=_rows(step, there), why=("not there yet",)))
            continue
        rows, why = _look(step, there, moved)
        if rows or why:
            found.append(Stale(group=step.group, rows=rows, why=why))
    return found


def prepare(writer: Writer, card: Card, steps: Sequence[Step], survey: Survey) -> None:
    """Make room for what is missing, and pending what is stale; commits it.

    Rows of a changed rule alone are done again when the rules are all that changed.
    """
    for step in steps:
        if step.group not in writer:
            _create(writer, card, step, survey)
            continue
        changed = differences(writer.attrs(step.group).get("recipe"), recipe(step))
        if changed.keys() - BY_ROW:
            writer.delete_group(step.group)
            _create(writer, card, step, survey)
        elif changed and isinstance(step, Denoise):
            _reroute(writer, step, steps)
        _note_verdict(writer, step)


def _look(
    step: Step, there: Columns, moved: dict[str, NDArray[np.bool_]]
) -> tuple[int, tuple[str, ...]]:
    pending = there.read_column(step.group, "status") == Status.PENDING
    changed = differences(there.attrs(step.group).get("recipe"), recipe(step))
    if changed.keys() - BY_ROW:
        moved[step.group] = np.ones(len(pending), bool)
        return len(pending), tuple(changed.values())
    why = list(changed.values())
    rows = pending.copy()
    if changed and isinstance(step, Denoise):
        rows |= _moved(step, there)
    if not isinstance(step, Denoise) and step.input.group in moved:
        rows |= moved[step.input.group]
        why.append(f"rows of {step.input.group} are made again")
    elif pending.any():
        why.append(f"{int(pending.sum())} pending: new or changed files, or a pass broken off")
    if isinstance(step, Denoise) and rows.any():
        moved[step.group] = rows
    if isinstance(step, Denoise) and _verdict_changed(step, there):
        why.append(f"verdict is now {step.chosen.verdict}")
    return int(rows.sum()), tuple(why)


def _rows(step: Step, there: Columns) -> int:
    source = f"spectra/{step.config}" if isinstance(step, Denoise) else step.input.group
    return there.rows(source if source in there else f"spectra/{step.config}")


def _moved(step: Denoise, there: Columns) -> NDArray[np.bool_]:
    """Rows that the rules now give to the model and did not, or the other way round."""
    _, code, _ = step.routed(there)
    was = there.read_column(step.group, "reason_code")
    done = there.read_column(step.group, "status") != Status.PENDING
    moved = np.isin(was, _ROUTED) != (code != Reason.NONE)
    if there.attrs(step.group)["recipe"].get("outside") != step.outside:
        flag = there.read_column(step.group, "flag")
        moved |= (was == Reason.OUTSIDE_FOOTPRINT) | (flag & EXTRAPOLATED > 0)
    return np.asarray(done & moved)


def _reroute(writer: Writer, step: Denoise, steps: Sequence[Step]) -> None:
    """Rows that changed hands are pending; the others are told their rule anew."""
    _, code, number = step.routed(writer)
    moved = _moved(step, writer)
    ledger = {n: writer.read_column(step.group, n) for n in ("reason_code", "reason", "status")}
    told = ~moved & (code != Reason.NONE) & (ledger["status"] != Status.PENDING)
    ledger["reason_code"][told] = code[told]
    ledger["reason"][told] = step.plan.words(number, code)[told]
    writer.write_columns(step.group, 0, {**ledger, "route": number})
    below = [s.group for s in steps if not isinstance(s, Denoise) and s.input.group == step.group]
    for group in [step.group, *_measured(writer, step, below)]:
        writer.reset(group, moved)
    writer.set_attrs(step.group, {"recipe": recipe(step)})
    writer.commit(
        f"{step.group}: {int(moved.sum())} rows have another route", {"group": step.group}
    )


def _measured(writer: Writer, step: Denoise, known: Sequence[str]) -> list[str]:
    """Groups of what is measured on a product, for this card or another."""
    kinds = ("indices/", "lines/", "stars/")
    names = [step.group.replace("denoised/", kind, 1) for kind in kinds]
    return sorted({group for group in (*known, *names) if group in writer})


def _create(writer: Writer, card: Card, step: Step, survey: Survey) -> None:
    rows = survey.rows(f"spectra/{step.config}")
    match step:
        case Denoise():
            _room_for_product(writer, card, step, survey)
        case Measure():
            _room_for_indices(writer, card, step, survey)
        case MeasureLines():
            about = line_group.about(step.input, step.stars)
            about |= _of_input(writer, card, step, survey)
            writer.create_group(step.group, line_group.lines(rows), about)
        case MeasureStars():
            about = star_group.about(step.input, step.templates)
            about |= _of_input(writer, card, step, survey)
            writer.create_group(step.group, star_group.stars(rows), about)
    writer.commit(f"{step.group}: room for {rows} rows", {"group": step.group})


def _room_for_product(writer: Writer, card: Card, step: Denoise, survey: Survey) -> None:
    model, spectra = loaded(step.chosen.path), f"spectra/{step.config}"
    rows = survey.rows(spectra)
    about = {
        "recipe": recipe(step),
        "alias": step.chosen.alias,
        "checkpoint": model.label,
        "checkpoint_digest": model.digest,
        "verdict": step.chosen.verdict,
        "frame": model.frame.label,
        "frame_json": model.frame.model_dump(mode="json"),
        "grid": model.frame.grid.model_dump(mode="json"),
        "input": spectra,
        "input_snapshot": survey.snapshot,
        **known(step),
        **origin(card),
    }
    writer.create_group(step.group, product(rows, model), about)


def _room_for_indices(writer: Writer, card: Card, step: Measure, survey: Survey) -> None:
    about = {
        "units": step.rules.units,
        "flags": {int(flag): flag.name for flag in Flag},
        "emission_subtracted": isinstance(step, MeasureFilled),
        **_of_input(writer, card, step, survey),
    }
    rows = survey.rows(f"spectra/{step.config}")
    made = indices(rows, step.names, bool(step.input.checkpoint))
    writer.create_group(step.group, made, about)


def _of_input(
    writer: Writer, card: Card, step: Measure | MeasureLines | MeasureStars, survey: Survey
) -> dict[str, Any]:
    """What every group says of what it was measured on."""
    given, upstream = step.input, writer.attrs(step.input.group)
    return {
        "recipe": recipe(step),
        "input": given.group,
        "input_snapshot": survey.snapshot,
        "alias": given.alias,
        "frame": given.frame.label if given.frame else upstream.get("frame", ""),
        "checkpoint_digest": upstream.get("checkpoint_digest", ""),
        **origin(card),
    }


def _verdict_changed(step: Denoise, there: Columns) -> bool:
    return bool(there.attrs(step.group).get("verdict") != step.chosen.verdict)


def _note_verdict(writer: Writer, step: Step) -> None:
    if isinstance(step, Denoise) and _verdict_changed(step, writer):
        writer.set_attrs(step.group, {"verdict": step.chosen.verdict})
        writer.commit(f"{step.group}: verdict {step.chosen.verdict}", {"group": step.group})
