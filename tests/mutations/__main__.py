"""Damaged files through all readers: `python -m tests.mutations --n 10000 --seed 1`.

The number of a trial decides the kind of damage, the seed everything else: `--reader desi --seed 1
--only 4711` is one trial again. Exit status 1 when a reader crashed, hung, took too much memory,
or let in what is wrong.
"""

import argparse
import secrets
import time
from collections import Counter

from tests.mutations import bases
from tests.mutations.judge import BAD, GOOD, Result
from tests.mutations.trial import KINDS
from tests.mutations.worker import SECONDS, run

Results = list[tuple[str, int, Result]]
_SHOWN = 5
"Failures of one kind and reader that are listed."


def table(found: Results) -> str:
    """Counts of outcomes for each reader and kind of damage; those of none are left out."""
    outcomes = (*GOOD, *BAD)
    counts = Counter((name, result.kind, result.outcome) for name, _, result in found)
    lines = [f"{'reader':<15}{'damage':<34}" + "".join(f"{each:>16}" for each in outcomes)]
    for name in dict.fromkeys(name for name, *_ in found):
        for kind in KINDS:
            numbers = [counts[name, kind, each] for each in outcomes]
            if any(numbers):
                cells = "".join(f"{number or '.':>16}" for number in numbers)
                lines.append(f"{name:<15}{kind:<34}{cells}")
    total = Counter(result.outcome for *_, result in found)
    lines.append(f"{'all':<49}" + "".join(f"{total[each]:>16}" for each in outcomes))
    return "\n".join(lines)


def failures(found: Results, seed: int) -> str:
    """The bad ones, each with the command that repeats it."""
    lines, seen = [], Counter[tuple[str, str, str]]()
    for name, number, result in found:
        if result.outcome not in BAD:
            continue
        key = (name, result.kind, result.outcome)
        seen[key] += 1
        if seen[key] <= _SHOWN:
            lines += [
                f"python -m tests.mutations --reader {name} --seed {seed} --only {number}",
                f"    {result.outcome}, {result.kind} ({result.where}): {result.words[:400]}",
            ]
    return "\n".join(lines)


def trials(names: list[str], n: int) -> list[tuple[str, int]]:
    """Names and numbers of n trials over the readers; each begins with another kind of damage."""
    first = [len(KINDS) * at // len(names) for at in range(len(names))]
    each = [divmod(number, len(names)) for number in range(n)]
    return [(names[at], first[at] + turn) for turn, at in each]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.mutations", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="files in all")
    parser.add_argument("--seed", type=int, help="a new one when not given; it is printed")
    parser.add_argument("--reader", action="append", help=f"of {', '.join(bases.NAMES)}; or all")
    parser.add_argument("--only", type=int, help="the number of one trial")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="longer is a hang")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    names = given.reader or [*bases.NAMES]
    numbered = trials(names, given.n)
    if given.only is not None:
        numbered = [(name, given.only) for name in names]
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    found = [*run(numbered, seed, given.seconds, given.jobs)]
    took = time.monotonic() - started
    if given.only is None:
        print(table(found))
    else:
        for name, _, result in found:
            print(name, result.kind, result.where, result.outcome, result.words, sep="\n    ")
    print(failures(found, seed))
    bad = sum(result.outcome in BAD for *_, result in found)
    most = max(result.memory for *_, result in found)
    longest = max(result.seconds for *_, result in found)
    print(
        f"{bad} bad of {len(found)} in {took:.0f} s ({len(found) / took:.0f} a second); "
        f"at most {most >> 20} MB and {longest:.2f} s in one; seed {seed}"
    )
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
