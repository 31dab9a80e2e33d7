"""Outside: trained models on mocks beyond their footprints, and the footprint that follows.

Bin by bin in redshift, velocity dispersion and S/N, and on other surveys, Delta_O of a model is
held against a linear estimator that was taught by the very objects of that bin: what could be had.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from pipeline.card import Card, read_toml, shipped
from pipeline.card_outside import OtherSurvey
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
from training.frame import Frame
from training.statistics import statistics
from training.trials import Trials, examine, linear

logger = logging.getLogger(__name__)

NUMBERS, PICTURE = "outside.json", "outside.png"
"Beside the verdict of a checkpoint."

About = dict[str, Any]
"Where a place is: axis, low, high and name, as `Place` has them."


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Mocks of one or more bins: every model of a frame is shown the same."""

    bins: Mapping[str, About]
    "By bin of the trials, the place that it is."
    trials: Trials | None
    "None where there is nothing to hold a model against."
    why: str = ""
    "Why not."

    def places(self, loaded: Checkpoint, seed: int) -> list[Place]:
        """What a model does there."""
        if self.trials is None:
            return [_nothing(about, self.why) for about in self.bins.values()]
        samples = examine(loaded.model, self.trials)
        found = []
        for name, about in self.bins.items():
            try:
                of = statistics(samples[name], seed)
            except ValueError as error:
                # Too little of the frame is covered: no fault, but something to say.
                found.append(_nothing(about, str(error)))
                continue
            place = Place(
                **about,
                worth={index: s.worth.value for index, s in of.items()},
                noise={index: s.delta_o.value / s.noise.value for index, s in of.items()},
                error={index: s.worth.error for index, s in of.items()},
            )
            found.append(place)
            logger.info("%s: %s", loaded.label, _said(place))
        return found


def outside(card: Card, models: Sequence[str] = ()) -> list[Found]:
    """Try models in every bin, and write what was found of each beside its verdict.

    models : names, directories or digests; those of the card when there is none.

    Raises
    ------
    ValueError
        When there is no such model, or the mock of the card's verdict is not one of galaxies.
    """
    loaded = [checkpoint.load(registry.resolve(card.checkpoints, m)) for m in models or own(card)]
    places: dict[str, list[Place]] = {one.label: [] for one in loaded}
    for frame in dict.fromkeys(one.frame for one in loaded):
        for scene in _scenes(card, frame):
            for one in loaded:
                if one.frame == frame:
                    places[one.label] += scene.places(one, card.run.seed)
    found = [
        Found(
            path=one.path,
            present=_present(one),
            at=card.outside.at,
            places=tuple(places[one.label]),
        )
        for one in loaded
    ]
    for each in found:
        write(each)
    return found


def own(card: Card) -> list[str]:
    """The models of a card: those that it trains, or all of its folder of checkpoints.

    Raises
    ------
    ValueError
        When there is none.
    """
    names = [model.name for model in card.train.model] if card.train else []
    found = names or sorted(registry.aliases(card.checkpoints))
    if not found:
        raise ValueError(f"no checkpoint in {card.checkpoints}; `specmill train` makes them")
    return found


def write(found: Found) -> None:
    """The numbers and the picture, beside the verdict."""
    said = {
        "present": found.present,
        "follows": found.follows,
        "tried": found.tried,
        "at": found.at,
        "places": [_json(place) for place in found.places],
    }
    replace(found.path / NUMBERS, json.dumps(said, indent=1, allow_nan=False) + "\n")
    draw(found, found.path / PICTURE)


def _scenes(card: Card, frame: Frame) -> Iterator[Scene]:
    """All that the models of a frame are shown, one at a time: the trials are large."""
    table = card.outside
    grid = reader(card).configs[config_of(card)]
    for axis in ("z", "sigma_v"):
        for low, high in pairwise(getattr(table, axis)):
            about = _about(axis, low, high, f"{axis} {low:g}-{high:g}")
            made = _mock(card.verdict.mock, **{axis: (low, high)})
            yield _scene(card, frame, made, grid, {"bin": table.at}, {"bin": about})
    ranges = {f"{low:g}-{high:g}": (low, high) for low, high in pairwise(table.snr)}
    abouts = {name: _about("snr", *ends, f"S/N {name}") for name, ends in ranges.items()}
    yield _scene(card, frame, _mock(card.verdict.mock), grid, ranges, abouts)
    for survey in table.survey:
        about = _about("survey", 0.0, 0.0, survey.name)
        made, there = _mock(survey.mock), _grid(survey)
        yield _scene(card, frame, made, there, {"bin": table.at}, {"bin": about})


def _scene(
    card: Card,
    frame: Frame,
    made: Mock,
    grid: Grid,
    ranges: Mapping[str, Range],
    bins: Mapping[str, About],
) -> Scene:
    """A mock in bins of S/N, and what a reference that it has taught answers."""
    table = card.outside
    try:
        reference = linear(made, at_rest(card, frame), grid, table.reference, card.run.seed)
    except ValueError as error:
        return Scene(bins=bins, trials=None, why=str(error))
    trials = answered(card, made, frame, grid, {"linear": reference}, table.n, ranges)
    return Scene(bins=bins, trials=trials)


def _about(axis: str, low: float, high: float, name: str) -> About:
    return {"axis": axis, "low": low, "high": high, "name": name}


def _nothing(about: About, why: str) -> Place:
    return Place(**about, worth={}, noise={}, error={}, why=why)


def _grid(survey: OtherSurvey) -> Grid:
    """The wavelengths of another telescope."""
    form = cast(Any, resolve("storage.readers", survey.reader)).build()
    return cast(Grid, form.configs[survey.config or next(iter(form.configs))])


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
    """The footprint of a model; a dispersion that it is not bounded by is None."""
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
    ratios = ", ".join(f"{name} {value:.2f}" for name, value in place.worth.items())
    return f"{place.name}: Delta_O over the linear reference {ratios}"
