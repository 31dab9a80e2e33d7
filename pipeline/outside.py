"""Outside: a trained model on mocks beyond its footprint, and the footprint that follows.

Bin by bin in redshift, velocity dispersion and S/N, and on other surveys, Delta_O of the model is
held against a linear estimator that was taught by the very objects of that bin: what could be had.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from pipeline.card import Card, read_toml, shipped
from pipeline.card_outside import OtherSurvey, Outside
from pipeline.judges import answered, at_rest
from pipeline.outside_figure import draw
from pipeline.places import AXES, Found, Place, Range
from pipeline.stage import config_of, reader
from storage.grid import Grid
from storage.mock import Mock
from storage.names import resolve
from storage.whole import replace
from training import checkpoint, registry
from training.checkpoint import Checkpoint
from training.statistics import statistics
from training.trials import examine, linear

logger = logging.getLogger(__name__)

NUMBERS, PICTURE = "outside.json", "outside.png"
"Beside the verdict of a checkpoint."


def outside(card: Card, model: str) -> Found:
    """Try a model in every bin, and write what was found beside its verdict.

    Raises
    ------
    ValueError
        When there is no such model, or the mock of the card's verdict is not one of galaxies.
    """
    loaded = checkpoint.load(registry.resolve(card.checkpoints, model))
    table = card.outside
    form = reader(card)
    grid = form.configs[config_of(card)]
    places = [
        place for axis in ("z", "sigma_v") for place in _population(card, loaded, grid, table, axis)
    ]
    places += _snr(card, loaded, grid, table)
    places += [_other(card, loaded, table, survey) for survey in table.survey]
    found = Found(path=loaded.path, present=_present(loaded), places=tuple(places))
    write(found)
    return found


def write(found: Found) -> None:
    """The numbers and the picture, beside the verdict."""
    said = {
        "present": found.present,
        "follows": found.follows,
        "places": [_json(place) for place in found.places],
    }
    replace(found.path / NUMBERS, json.dumps(said, indent=1, allow_nan=False) + "\n")
    draw(found, found.path / PICTURE)


def _population(
    card: Card, loaded: Checkpoint, grid: Grid, table: Outside, axis: str
) -> list[Place]:
    """Bins of something that the population of the mock is drawn from."""
    found = []
    for low, high in pairwise(getattr(table, axis)):
        about: dict[str, Any] = {
            "axis": axis,
            "low": low,
            "high": high,
            "name": f"{axis} {low:g}-{high:g}",
        }
        try:
            made = _mock(card.verdict.mock, **{axis: (low, high)})
            found.append(_tried(card, loaded, made, grid, {"bin": table.at}, [about])[0])
        except _NoReference as error:
            found.append(Place(**about, worth={}, noise={}, error={}, why=str(error)))
        logger.info("%s: %s", loaded.label, _said(found[-1]))
    return found


def _snr(card: Card, loaded: Checkpoint, grid: Grid, table: Outside) -> list[Place]:
    """Bins of S/N, of one population."""
    bins = {f"{low:g}-{high:g}": (low, high) for low, high in pairwise(table.snr)}
    abouts = [
        {"axis": "snr", "low": low, "high": high, "name": f"S/N {name}"}
        for name, (low, high) in bins.items()
    ]
    found = _tried(card, loaded, _mock(card.verdict.mock), grid, bins, abouts)
    for place in found:
        logger.info("%s: %s", loaded.label, _said(place))
    return found


def _other(card: Card, loaded: Checkpoint, table: Outside, survey: OtherSurvey) -> Place:
    """Another telescope."""
    form = cast(Any, resolve("storage.readers", survey.reader)).build()
    config = survey.config or next(iter(form.configs))
    about: dict[str, Any] = {"axis": "survey", "low": 0.0, "high": 0.0, "name": survey.name}
    try:
        made = _mock(survey.mock)
        grid = form.configs[config]
        return _tried(card, loaded, made, grid, {"bin": table.at}, [about])[0]
    except _NoReference as error:
        return Place(**about, worth={}, noise={}, error={}, why=str(error))


class _NoReference(ValueError):
    """Nothing to hold a model against: the frame is not covered there."""


def _tried(
    card: Card,
    loaded: Checkpoint,
    made: Mock,
    grid: Grid,
    bins: Mapping[str, Range],
    abouts: list[dict[str, Any]],
) -> list[Place]:
    """The model on a mock, in bins of S/N."""
    table, frame, seed = card.outside, loaded.frame, card.run.seed
    with _words():
        reference = linear(made, at_rest(card, frame), grid, table.reference, seed)
    trials = answered(card, made, frame, grid, {"linear": reference}, table.n, bins)
    samples = examine(loaded.model, trials)
    with _words():
        numbers = [statistics(samples[name], seed) for name in bins]
    return [
        Place(
            **about,
            worth={name: s.worth.value for name, s in found.items()},
            noise={name: s.delta_o.value / s.noise.value for name, s in found.items()},
            error={name: s.worth.error for name, s in found.items()},
        )
        for about, found in zip(abouts, numbers, strict=True)
    ]


@contextmanager
def _words() -> Iterator[None]:
    """Too little of the frame is covered: no fault, but something to say."""
    try:
        yield
    except ValueError as error:
        raise _NoReference(str(error)) from error


def _mock(name: str, **changes: Any) -> Mock:
    """A mock of galaxies, with some of its options changed."""
    content = {**read_toml(shipped("mocks", name)), **changes}
    module = resolve("storage.mocks", content.pop("mock"))
    try:
        return cast(Mock, module.build(**content))
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise ValueError(
            f"mock {name} does not take {changes or content}: {said}; [outside] is for galaxies, "
            "in the ranges that their mock allows"
        ) from error


def _present(loaded: Checkpoint) -> dict[str, Range | None]:
    """The footprint of a model; a dispersion that it was not bounded by is not known."""
    footprint = loaded.footprint
    if footprint is None:
        return dict.fromkeys(AXES)
    ceiling = footprint.snr_ceiling
    high = footprint.snr_g[1] if ceiling is None else min(ceiling, footprint.snr_g[1])
    return {
        "z": footprint.z,
        "sigma_v": footprint.vdisp,
        "snr": (footprint.snr_g[0], max(high, footprint.snr_g[0])),
    }


def _json(place: Place) -> dict[str, Any]:
    """A place as JSON has it: no NaN."""
    ratios = {
        part: {name: value if np.isfinite(value) else None for name, value in of.items()}
        for part, of in (("worth", place.worth), ("noise", place.noise), ("error", place.error))
    }
    return {**asdict(place), **ratios, "holds": place.holds}


def _said(place: Place) -> str:
    if not place.worth:
        return f"{place.name}: {place.why}"
    ratios = ", ".join(f"{name} {value:.2f}" for name, value in place.worth.items())
    return f"{place.name}: Delta_O over the linear reference {ratios}"
