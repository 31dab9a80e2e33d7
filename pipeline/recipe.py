"""Recipes: what the values of a group depend on, so that only what is stale is made again.

A recipe holds the keys of the card that matter to the group, the checkpoint and the version of the
code. The rows of its input are not in it: whoever changes one makes it pending downstream.
"""

from typing import Any

from pipeline import denoise, measure, route
from pipeline.denoise import Denoise
from pipeline.measure import Measure

Recipe = dict[str, Any]
BY_ROW = frozenset({"routes", "outside"})
"Keys that say which rows a model takes: what they change is known row by row."


def recipe(step: Denoise | Measure) -> Recipe:
    """What a step's group depends on."""
    return _of_product(step) if isinstance(step, Denoise) else _of_indices(step)


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
    found: Recipe = {"indices": list(step.names), "version": measure.VERSION}
    if step.input.checkpoint:
        found |= {"draws": step.draws, "seed": step.seed}
        found |= {"denoise": denoise.VERSION, "precision": step.precision}
    return found


def _models(plan: route.Plan) -> list[str]:
    return [chosen.name if chosen else "" for chosen in plan.chosen]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
