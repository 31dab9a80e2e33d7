"""Indices without the emission that fills them in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.block import Block
from pipeline.card import Card
from pipeline.infill import MeasureFilled
from pipeline.lines.line_list import number
from pipeline.measure import Measure
from pipeline.passes import Pass, steps_of
from pipeline.recipe import differences, recipe
from storage.schema import Status
from storage.store import Survey
from tests.pipeline.scene import card_of, factors, ingested, save
from tests.pipeline.stores import CONFIG

N = 24
HBETA = number("Hbeta")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("infill")
    save(found, "factors", factors(ingested(found, N)))
    return found


def card(folder: Path, **measure: Any) -> Card:
    table = {
        "inputs": ["raw", "raw@frame", "denoised"],
        "indices": ["Hbeta"],
        "lines": ["raw", "raw@frame", "denoised"],
        "emission": "subtract",
        **measure,
    }
    return card_of(folder, {"model": "factors"}, measure=table)


def made(asked: Card) -> dict[str, xr.Dataset]:
    """Groups by their kind and the beginning of their input."""
    survey = Survey.open(asked.store)
    steps = tuple(steps_of(asked, survey, ["denoise", "measure"]))
    work = Pass(store=asked.store, snapshot=survey.snapshot, config=CONFIG, steps=steps)
    block = Block(first=0, last=N, groups=frozenset(step.group for step in steps))
    found = work(block, work.read(block))
    return {_key(group): ds for group, ds in found.items()}


def _key(group: str) -> str:
    return f"{group.split('/')[0]}/{group.split('/')[2].partition('-')[0]}"


@pytest.fixture(scope="module")
def kept(folder: Path) -> dict[str, xr.Dataset]:
    return made(card(folder, emission="keep"))


@pytest.fixture(scope="module")
def taken(folder: Path) -> dict[str, xr.Dataset]:
    return made(card(folder))


@pytest.mark.parametrize("name", ["raw", "raw@fs", "factors"])
def test_an_index_grows_by_the_line_that_filled_it(
    kept: dict[str, xr.Dataset], taken: dict[str, xr.Dataset], name: str
) -> None:
    width = taken[f"lines/{name}"]["ew"].to_numpy()[:, HBETA]
    change = (taken[f"indices/{name}"]["value"] - kept[f"indices/{name}"]["value"]).to_numpy()[:, 0]
    strong = np.nan_to_num(width) > 2
    assert strong.sum() >= 4
    # An equivalent width against straight side bands is not quite one against fitted starlight.
    np.testing.assert_allclose(change[strong], width[strong], rtol=0.2)


def test_lines_and_ledger_are_the_same_either_way(
    kept: dict[str, xr.Dataset], taken: dict[str, xr.Dataset]
) -> None:
    for name in ("lines/raw", "lines/raw@fs", "denoised/factors"):
        assert kept[name].equals(taken[name]), name
    status = taken["indices/raw"]["status"]
    assert status.equals(kept["indices/raw"]["status"])
    assert np.isnan(taken["indices/raw"]["value"].to_numpy()[(status != Status.DONE)]).all()


def test_only_inputs_with_lines_lose_them(folder: Path) -> None:
    asked = card(folder, lines=["raw"])
    steps = steps_of(asked, Survey.open(asked.store), ["measure", "denoise"])
    filled = {s.input.alias for s in steps if isinstance(s, Measure)}
    assert filled == {"raw", "raw@fs", "factors"}
    assert {s.input.alias for s in steps if isinstance(s, MeasureFilled)} == {"raw"}


def test_taking_them_out_is_another_recipe(folder: Path) -> None:
    recipes = [
        recipe(next(s for s in steps if s.group == f"indices/{CONFIG}/raw"))
        for steps in (
            steps_of(card(folder, emission=how, inputs=["raw"], lines=["raw"]), survey, ["measure"])
            for how in ("keep", "subtract")
            for survey in [Survey.open(card(folder).store)]
        )
    ]
    assert differences(*recipes).keys() == {"emission"}
    assert differences(recipes[1], recipes[1]) == {}
