"""Recipes: what the values of a group depend on, so that only what is stale is made again.

A recipe holds the keys of the card that matter to the group, the checkpoint and the version of the
code. The rows of its input are not in it: whoever changes one makes it pending downstream.
"""

from typing import Any

from pipeline import denoise, line_stage, measure, route, star_stage
from pipeline.denoise import Denoise
from pipeline.infill import MeasureFilled
from pipeline.line_stage import MeasureLines
from pipeline.lines import fit
from pipeline.measure import Measure
from pipeline.star_stage import MeasureStars

Recipe = dict[str, Any]
Step = Denoise | Measure | MeasureLines | MeasureStars
"One group that is made of others."
BY_ROW = frozenset({"routes", "outside"})
"Keys that say which rows a model takes: what they change is known row by row."


def recipe(step: Step) -> Recipe:
    """What a step's group depends on."""
    match step:
        case Denoise():
            return _of_product(step)
        case Measure():
            return _of_indices(step)
        case MeasureLines():
            return _of_lines(step)
        case MeasureStars():
            return _of_stars(step)


def differences(was: object, now: Recipe) -> dict[str, str]:
    """The keys that differ, each with what was and what is, in words."""
    if not isinstance(was, dict):
        return {"version": "made by an earlier version of specmill"}
    return {
        key: f"{key}: {_words(was.get(key))} -> {_words(now.get(key))}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    }


def _of_product(step: Denoise) -> Recipe:
    return {
        # A checkpoint by its name, which has its digest in it: a run may be moved.
        "routes": [list(rule) for rule in zip(step.plan.where, _models(step.plan), strict=True)],
        "outside": step.outside,
        "precision": step.asked,
        "version": denoise.VERSION,
    }


def _of_indices(step: Measure) -> Recipe:
    found = step.rules.recipe | {"version": measure.VERSION, **_of_input(step)}
    if isinstance(step, MeasureFilled):
        found["emission"] = _of_lines(step.lines)
    # What mocks say of the errors may be learnt anew, beside the same checkpoint.
    return found | ({"errors": step.errors} if step.input.checkpoint else {})


def _of_lines(step: MeasureLines) -> Recipe:
    return {
        "version": f"{fit.VERSION}.{line_stage.VERSION}",
        "templates": step.stars.recipe,
        **_of_input(step),
    }


def _of_stars(step: MeasureStars) -> Recipe:
    return {"version": star_stage.VERSION, **step.templates.recipe, **_of_pixels(step)}


def _of_input(step: Measure | MeasureLines) -> Recipe:
    """What the numbers of a denoised input depend on beside its pixels."""
    drawn = {"draws": step.draws, "seed": step.seed} if step.input.checkpoint else {}
    return {**drawn, **_of_pixels(step)}


def _of_pixels(step: Measure | MeasureLines | MeasureStars) -> Recipe:
    """How the pixels of a denoised input were made."""
    if not step.input.checkpoint:
        return {}
    return {"denoise": denoise.VERSION, "precision": step.precision}


def _models(plan: route.Plan) -> list[str]:
    return [chosen.name if chosen else "" for chosen in plan.chosen]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
