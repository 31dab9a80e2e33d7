"""A card on real Slurm: submitted, cut off, killed, taken back, submitted again: the same bits."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import jobs
from pipeline.jobs import Record
from tests.pipeline.runs import SPECMILL
from tests.slurm.cluster import until
from tests.slurm.conftest import Say
from tests.slurm.survey import CARD, ROWS, everything, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
PROMPT = CARD.replace("patience = 0.01", "patience = 0.0").replace(f"n = {ROWS}", "n = 24")


def state_of(say: Say, id: str) -> str:
    return re.search(r"JobState=(\w+)", say("scontrol", "show", "job", "-o", id))[1]


def last(folder: Path, stage: str) -> Record:
    return jobs.newest(jobs.load(folder / "run"))[stage]


def ended(say: Say, id: str) -> Callable[[], bool]:
    return lambda: state_of(say, id) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


def test_a_run_on_slurm_is_done_stage_after_stage(say: Say, tmp_path: Path) -> None:
    written(tmp_path, PROMPT)
    said = say(str(SPECMILL), "submit", "run", "card.toml")
    ids = re.findall(r"submitted as (\d+)", said)
    assert re.findall(r"after (\d+)", said) == ids[:-1]
    again = say(str(SPECMILL), "submit", "measure", "card.toml", status=2)
    assert f"measure: pending as job {last(tmp_path, 'measure').id} of slurm already" in again
    until(ended(say, ids[-1]), 300)
    assert {state_of(say, id) for id in ids} == {"COMPLETED"}
    table = say(str(SPECMILL), "jobs", "card.toml")
    assert table.count("COMPLETED") == len(ids)
    assert "nothing to do: every stage" in say(str(SPECMILL), "submit", "run", "card.toml")
    here = written(tmp_path / "here", PROMPT)
    for stage in ("simulate", "ingest", "measure"):
        say("env", "-C", str(here), str(SPECMILL), stage, "card.toml")
    assert everything(tmp_path) == everything(here)
