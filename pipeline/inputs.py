"""Inputs: what can be measured, by the names that cards use."""

from collections.abc import Container
from dataclasses import dataclass

from pipeline import route
from pipeline.card import Card
from pipeline.denoise import group_of
from pipeline.stage import config_of
from storage.schema import Status
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
    card: Card, survey: Survey, plan: route.Plan | None = None, making: Container[str] = ()
) -> list[Input]:
    """What the card wants measured, of what the survey holds, or of products in the making.

    plan : the routes; the card's when None.

    Raises
    ------
    ValueError
        When an input has no such name.
    """
    config, frame = config_of(card), named(card.frame.name)
    spectra, truth = f"spectra/{config}", f"truth/{config}"
    known = {
        "raw": Input(name="raw", group=spectra, variable="flux", alias="raw"),
        "raw@frame": _framed("raw", spectra, "flux", frame),
        "truth@frame": _framed("truth", truth, "flux", frame),
        "model@frame": _framed("model", spectra, "model", frame),
    }
    found = []
    for name in card.measure.inputs:
        if name == "denoised":
            found += [
                _product(survey, config, c, making) for c in (plan or route.plan(card)).checkpoints
            ]
        elif name not in known:
            raise ValueError(f"measure.inputs: no {name!r} (there: {', '.join(known)}, denoised)")
        # A real survey has no truth; a card may ask for it all the same.
        elif known[name].group in survey:
            found.append(known[name])
    return found


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
