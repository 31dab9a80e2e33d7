"""Faults under way through the engine; and that broken engines are caught."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults import broken, ground, judge
from tests.faults.__main__ import NAMES, main, table, told
from tests.faults.judge import BAD, GOOD, Result

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
SEED = 1
CHEAP = (
    "worker-killed",
    "worker-preempted",
    "coordinator-killed",
    "coordinator-interrupted",
    "coordinator-stopped",
    "chunk-corrupted",
)
CAUGHT = {"skips": "LOST", "drifts": "DIFFERENT"}
OTHERS = {
    "repeats": "TWICE",
    "forgets": "DIFFERENT",
    "mixes": "DIFFERENT",
    "hoards": "LEASE",
    "shares": "ACCEPTED",
}


def trials(folder: Path, *words: str) -> tuple[list[dict[str, Any]], str]:
    """Results of trials, in a process whose server has nothing else to fork; and what it says."""
    command = [sys.executable, "-m", "tests.faults", "--json", folder / "results", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (folder / "results").exists(), run.stderr
    results = [json.loads(line) for line in (folder / "results").read_text().splitlines()]
    wrong = [each["outcome"] for each in results if each["outcome"] in BAD]
    assert run.returncode == int(bool(wrong)), run.stderr
    return results, run.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    """One trial of each cheap kind, then the broken engines."""
    words = ["--seed", str(SEED), "--n", str(len(CHEAP))]
    words += [word for kind in CHEAP for word in ("--kind", kind)]
    words += [word for engine in CAUGHT for word in ("--engine", engine)]
    return trials(tmp_path_factory.mktemp("faults"), *words)


def test_no_row_is_lost_or_made_twice_or_different_whatever_is_killed(
    short: tuple[list[dict[str, Any]], str],
) -> None:
    sound = [each for each in short[0] if not each["engine"]]
    assert {each["kind"] for each in sound} == set(CHEAP)
    assert {each["outcome"] for each in sound} <= set(GOOD), short[1]


@pytest.mark.parametrize("engine", CAUGHT)
def test_a_broken_engine_is_caught(engine: str, short: tuple[list[dict[str, Any]], str]) -> None:
    (found,) = (each for each in short[0] if each["engine"] == engine)
    assert found["outcome"] == CAUGHT[engine], short[1]
    assert f"--seed {SEED} --engine {engine}" in short[1]


@pytest.mark.slow
def test_other_broken_engines_are_caught(tmp_path: Path) -> None:
    results, said = trials(tmp_path, *(word for name in OTHERS for word in ("--engine", name)))
    assert {each["engine"]: each["outcome"] for each in results} == OTHERS, said
    assert CAUGHT.keys() | OTHERS.keys() == broken.ENGINES.keys()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_faults_cost_no_row(tmp_path: Path) -> None:
    results, said = trials(tmp_path, "--seed", str(SEED), "--n", "500", "--long")
    assert {each["outcome"] for each in results} <= set(GOOD), said
    assert {each["kind"] for each in results} == set(NAMES)


def test_a_bit_of_one_row_is_a_difference() -> None:
    arrays = {"flux": np.ones((4, 3), "f4"), "reason": np.array(["", "a", "", ""], "T")}
    other = {name: values.copy() for name, values in arrays.items()}
    other["flux"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
    other["reason"][3] = "b"
    differ = {name: judge._differ(arrays[name], other[name]).tolist() for name in arrays}
    assert differ == {"flux": [False, True, False, False], "reason": [False, False, False, True]}


def test_not_a_number_equals_itself_and_another_type_is_a_difference() -> None:
    lacking = np.full(3, np.nan)
    assert not judge._differ(lacking, lacking.copy()).any()
    assert judge._differ(lacking, lacking.astype("f4")).all()


def test_the_table_counts_outcomes_and_costs() -> None:
    given = {"kind": NAMES[0], "undisturbed_s": 1.0, "computed": ground.ROWS + 20}
    found = [Result(number=0, seconds=3.0, **given), Result(number=18, seconds=2.0, **given)]
    found[1].outcome = "LOST"
    first, row, _ = table(found).splitlines()
    assert first.split() == ["fault", "n", "whole", "LOST", "starts", "rows", "again", "s", "more"]
    assert row.split() == [NAMES[0], "2", "1", "1", "1.00", "20", "1.50"]


def test_a_failure_tells_how_to_repeat_it() -> None:
    result = Result(number=47, kind=NAMES[0], outcome="LOST", words=["after 3 blocks"])
    assert told(result, 7).startswith("python -m tests.faults --seed 7 --only 47\n")


def test_there_is_no_kind_of_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--kind", "flood"])
    assert "invalid choice: 'flood'" in capsys.readouterr().err
