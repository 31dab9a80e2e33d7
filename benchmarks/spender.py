"""SPENDER beside the public package: us of CPU a spectrum, on one thread, inference and training.

    PYTHONPATH=. python -P benchmarks/spender.py [--peer PYTHON] [--rows 64] [--repeats 7]

PYTHON is one that has the package `spender`. Both take turns, so that a busy machine slows both;
the best of the turns is what counts. One step of training is loss, gradient and a fused Adam.
"""

import argparse
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import torch

from tests.training.spender_peer import CASES, spectra
from training.batch import Batch
from training.frames import named
from training.recipe import ModelCard

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("forward", "train")

Clock = Callable[[str], float]
"From a way to us of CPU a spectrum."


def ours(card: str, rows: int) -> Clock:
    model = ModelCard.load(ROOT / f"deploy/cards/models/{card}.toml").build(named("spender").grid)
    x, weight, z = (torch.from_numpy(value) for value in spectra(CASES["full"] | {"rows": rows}))
    ok = torch.ones(rows, dtype=torch.bool)
    batch = Batch(x=x, weight=weight, scale=torch.ones(rows), z=z, ok=ok)
    model.start(lambda: [batch], seed=0)
    descent = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def run(way: str) -> float:
        began = time.process_time()
        if way == "forward":
            with torch.no_grad():
                model.eval()(batch.x, batch.weight, batch.z)
        else:
            descent.zero_grad()
            model.train().loss(batch).backward()
            descent.step()
        return (time.process_time() - began) / rows * 1e6

    return run


def theirs(python: str, rows: int) -> tuple[Clock, "subprocess.Popen[str]"]:
    script = ROOT / "tests/training/spender_peer.py"
    process = subprocess.Popen(
        [python, script, "time"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    told, said = _pipes(process)
    while said.readline().strip() != "ready":
        if process.poll() is not None:
            raise SystemExit(f"{python} could not run the package spender")

    def run(way: str) -> float:
        told.write(f"{way} {rows}\n")
        told.flush()
        return float(said.readline())

    return run, process


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cards = ("spender", "spender-sr", "spender-small")
    clocks = {card: ours(card, options.rows) for card in cards}
    if options.peer:
        clocks["public package"], peer = theirs(options.peer, options.rows)
    best = {(name, way): float("inf") for name in clocks for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            for name, clock in clocks.items():
                best[name, way] = min(best[name, way], clock(way))
    if options.peer:
        peer.communicate()
    machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    print(f"{machine}, torch {torch.__version__}, {options.rows} spectra, 1 thread")
    print(f"{'':16s}{'forward':>12s}{'train':>12s}   us of CPU a spectrum    spectra/s")
    for name in clocks:
        pair = [best[name, way] for way in WAYS]
        times = "".join(f"{value:12.0f}" for value in pair)
        print(f"{name:16s}{times}   {1e6 / pair[0]:24.0f}{1e6 / pair[1]:8.0f}")
    if options.peer:
        faster = [best["public package", way] / best["spender", way] for way in WAYS]
        print("spender is faster by " + ", ".join(f"{value:.2f}" for value in faster))


if __name__ == "__main__":
    main()
