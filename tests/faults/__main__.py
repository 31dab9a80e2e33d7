"""Faults through the engine: `python -m tests.faults --n 500 --seed 1`.

The number of a trial decides the kind of fault, the seed everything else: `--seed 1 --only 47` is
one trial again, as far as processes can be repeated. Exit status 1 when a row was lost, made twice
or came out different, when something stayed behind, or when a run did not end as is promised.
"""

import argparse
import json
import secrets
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import icechunk
import numpy as np

from tests.faults import broken, ground, processes
from tests.faults.judge import BAD, GOOD, Result
from tests.faults.kinds import KINDS, nothing
from tests.faults.trial import Trial, laid, undisturbed
from tests.faults.trouble import Trouble

NAMES = tuple(KINDS)


def trials(
    numbers: list[int], seed: int, engines: Collection[str] = (), long: bool = False
) -> Iterator[Result]:
    """Results of trials by their numbers.

    engines : broken ones, which get a trial each when the others are through.
    """
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    # It reads ahead, in stores that are gone when a trial is over.
    icechunk.set_logs_filter("off")
    processes.serve(root)
    try:
        base = root / "base"
        base.mkdir()
        ground.make(base)
        sound = undisturbed(base)
        asked = [Result(number=number, kind=NAMES[number % len(NAMES)]) for number in numbers]
        asked += [Result(number=0, kind=broken.ENGINES[each], engine=each) for each in engines]
        for result in asked:
            folder = laid(base)
            trial = Trial(
                folder=folder,
                random=np.random.default_rng([seed, result.number]),
                sound=sound,
                trouble=Trouble(folder=str(folder), wrong=result.engine),
                result=result,
                long=long,
            )
            _run(trial)
            shutil.rmtree(folder, ignore_errors=True)
            yield replace(result, undisturbed_s=sound.seconds)
    finally:
        processes.end()
        shutil.rmtree(root, ignore_errors=True)


def _run(trial: Trial) -> None:
    bad, retried = (), ()
    try:
        bad, retried = KINDS.get(trial.result.kind, nothing)(trial)
    except Exception:
        trial.blame("CRASH", traceback.format_exc())
    trial.close(bad, retried)


def table(found: list[Result]) -> str:
    """Counts of outcomes, and what a fault costs, for each kind."""
    there = [each for each in (*GOOD, *BAD) if any(r.outcome == each for r in found)]
    heads = ("starts", "rows again", "s more")
    lines = [f"{'fault':<26}{'n':>5}" + "".join(f"{each:>12}" for each in (*there, *heads))]
    for kind in (*NAMES, "all"):
        mine = [each for each in found if kind in ("all", each.kind)]
        if not mine:
            continue
        counts = Counter(each.outcome for each in mine)
        cells = [f"{counts[each] or '.':>12}" for each in there]
        cells += [
            f"{np.mean([each.starts for each in mine]):>12.2f}",
            f"{np.mean([each.computed - ground.ROWS for each in mine]):>12.0f}",
            f"{np.mean([each.seconds - each.undisturbed_s for each in mine]):>12.2f}",
        ]
        lines.append(f"{kind:<26}{len(mine):>5}" + "".join(cells))
    return "\n".join(lines)


def told(result: Result, seed: int) -> str:
    """One trial in words, with the command that repeats it."""
    said = "\n    ".join("; ".join(result.words)[:2000].splitlines())
    which = f"--engine {result.engine}" if result.engine else f"--only {result.number}"
    return (
        f"python -m tests.faults --seed {seed} {which}\n    {result.outcome}, {result.kind}: {said}"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--n", type=int, default=len(NAMES), help="trials in all")
    parser.add_argument("--seed", type=int, help="a new one when not given; it is printed")
    parser.add_argument("--kind", action="append", choices=NAMES, help="one kind, or several")
    parser.add_argument("--only", type=int, help="the number of one trial")
    parser.add_argument("--first", type=int, default=0, help="the number of the first trial")
    parser.add_argument("--long", action="store_true", help="some stop for a minute")
    parser.add_argument(
        "--engine", action="append", choices=broken.ENGINES, help="a broken one, which is caught"
    )
    parser.add_argument("--json", type=Path, help="a line for each trial goes here")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    begun, found = time.monotonic(), list[Result]()
    print(f"seed {seed}", flush=True)
    for result in trials(_numbers(given), seed, given.engine or (), given.long):
        found.append(result)
        if given.json:
            with given.json.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
        if result.outcome in BAD or given.only is not None:
            print(told(result, seed), flush=True)
    bad = sum(each.outcome in BAD for each in found)
    print(table(found))
    print(
        f"{bad} bad of {len(found)} in {time.monotonic() - begun:.0f} s; undisturbed, a run takes "
        f"{found[0].undisturbed_s:.2f} s and computes {ground.ROWS} rows; seed {seed}"
    )
    return int(bad > 0)


def _numbers(given: argparse.Namespace) -> list[int]:
    if given.only is not None:
        return [given.only]
    if given.engine and not given.kind:
        return []
    numbers = range(given.first, given.first + given.n * len(NAMES))
    mine = [n for n in numbers if not given.kind or NAMES[n % len(NAMES)] in given.kind]
    return mine[: given.n]


if __name__ == "__main__":
    raise SystemExit(main())
