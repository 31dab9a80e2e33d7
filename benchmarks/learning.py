"""Training: whether the loader keeps up with the network.

    PYTHONPATH=. python -P benchmarks/learning.py [--rows 12288] [--repeats 2] [--augment]

A store of SDSS-like mock spectra is filled from arrays; FS (the dense network of Camilleri+2025 at
its full widths, batches of 128, float32, fused Adam) learns from it through `Batches`: a first
epoch, which reads the store and keeps what it put on the frame; one from what was kept; and one
from what was kept after the system was told to forget it, so that it comes from the disk. In turns
with them it takes the same steps on the same batches, all in memory. The share is the rate of the
one over that of the other. `--augment` draws split noise anew every epoch. Where all cores are busy
with the network, the loader's processor time is what is lost: it is measured alone as well, and
moves less with the load of a machine. Every epoch waits for its first window of 2048 spectra, so
a short one is fed worse than a long one.
"""

import argparse
import os
import platform
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import torch

from storage import schema
from storage.grid import Grid
from storage.names import resolve
from storage.store import Survey
from storage.writer import writing
from training.augment import Augment
from training.batch import Batch
from training.batches import Batches
from training.frames import named
from training.kept import Kept
from training.recipe import ModelCard
from training.source import NAMES, StoreSource

CARDS = Path(__file__).parents[1] / "deploy" / "cards"
GRID = Grid(kind="log", start=3.55, step=1e-4, size=4700)
CONFIG = "sdss"
DRAWN = 2048
SIZE = 128
WARM = 5


def fill(store: str, rows: int) -> None:
    """A survey of what a frame needs, drawn once and written again and again."""
    options = tomllib.loads((CARDS / "mocks" / "mock-v1.toml").read_text())
    mock = resolve("storage.mocks", options.pop("mock")).build(**options)
    made = mock.observe(mock.truth(DRAWN, GRID, 1, "bench"), GRID, 1, "bench")
    group, fields = f"spectra/{CONFIG}", {n: schema.SPECTRA[n] for n in NAMES}
    Survey.create(store)
    with writing(store, "fill") as writer:
        writer.create_group(group, schema.template(rows, GRID, fields), {"grid": GRID.model_dump()})
        writer.commit("room")
        for first in range(0, rows, DRAWN):
            arrays = {name: made[name].to_numpy()[: rows - first] for name in NAMES}
            fork = writer.fork()
            fork.write_block(group, first, {name: arrays[name] for name in ("flux", "ivar")})
            writer.absorb([fork])
            writer.write_columns(group, first, {name: arrays[name] for name in ("z", "ebv")})
            writer.commit("rows")


class Learner:
    """FS and its way down."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        card = ModelCard.load(CARDS / "models" / "fs.toml")
        self.model = card.build(named("fs").grid)
        self.descent = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=True)

    def learn(self, batches: Iterable[Batch]) -> tuple[int, float]:
        """Steps, and seconds of all of it."""
        steps, begin = 0, time.perf_counter()
        for batch in batches:
            self.descent.zero_grad(set_to_none=True)
            self.model.loss(batch).backward()
            self.descent.step()
            steps += 1
        return steps, time.perf_counter() - begin


def from_store(store: str, augment: Augment) -> Batches:
    survey = Survey.open(store)
    return Batches(
        source=StoreSource(path=store, config=CONFIG, snapshot=survey.snapshot),
        rows=np.arange(survey.rows(f"spectra/{CONFIG}")),
        frame=named("fs"),
        batch_size=SIZE,
        augment=augment,
    )


def forget(folder: str | Path) -> None:
    """Have the system read the files in a folder from disk again."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ways(store: str, given: Batches) -> Iterator[tuple[str, Batches]]:
    """The first epoch, from the store; the next; and the next from the disk."""
    with tempfile.TemporaryDirectory(dir=Path(store).parent) as place:
        folder = Path(place) / "kept"
        learning = replace(given, kept=Kept(folder=folder, limit=64 << 30))
        forget(store)
        yield "first epoch", learning
        yield "next", learning
        forget(folder)
        yield "next, forgotten", learning


def fed(store: str, options: argparse.Namespace) -> None:
    """Step rates, and what the loader costs alone."""
    given = from_store(store, Augment(noise="split") if options.augment else Augment())
    in_memory = list(given.epoch(0))
    network = Learner(options.threads)
    network.learn(in_memory[:WARM])
    rates, beside, spent, first = (defaultdict[str, list[float]](list) for _ in range(4))
    cost = float("inf")
    for _ in range(options.repeats):
        for way, batches in ways(store, given):
            begin = time.process_time()
            steps, seconds = network.learn(in_memory)
            cost = min(cost, (time.process_time() - begin) / steps)
            beside[way].append(steps / seconds)
            steps, seconds = network.learn(batches.epoch(0))
            rates[way].append(steps / seconds)
        for way, batches in ways(store, given):
            begin, clock = time.process_time(), time.perf_counter()
            coming = batches.epoch(0)
            next(coming)
            first[way].append(time.perf_counter() - clock)
            steps = 1 + sum(1 for _ in coming)
            spent[way].append((time.process_time() - begin) / steps)
    print(f"  {'':16s} steps/s  in memory   share  loader/step, ms of CPU  first batch, s  shares")
    for way, found in rates.items():
        shares = [a / b for a, b in zip(found, beside[way], strict=True)]
        print(
            f"  {way:16s}{median(found):8.3f}{median(beside[way]):11.3f}{median(shares):8.1%}"
            f"{1e3 * min(spent[way]):11.1f} /{1e3 * cost:6.0f} {min(spent[way]) / cost:5.1%}"
            f"{min(first[way]):14.2f}    " + " ".join(f"{share:.1%}" for share in shares)
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=12288)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--augment", action="store_true", help="split noise, drawn every epoch")
    parser.add_argument("--folder", default=None, help="where to write; about 40 kB a row")
    options = parser.parse_args()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, "
        f"{options.threads} threads; {options.rows} spectra of {GRID.size} pixels"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        store = str(Path(place) / "survey.icechunk")
        fill(store, options.rows)
        fed(store, options)


if __name__ == "__main__":
    main()
