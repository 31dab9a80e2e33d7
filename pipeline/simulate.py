"""Simulate: a mock survey with known truth, written in the survey's own files."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
import zarr

from pipeline.card import Card, digest8, read_toml, shipped
from pipeline.stage import config_of, reader
from pipeline.truth import TRUTH
from storage import schema
from storage.grid import Grid
from storage.mock import Mock
from storage.names import resolve

logger = logging.getLogger(__name__)

MARK = "simulate.json"
"The file by which simulate knows a folder that it made."
_DRAFT = ".simulate.json"
STEP_ROWS = 1024


def mock(name: str) -> tuple[Mock, str]:
    """A simulator by the name or path of its card, and the card's digest.

    Raises
    ------
    CardError
        When there is no such card.
    ValueError
        When it names an unknown mock or option.
    """
    content = read_toml(shipped("mocks", name))
    module = resolve("storage.mocks", content.pop("mock"))
    return cast(Mock, module.build(**content)), digest8({**content, "mock": module.__name__})


def is_done(card: Card) -> bool:
    """Whether the mock survey of the card is written, whole."""
    return _marked(Path(card.survey.root)) == {**_recipe(card), "complete": True}


def require_whole(root: str) -> None:
    """Refuse a folder whose simulate was broken off: half of a survey is another survey.

    Raises
    ------
    ValueError
        When simulate began the folder and did not finish it.
    """
    mark = _marked(Path(root))
    if mark is not None and not mark["complete"]:
        raise ValueError(
            f"{root}: simulate was broken off here; `specmill simulate CARD` finishes it"
        )


def simulate(card: Card) -> int:
    """Write the mock survey of a card below survey.root; gives the number of spectra.

    Raises
    ------
    ValueError
        When the folder holds anything that simulate did not put there, or another mock survey.
    """
    assert card.simulate is not None
    root, recipe = Path(card.survey.root), _recipe(card)
    _own(root, recipe)
    form, config = reader(card), config_of(card)
    grid = form.configs[config]
    names: set[str] = set()
    for observed, truth in _exposures(card, grid):
        new = set(map(str, observed["observation"].to_numpy()))
        if names & new:
            raise ValueError(
                f"{root}: {min(names & new)} is the name of two mock spectra; give run.seed "
                "another value, and survey.root a new folder"
            )
        names |= new
        form.write(observed, str(root), config)
        _keep(root / TRUTH, observed, truth)
        logger.info("%s: %d spectra", root, len(names))
    _mark(root, recipe, complete=True)
    return len(names)


def told(root: str) -> str:
    """What a mock survey was made by; empty for a folder that simulate did not make."""
    return json.dumps(_marked(Path(root)) or "", sort_keys=True)


def _exposures(card: Card, grid: Grid) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """The first exposures of all objects, then the second ones of some, in steps."""
    assert card.simulate is not None
    made, _ = mock(card.simulate.mock)
    again = round(card.simulate.repeats * card.simulate.n)
    for total, exposure in ((card.simulate.n, "first"), (again, "second")):
        for step, first in enumerate(range(0, total, STEP_ROWS)):
            n = min(STEP_ROWS, total - first)
            truth = made.truth(n, grid, card.run.seed, f"survey-{step}")
            stream = f"survey-{step}-{exposure}"
            yield made.observe(truth, grid, card.run.seed, stream), truth


def _recipe(card: Card) -> dict[str, Any]:
    assert card.simulate is not None
    _, digest = mock(card.simulate.mock)
    wanted = card.simulate.model_dump(mode="json")
    return {**wanted, "mock": digest, "seed": card.run.seed, "reader": card.survey.reader}


def _own(root: Path, recipe: dict[str, Any]) -> None:
    """Begin a folder of ours, or go on with it."""
    marked = _marked(root)
    if marked is None:
        if root.is_dir() and any(file.name != _DRAFT for file in root.iterdir()):
            raise ValueError(
                f"{root}: not empty, and not made by simulate; give survey.root a new folder"
            )
        root.mkdir(parents=True, exist_ok=True)
    elif {**marked, "complete": False} != {**recipe, "complete": False}:
        raise ValueError(
            f"{root}: holds another mock survey than the card describes; "
            "remove the folder, or give survey.root a new one"
        )
    _mark(root, recipe, complete=False)
    # Writing is not transactional here, so a broken-off truth is begun again with the files.
    if (root / TRUTH).is_dir():
        shutil.rmtree(root / TRUTH)


def _marked(root: Path) -> dict[str, Any] | None:
    """What the mark of a folder says; None where there is none."""
    mark = root / MARK
    return dict(json.loads(mark.read_text())) if mark.is_file() else None


def _mark(root: Path, recipe: dict[str, Any], *, complete: bool) -> None:
    """Say whose folder it is, whole or not at all: a mark that is cut short would lock us out."""
    draft = root / _DRAFT
    draft.write_text(json.dumps({**recipe, "complete": complete}))
    draft.replace(root / MARK)


def _keep(folder: Path, observed: xr.Dataset, truth: xr.Dataset) -> None:
    """Append the truth of a step, in the order of the files."""
    kept = truth.assign(observation=("spectrum", observed["observation"].to_numpy()))
    kept["observation"].attrs = schema.attrs(schema.COLUMNS["observation"])
    group = zarr.open_group(folder, mode="a")
    for name, variable in kept.variables.items():
        axes = [str(dim) for dim in variable.dims]
        if str(name) not in group:
            group.create_array(
                str(name),
                shape=[0 if dim == "spectrum" else variable.sizes[dim] for dim in axes],
                chunks=tuple(
                    STEP_ROWS // 2 if d == "spectrum" else variable.sizes[d] for d in axes
                ),
                dtype=str if variable.dtype.kind == "T" else variable.dtype,
                dimension_names=axes,
                attributes=dict(variable.attrs),
            )
            if "spectrum" not in axes:
                cast(zarr.Array[Any], group[str(name)])[:] = variable.to_numpy()
        if "spectrum" in axes:
            array = cast(zarr.Array[Any], group[str(name)])
            array.append(np.asarray(variable.to_numpy()))
