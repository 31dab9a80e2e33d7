"""Handing a card to a cluster: what is submitted, after what, and what is refused."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.job import program
from pipeline import jobs, submit
from pipeline.cli import FAILED, OK, USAGE, main
from tests.slurm.survey import written

STAGES = ["simulate", "ingest", "map", "evaluate", "report"]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command in a folder with a card; gives its status and all that it said."""
    monkeypatch.chdir(written(tmp_path))

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["specmill", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or OK), said.out + said.err

    return run


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that only counts; its folder has `calls`, and `states`, a line a job."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, does in {
        "sbatch": "n=$(($(cat count 2>/dev/null || echo 100) + 1)); echo $n | tee count",
        "squeue": "cat states 2>/dev/null || true",
        "scancel": "true",
    }.items():
        logged = f'#!/bin/bash\ncd {folder}\necho "{name} $*" >>calls\n{does}\n'
        (folder / name).write_text(logged)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def states(queue: Path, **told: str) -> None:
    """Jobs as squeue shows them: _101="RUNNING|None"."""
    lines = [f"{name[1:]}|{state}\n" for name, state in told.items()]
    (queue / "states").write_text("".join(lines))


def calls(queue: Path, program: str) -> list[str]:
    lines = (queue / "calls").read_text().splitlines() if (queue / "calls").exists() else []
    return [line.removeprefix(f"{program} ") for line in lines if line.startswith(program)]


def test_a_dry_run_prints_the_plan_and_scripts_and_touches_nothing(
    command: Command, tmp_path: Path, queue: Path
) -> None:
    status, said = command("submit", "run", "card.toml", "--dry-run")
    assert status == OK
    plan, *scripts = said.split("#!/bin/bash\n")
    assert re.findall(r"│ (\w+) +│ 1536 +│ <= 3", plan) == STAGES
    assert "no rate measured yet for ingest, map: first run a small card" in plan
    assert re.search(r"scratch +run/workers: .* free", plan)
    assert len(scripts) == len(STAGES)
    for stage, script in zip(STAGES, scripts, strict=True):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert f"\n{program()} {stage} card.toml --set cluster.backend=local &\n" in script
    assert not (tmp_path / "run").exists()
    assert not calls(queue, "sbatch")


def test_a_measured_rate_tells_how_long_it_takes(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rates.json").write_text(
        '{"ingest": {"rows": 100, "seconds": 1000, "workers": 2}, "map": '
        '{"rows": 1536, "seconds": 20, "workers": 4}}'
    )
    _, said = command("submit", "run", "card.toml", "--dry-run", "--set", "cluster.workers=4")
    rows = {line.split()[1]: line for line in said.splitlines() if line.startswith("│")}
    # 1536 rows x 20 worker seconds, and as long as before, over four workers.
    assert f"{1536 * 20 / 4 / 3600:.2f} h" in rows["ingest"]
    assert " 20 s " in rows["map"]
    walltime = ("--walltime", "00:30:00", "--set", "cluster.workers=1")
    _, said = command("submit", "ingest", "card.toml", "--dry-run", *walltime)
    # 30,720 s in pieces of 30 minutes, but for the grace.
    assert f"queues again {-(-30720 // 1680) - 1} times" in said
    assert "no rate" not in said


def test_a_run_is_a_chain_of_jobs(command: Command, queue: Path, tmp_path: Path) -> None:
    status, said = command("submit", "run", "card.toml")
    assert status == OK
    after = [re.findall(r"--dependency=(\S+)", call) for call in calls(queue, "sbatch")]
    assert after == [[], *([f"afterok:{id}"] for id in range(101, 105))]
    assert "map: submitted as 103 after 102" in said
    kept = jobs.load(tmp_path / "run")
    assert [(one.stage, one.id, one.after) for one in kept][:2] == [
        ("simulate", "101", ""),
        ("ingest", "102", "101"),
    ]


def test_what_is_queued_or_runs_is_not_submitted_again(command: Command, queue: Path) -> None:
    command("submit", "run", "card.toml")
    waits = {f"_{id}": "PENDING|Dependency" for id in range(102, 106)}
    states(queue, _101="RUNNING|None", **waits)
    status, said = command("submit", "map", "card.toml")
    assert status == USAGE
    assert "map: pending as job 103 of slurm already (Dependency)" in said
    status, said = command("submit", "run", "card.toml")
    assert status == OK
    assert "simulate: running as 101 already" in said
    assert len(calls(queue, "sbatch")) == 5


def test_what_waits_for_a_failed_job_is_cancelled_and_submitted_again(
    command: Command, queue: Path, tmp_path: Path
) -> None:
    command("submit", "run", "card.toml")
    (tmp_path / "run/jobs/specmill-simulate-101.exit").write_text("3 \n")
    waits = {f"_{id}": "PENDING|Dependency" for id in range(103, 106)}
    states(queue, _101="FAILED|NonZeroExitCode", _102="PENDING|DependencyNeverSatisfied", **waits)
    status, said = command("submit", "run", "card.toml")
    assert status == OK
    assert "ingest: 102 waited for a job that ended badly; cancelled" in said
    assert calls(queue, "scancel") == ["102", "103", "104", "105"]
    assert "ingest: submitted as 107 after 106" in said
    assert len(calls(queue, "sbatch")) == 10


def test_a_card_that_was_wrong_is_refused_until_it_is_saved_again(
    command: Command, queue: Path, tmp_path: Path
) -> None:
    command("submit", "ingest", "card.toml")
    (tmp_path / "run/jobs/specmill-ingest-101.exit").write_text("2 \n")
    (tmp_path / "run/logs/specmill-ingest-101.err").write_text("specmill: no such folder\n")
    states(queue, _101="FAILED|NonZeroExitCode")
    status, said = command("submit", "ingest", "card.toml")
    assert status == USAGE
    assert "job 101 ended with status 2, and card.toml is as it was" in said
    assert "  specmill: no such folder" in said
    os.utime(tmp_path / "card.toml", ns=(0, 0))
    assert command("submit", "ingest", "card.toml")[0] == OK
    assert len(calls(queue, "sbatch")) == 2


@pytest.mark.parametrize("ended", ["3 ", "4 TERM", "137 "])
def test_a_stage_that_ended_badly_is_submitted_again(
    command: Command, queue: Path, tmp_path: Path, ended: str
) -> None:
    command("submit", "ingest", "card.toml")
    (tmp_path / "run/jobs/specmill-ingest-101.exit").write_text(f"{ended}\n")
    states(queue, _101="FAILED|NonZeroExitCode")
    assert "ingest: submitted as 102" in command("submit", "ingest", "card.toml")[1]


def test_jobs_are_shown_beside_the_rows(command: Command, queue: Path, tmp_path: Path) -> None:
    command("submit", "run", "card.toml")
    (tmp_path / "run/jobs/specmill-simulate-101.exit").write_text("137 \n")
    states(queue, _101="FAILED|OutOfMemory", _102="PENDING|DependencyNeverSatisfied")
    status, said = command("jobs", "card.toml")
    assert status == OK
    lines = {line.split()[1]: line for line in said.splitlines() if line.startswith("│")}
    assert "raise cluster.memory" in lines["simulate"]
    assert "DependencyNeverSatisfied" in lines["ingest"]
    assert re.search(r"│ 0 +│ 1536 +│ \? ", lines["ingest"])


def test_a_queue_that_does_not_answer_is_no_fault_of_ours(command: Command, queue: Path) -> None:
    command("submit", "ingest", "card.toml")
    (queue / "squeue").write_text("#!/bin/bash\necho 'Unable to contact controller' >&2; exit 1\n")
    status, said = command("jobs", "card.toml")
    assert status == OK
    assert "what was known before: squeue refuses --jobs=101: Unable to contact" in said
    assert re.search(r"ingest +│ 101 +│ PENDING", said)
    status, said = command("submit", "ingest", "card.toml")
    assert status == FAILED
    assert "Traceback" not in said


def test_a_job_keeps_the_settings_and_the_backend_that_were_given(command: Command) -> None:
    words = ("submit", "ingest", "card.toml", "--dry-run", "--set", "run.seed=3")
    settings = "--set run.seed=3 --set cluster.backend=local"
    assert f"ingest card.toml {settings} &\n" in command(*words)[1]
    given = command(*words, "--set", "cluster.backend=slurm")[1]
    assert "ingest card.toml --set run.seed=3 --set cluster.backend=slurm &\n" in given


def test_several_nodes_are_for_stages_with_workers(command: Command) -> None:
    words = ("--dry-run", "--set", "cluster.nodes=2", "--set", "cluster.workers=4")
    wide = command("submit", "ingest", "card.toml", *words)[1]
    assert "#SBATCH --nodes=2\n" in wide
    assert "--set cluster.backend=srun &\n" in wide
    narrow = command("submit", "simulate", "card.toml", *words)[1]
    assert "#SBATCH --nodes=1\n" in narrow
    assert "--set cluster.backend=local &\n" in narrow


def test_a_job_does_not_ask_for_the_cores_of_this_machine(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    said = command("submit", "ingest", "card.toml", "--dry-run", "--set", "cluster.workers=4")[1]
    assert "#SBATCH --cpus-per-task=4\n" in said


def test_where_nothing_queues_a_run_is_one_job(command: Command, tmp_path: Path) -> None:
    said = command("submit", "run", "card.toml", "--backend", "local", "--dry-run")[1]
    assert said.count("#!/bin/bash") == 1
    assert f"{program()} run card.toml --set cluster.backend=local &\n" in said


def test_what_is_done_is_not_submitted(
    command: Command, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "is_done", lambda stage, _: stage != "evaluate")
    assert (
        "nothing to do: ingest of card.toml is done" in command("submit", "ingest", "card.toml")[1]
    )
    command("submit", "run", "card.toml", "--walltime", "00:30:00")
    assert [one.split("/")[-1] for one in calls(queue, "sbatch")] == [
        "specmill-evaluate.sh",
        "specmill-report.sh",
    ]
