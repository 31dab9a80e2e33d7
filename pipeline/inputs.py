"""Inputs: what can be measured, by the names that cards use."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline import route
from pipeline.card import Card
from pipeline.denoise import group_of
from pipeline.held import Held
from pipeline.product import loaded
from pipeline.stage import config_of
from storage.schema import ObjectType, Reason, Status
from storage.store import Survey
from training.frame import Frame
from training.frames import named


@dataclass(frozen=True, kw_only=True)
class Input:
    """One thing to measure on."""

    name: str
    "The name of its group: raw, raw@<frame>, truth@<frame>, model@<frame>, <model>-<digest8>."
    group: str
    "The group that its flux is in."
    variable: str
    "The variable of that group."
    alias: str
    "How people call it."
    frame: Frame | None = None
    "The frame it is put on; None: measured where it is."
    checkpoint: str = ""
    "Folder of the checkpoint that made it."


def inputs(
    card: Card,
    survey: Survey,
    plan: route.Plan | None = None,
    making: Container[str] = (),
    key: Literal["inputs", "lines"] = "inputs",
) -> list[Input]:
    """What the card wants measured, of what the survey holds, or of products in the making.

    What is measured `@frame` is so on the frame of every model that the routes name, since a
    product is compared on its own; on the card's frame where no product is measured.

    plan : the routes; the card's when None.
    key : the list of the card's table: inputs of indices, or of emission lines.

    Raises
    ------
    ValueError
        When an input has no such name.
    """
    chosen = _chosen(card, plan)
    frames = dict.fromkeys(loaded(one.path).frame for one in chosen) or [named(card.frame.name)]
    known = _known(config_of(card), list(frames))
    found = []
    for name in getattr(card.measure, key):
        if name == "denoised":
            found += [_product(survey, config_of(card), one, making) for one in chosen]
        elif name not in known:
            raise ValueError(f"measure.{key}: no {name!r} (there: {', '.join(known)}, denoised)")
        else:
            # A real survey has no truth; a card may ask for it all the same.
            found += [one for one in known[name] if one.group in survey]
    return found


def ledger(held: Held, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Status and reason (N,) of what is measured in a group: its done rows of the sky's objects."""
    before = held.values(group, "status")
    quarantined = held.values(held.spectra, "status") == Status.QUARANTINED
    science = held.values(held.spectra, "object_type") == ObjectType.SCIENCE
    cases = [quarantined, ~science, before != Status.DONE]
    reasons = [Reason.UPSTREAM_QUARANTINED, Reason.NOT_SCIENCE, Reason.UPSTREAM_NOT_APPLICABLE]
    code = np.select(cases, reasons, Reason.NONE).astype("u2")
    status = np.where(code == Reason.NONE, Status.DONE, Status.NOT_APPLICABLE).astype("u1")
    return status, code


def _chosen(card: Card, plan: route.Plan | None) -> tuple[route.Chosen, ...]:
    """The models whose products are measured."""
    if "denoised" not in (*card.measure.inputs, *card.measure.lines):
        return ()
    return (plan or route.plan(card)).checkpoints


def _known(config: str, frames: Sequence[Frame]) -> dict[str, list[Input]]:
    """What there is beside products, by the names that cards use."""
    spectra, truth = f"spectra/{config}", f"truth/{config}"
    return {
        "raw": [Input(name="raw", group=spectra, variable="flux", alias="raw")],
        "raw@frame": [_framed("raw", spectra, "flux", frame) for frame in frames],
        "truth@frame": [_framed("truth", truth, "flux", frame) for frame in frames],
        "model@frame": [_framed("model", spectra, "model", frame) for frame in frames],
    }


def _framed(alias: str, group: str, variable: str, frame: Frame) -> Input:
    name = f"{alias}@{frame.label}"
    return Input(
        name=name, group=group, variable=variable, alias=f"{alias}@{frame.name}", frame=frame
    )


def _product(survey: Survey, config: str, chosen: route.Chosen, making: Container[str]) -> Input:
    group = group_of(config, chosen)
    if group in making:
        return _made(group, chosen)
    if group not in survey:
        raise ValueError(f"{survey.path}: no {group}; `specmill denoise` makes it")
    if (survey.dataset(group)["status"] == Status.PENDING).any():
        raise ValueError(f"{survey.path}: {group} is not finished; `specmill denoise` goes on")
    return _made(group, chosen)


def _made(group: str, chosen: route.Chosen) -> Input:
    return Input(
        name=group.rsplit("/", 1)[-1],
        group=group,
        variable="flux",
        alias=chosen.alias,
        checkpoint=chosen.path,
    )
