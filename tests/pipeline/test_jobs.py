"""Jobs of a run: what became of them, from what a queue sees and what a script recorded."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.backend import Seen
from deploy.backends import slurm
from pipeline import jobs
from pipeline.jobs import Exit, Record, judge


def record(folder: Path, **more: str) -> Record:
    given = {"id": "7", "stage": "denoise", "name": "specmill-denoise", "backend": "slurm"}
    script = str(folder / "jobs" / "specmill-denoise.sh")
    return Record(**given | more, submitted="now", script=script, card="1a2b3c4d")


@pytest.mark.parametrize(
    ("told", "ended", "expected"),
    [
        ("PENDING", None, "PENDING"),
        ("CONFIGURING", None, "PENDING"),
        # What an interrupted job left before it queued again.
        ("PENDING", Exit(4, "USR1"), "PENDING"),
        ("RUNNING", None, "RUNNING"),
        ("COMPLETING", Exit(0), "RUNNING"),
        ("COMPLETED", Exit(0), "COMPLETED"),
        ("COMPLETED", Exit(1), "COMPLETED"),
        ("COMPLETED", None, "COMPLETED"),
        ("FAILED", Exit(2), "FAILED(2)"),
        ("FAILED", Exit(3), "FAILED(3)"),
        ("FAILED", Exit(4, "TERM"), "INTERRUPTED"),
        ("FAILED", Exit(138, "USR1"), "INTERRUPTED"),
        ("FAILED", Exit(139), "FAILED(139)"),
        ("FAILED", Exit(137), "OUT_OF_MEMORY"),
        ("FAILED", None, "FAILED(?)"),
        ("OUT_OF_MEMORY", None, "OUT_OF_MEMORY"),
        ("TIMEOUT", None, "TIMEOUT"),
        ("CANCELLED", Exit(4, "TERM"), "CANCELLED"),
        ("NODE_FAIL", None, "NODE_FAIL"),
        ("PREEMPTED", Exit(4, "TERM"), "PREEMPTED"),
        ("", Exit(0), "COMPLETED"),
        ("", Exit(3), "FAILED(3)"),
        ("", None, "GONE"),
    ],
)
def test_a_job_is_judged_by_its_queue_and_its_record(
    told: str, ended: Exit | None, expected: str
) -> None:
    state, _ = judge(Seen(state=told) if told else None, ended)
    assert state == expected


def test_every_end_says_what_to_do() -> None:
    ends = [
        "TIMEOUT",
        "CANCELLED",
        "NODE_FAIL",
        "PREEMPTED",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "FAILED",
    ]
    for told in ends:
        assert "submit again" in judge(Seen(state=told), None)[1] or told == "OUT_OF_MEMORY"
    assert "raise cluster.memory" in judge(None, Exit(137))[1]
    assert judge(Seen(state="COMPLETED"), Exit(1))[1] == "with quarantined inputs"


def test_a_job_that_waits_says_why_and_a_stuck_one_is_named() -> None:
    assert judge(Seen(state="PENDING", reason="Priority"), None) == ("PENDING", "Priority")
    stuck = Seen(state="PENDING", reason="DependencyNeverSatisfied")
    state, reason = judge(stuck, None)
    assert state == "DependencyNeverSatisfied"
    assert "what it waits for ended badly" in reason


def test_the_exit_status_of_the_accounts_stands_in_for_a_lost_record() -> None:
    assert judge(Seen(state="FAILED", status=2), None)[0] == "FAILED(2)"


def test_jobs_are_kept_whole(tmp_path: Path) -> None:
    wanted = [record(tmp_path), record(tmp_path, id="8", stage="measure", after="7")]
    jobs.save(tmp_path, wanted)
    assert jobs.load(tmp_path) == wanted
    assert [file.name for file in (tmp_path / "jobs").iterdir()] == ["jobs.json"]
    assert jobs.load(tmp_path / "another run") == []


def test_a_damaged_list_of_jobs_is_named(tmp_path: Path) -> None:
    jobs.save(tmp_path, [])
    (tmp_path / "jobs" / "jobs.json").write_text('[{"id": 7}]')
    with pytest.raises(ValueError, match=r"jobs\.json: not a list of jobs .* move it away"):
        jobs.load(tmp_path)


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm's commands; the file says how squeue was called, a line a call."""
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    answers = "7|FAILED|NonZeroExitCode\n8|PENDING|DependencyNeverSatisfied\n"
    for name, does in {
        "squeue": f"echo \"$@\" >>{calls}; printf '{answers}'",
        "sacct": "echo 'Slurm accounting storage is disabled' >&2; exit 1",
    }.items():
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_the_queue_is_asked_once_for_all_jobs_and_not_again_for_a_while(
    tmp_path: Path, squeue: Path
) -> None:
    jobs.save(tmp_path, [record(tmp_path, id=id, stage=id) for id in ("7", "8", "9")])
    for _ in range(3):
        found = jobs.refresh(tmp_path)
    assert [one.state for one in found] == ["FAILED(?)", "DependencyNeverSatisfied", "GONE"]
    (call,) = squeue.read_text().splitlines()
    assert "--jobs=7,8,9" in call
    # Time goes by: only what may have changed is asked for.
    jobs.save(tmp_path, [replace(one, seen=time.time() - 31) for one in found])
    jobs.refresh(tmp_path)
    assert "--jobs=8" in squeue.read_text().splitlines()[1]
    jobs.refresh(tmp_path, age_s=0)
    assert len(squeue.read_text().splitlines()) == 3


def test_jobs_that_a_queue_has_forgotten_are_none(squeue: Path) -> None:
    file = squeue.parent / "bin" / "squeue"
    file.write_text(
        "#!/bin/bash\necho 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    )
    assert slurm.states(["3"]) == {}
    file.write_text("#!/bin/bash\necho 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(RuntimeError, match=r"squeue refuses .*Unable to contact"):
        slurm.states(["3"])


def test_accounts_tell_of_jobs_that_the_queue_has_forgotten(squeue: Path) -> None:
    (squeue.parent / "bin" / "sacct").write_text("#!/bin/bash\necho '9|CANCELLED by 1000|0:15'")
    assert slurm.states(["7", "9"])["9"] == Seen(state="CANCELLED", status=0)


def test_a_process_of_this_machine_is_a_job_too(tmp_path: Path) -> None:
    gone = record(tmp_path, backend="local", id="999999999")
    jobs.save(tmp_path, [gone])
    assert jobs.refresh(tmp_path)[0].state == "GONE"
    (tmp_path / "jobs" / "specmill-denoise-999999999.exit").write_text("4 TERM\n")
    jobs.save(tmp_path, [gone])
    assert jobs.refresh(tmp_path)[0].state == "INTERRUPTED"


def test_what_a_job_said_last(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    one = record(tmp_path)
    assert one.last_words() == "  (its log is empty)"
    (tmp_path / "logs" / "specmill-denoise-7.err").write_text("first\nlast\n")
    assert one.last_words(1) == "  last"


def test_what_is_kept_can_be_read_by_others(tmp_path: Path) -> None:
    jobs.save(tmp_path, [record(tmp_path)])
    (found,) = json.loads((tmp_path / "jobs" / "jobs.json").read_text())
    expected = {"id", "stage", "backend", "submitted", "script", "state", "after"}
    assert expected <= found.keys()
