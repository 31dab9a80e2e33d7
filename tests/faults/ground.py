"""The ground of all trials: a small survey of many blocks, its card, and what an undisturbed run
makes of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from storage.store import Survey
from storage.writer import Writer
from tests.pipeline.scene import factors, ingested, save
from tests.pipeline.stores import CONFIG

ROWS, CHUNK = 160, 20
BLOCKS = ROWS // CHUNK
MEMORY_MIB = 640
"Of a worker."
STORE = "run/survey.icechunk"
CARD = f"""
[run]
dir = "run"
commit_blocks = 2

[survey]
root = "files"
config = "{CONFIG}"

[[denoise.route]]
where = "z < 0.08"
model = "factors"

[measure]
inputs = ["raw", "denoised"]
indices = ["Dn4000", "Mgb"]

[cluster]
workers = 2
memory = "{MEMORY_MIB}MiB"
"""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """What an undisturbed run leaves."""

    groups: dict[str, Arrays]
    "Arrays of the products and indices."
    seconds: float
    "Wall time of the run."


@contextmanager
def small_chunks() -> Iterator[None]:
    """Every chunk is small, and every block one chunk: a run of seconds has many."""
    with (
        mock.patch("pipeline.stage.CHUNK_ROWS", CHUNK),
        mock.patch("pipeline.stage.block_chunks", return_value=1),
        mock.patch.object(Writer.create_group, "__defaults__", (CHUNK,)),
    ):
        yield


def make(folder: Path) -> None:
    """A survey that is ingested, a model, and a card: nothing is denoised yet."""
    run = folder / "run"
    with small_chunks():
        ingested(run, ROWS)
    save(run, "factors", factors(str(folder / STORE)))
    shutil.rmtree(run / "parts")
    (folder / "card.toml").write_text(CARD)


def products(folder: Path) -> dict[str, Arrays]:
    """Every array of the products and indices of a store."""
    survey = Survey.open(str(folder / STORE))
    made = [name for name in survey.groups() if name.split("/")[0] in ("denoised", "indices")]
    found = {}
    for group in made:
        ds = survey.dataset(group).load()
        found[group] = {str(name): ds[name].to_numpy() for name in ds.variables}
    return found
