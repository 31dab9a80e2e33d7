"""The survey map: what a spectrum costs, stage by stage, and what the engine adds to it.

    PYTHONPATH=. python -P benchmarks/map.py [--rows 200000] [--model ppca] [--survey desi]

A store of mock spectra, as SDSS or DESI sees them, is filled from arrays; a model denoises it, and
three indices are measured on the raw spectra, on the frame and on the product. First the stages run
one after the other in one process with one thread, on the first blocks; then the engine maps all
rows with `--workers` workers of one thread. Its share is what the stages take over wall x workers.
The model has the size of the real one and has learnt nothing: only its speed is looked at.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import xarray as xr

from deploy.backends import local
from deploy.job import Resources
from pipeline import blocks, passes
from pipeline.card import Card
from pipeline.stage import config_of, target
from storage import schema
from storage.grid import Grid
from storage.names import resolve
from storage.store import Survey
from storage.writer import Writer, writing
from training import checkpoint, registry
from training.footprint import Footprint
from training.frames import named
from training.recipe import ModelCard

CARDS = Path(__file__).parents[1] / "deploy" / "cards"
GRIDS = {
    "sdss": Grid(kind="log", start=3.55, step=1e-4, size=4700),
    "desi": Grid(kind="linear", start=3600, step=0.8, size=7781),
}
MOCKS = {"sdss": "mock-v1", "desi": "mock-desi"}
DRAWN = 4096
SERIAL_BLOCKS = 4
FIELDS = {n: f for n, f in schema.SPECTRA.items() if n not in ("mask", "model")}


def drawn(survey: str) -> xr.Dataset:
    """Spectra that are written again and again."""
    options = tomllib.loads((CARDS / "mocks" / f"{MOCKS[survey]}.toml").read_text())
    mock, grid = resolve("storage.mocks", options.pop("mock")).build(**options), GRIDS[survey]
    return mock.observe(mock.truth(DRAWN, grid, 1, "map"), grid, 1, "map")


def fill(writer: Writer, rows: int, survey: str) -> None:
    """The survey, from arrays."""
    made, grid = drawn(survey), GRIDS[survey]
    about = {"grid": grid.model_dump(), "complete": True}
    group = f"spectra/{survey}"
    writer.create_group(group, schema.template(rows, grid, FIELDS), about)
    writer.commit("room", {"group": group})
    pixels = {name for name, field in FIELDS.items() if "wavelength" in field.dims}
    for first in range(0, rows, DRAWN):
        n = min(DRAWN, rows - first)
        fork = writer.fork()
        fork.write_block(group, first, {name: made[name].to_numpy()[:n] for name in pixels})
        writer.absorb([fork])
        columns = {n_: made[n_].to_numpy()[:n] for n_ in FIELDS if n_ not in pixels}
        columns["observation"] = np.array(
            [str(first + i) for i in range(n)], np.dtypes.StringDType()
        )
        writer.write_columns(group, first, columns)
        writer.commit(f"rows {first}:{first + n}", {"group": group})


def untaught(folder: Path, name: str) -> None:
    """A checkpoint of a model card, with weights drawn at random."""
    made, frame = ModelCard.load(CARDS / "models" / f"{name}.toml"), named("fs")
    torch.manual_seed(1)
    model = made.build(frame.grid)
    if name == "ppca":
        state = model.state_dict()
        noise = 0.05 * torch.randn_like(state["loading"])
        model.load_state_dict({**state, "mean": torch.ones_like(state["mean"]), "loading": noise})
    wide = Footprint(z=(-1, 9), snr_g=(-99, 999), classes=("GALAXY",), zwarn=False)
    about = checkpoint.Card(model=made.model, options=made.options, frame=frame, footprint=wide)
    path = checkpoint.save(folder / "checkpoints", name, model, about)
    registry.set_alias(folder / "checkpoints", name, path)


def card_of(folder: Path, options: argparse.Namespace) -> Card:
    return Card.model_validate(
        {
            "run": {"dir": str(folder)},
            "survey": {"root": "nowhere", "reader": options.survey},
            "denoise": {
                "route": [{"model": options.model}],
                "unproven": True,
                "precision": options.precision,
            },
            "measure": {"inputs": ["raw", "raw@frame", "denoised"]},
            "cluster": {"workers": options.workers, "threads": 1, "memory": "3GiB"},
        }
    )


class Clock:
    """Processor seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        begin = time.process_time(), time.perf_counter()
        yield
        self.spent[name] += time.process_time() - begin[0]
        self.spent["wall"] += time.perf_counter() - begin[1]


def serially(card: Card) -> tuple[Clock, int]:
    """The stages of some blocks, one after the other, here; nothing of it is committed."""
    torch.set_num_threads(1)
    clock, rows = Clock(), 0
    with writing(card.store, "serial") as writer:
        survey = Survey.open(card.store)
        steps = passes.steps_of(card, survey, passes.STAGES)
        passes.stale.prepare(writer, card, steps, survey)
        survey = Survey.open(card.store)
        work = passes.Pass(
            store=card.store, snapshot=survey.snapshot, config=config_of(card), steps=tuple(steps)
        )
        where = target(card, writer, [s.group for s in steps], GRIDS[card.survey.reader].size, 10)
        todo = blocks.pending(where)[: SERIAL_BLOCKS + 1]
        for number, block in enumerate(todo):
            # The first one pays for what is loaded once.
            own = clock if number else Clock()
            fork = writer.fork()
            with own.at("read"):
                held = work.read(block)
            with own.at("frame"):
                held.batch(named("fs"))
            for step in steps:
                with own.at("model" if step.group.startswith("denoised") else "index"):
                    held.made[step.group] = step(held)
            with own.at("write"):
                for group, ds in held.made.items():
                    pixels = {str(n): v.to_numpy() for n, v in ds.items() if is_wide(v)}
                    fork.write_block(group, block.first, pixels)
            with own.at("columns, commit"):
                writer.absorb([fork])
                for group, ds in held.made.items():
                    columns = {str(n): v.to_numpy() for n, v in ds.items() if not is_wide(v)}
                    writer.write_columns(group, block.first, columns)
                writer.commit("serial", {})
            rows += (block.last - block.first) if number else 0
        # The engine does these rows too.
        for step in steps:
            writer.reset(step.group, np.arange(todo[-1].last))
        writer.commit("again", {})
    return clock, rows


def is_wide(variable: xr.DataArray) -> bool:
    return bool({"wavelength", "latent"} & set(variable.dims))


class Watch(threading.Thread):
    """The most memory that this process and its children hold at once, MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._go = 0.0, True

    def run(self) -> None:
        me = psutil.Process()
        while self._go:
            found = 0.0
            for process in (me, *me.children(recursive=True)):
                try:
                    found += process.memory_full_info().pss / 1e6
                except psutil.Error:
                    continue
            self.most = max(self.most, found)
            time.sleep(0.5)

    def stop(self) -> float:
        self._go = False
        self.join()
        return self.most


def mapped(card: Card, folder: Path) -> tuple[float, float]:
    """Wall seconds of the engine on all rows, its workers being there; the most memory, MB."""
    watch = Watch()
    watch.start()
    with local.cluster(card.cluster.resources(), folder / "workers") as client:
        begin = time.perf_counter()
        passes.run(card, client)
        wall = time.perf_counter() - begin
    return wall, watch.stop()


def measured(rows: int, options: argparse.Namespace, show: bool) -> None:
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        card = card_of(folder, options)
        untaught(folder, options.model)
        Survey.create(card.store)
        with writing(card.store, "fill") as writer:
            fill(writer, rows, options.survey)
        clock, done = serially(card)
        wall, most = mapped(card, folder)
    spent = {name: seconds for name, seconds in clock.spent.items() if name != "wall"}
    if show:
        for name, seconds in spent.items():
            print(f"  {name:20s}{seconds / done * 1e6:8.0f} us/spectrum of one core")
    each = sum(spent.values()) / done
    share = each * rows / (wall * options.workers)
    print(
        f"  {rows} rows: stages {each * 1e6:.0f} us/spectrum (wall "
        f"{clock.spent['wall'] / done * 1e6:.0f}); engine {wall:.1f} s, "
        f"{wall * options.workers / rows * 1e6:.0f} us x worker, {rows / wall:.0f} spectra/s; "
        f"share {share:.0%}; most memory {most:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--few", type=int, default=20_000, help="for the memory; 0 is not at all")
    parser.add_argument("--model", default="ppca", help="a card of deploy/cards/models")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--survey", choices=sorted(GRIDS), default="sdss", help="whose pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default=None, help="where to write; about 70 kB a row")
    options = parser.parse_args()
    resources: Any = Resources(workers=options.workers)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}; "
        f"{options.survey}, {options.model}, {options.precision}, "
        f"{resources.workers} workers of one thread"
    )
    if options.few:
        measured(options.few, options, show=False)
    measured(options.rows, options, show=True)


if __name__ == "__main__":
    main()
