"""Jobs and the [cluster] table: what they accept, and how they become a script."""

import signal
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.job import Cluster, Job, Resources, cores, script

JOB = {"name": "demo", "command": ("specmill", "run", "demo.toml"), "folder": Path("runs/demo")}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NAME = st.text(string.ascii_letters + string.digits + "_", max_size=8).map("MINE_".__add__)


@pytest.mark.parametrize(("walltime", "grace_s"), [("00:02:59", 120), ("00:10:00", 541)])
def test_a_walltime_that_ends_before_the_work_begins_is_refused(
    walltime: str, grace_s: int
) -> None:
    with pytest.raises(
        ValueError, match=rf"walltime {walltime} ends before the work .*{grace_s} s"
    ):
        Resources(walltime=walltime, grace_s=grace_s)


def test_workers_are_spread_over_the_nodes() -> None:
    assert Resources(workers=7, nodes=3).workers_a_node == 3
    assert Resources(walltime="1-02:03:04").walltime_s == 93784


def test_memory_is_read_with_its_unit() -> None:
    assert Cluster(memory="1.5GiB").memory_bytes == 1536 * 2**20


@pytest.mark.parametrize("walltime", ["04:00:00", "100:00:00", "2-12:30:00", "0:10:00"])
def test_walltimes_that_a_scheduler_reads_are_taken(walltime: str) -> None:
    assert Resources(walltime=walltime).walltime == walltime


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("walltime", "4h"),
        ("walltime", "01:60:00"),
        ("walltime", "1-24:00:00"),
        ("walltime", "04:00:00\n#SBATCH --uid=0"),
        ("memory", "2 spoons"),
        ("workers", 0),
        ("threads", -1),
        ("gpus", -1),
        ("partition", "long; rm"),
        ("account", "a b"),
        ("backend", "../slurm"),
        ("nodes", 0),
        ("address", "node7:8786"),
        ("interface", "lo; rm"),
        ("worker", 2),
    ],
)
def test_a_bad_field_of_the_cluster_table_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"(?m)^{field}$"):
        Cluster.model_validate({field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "two\nlines"),
        ("command", ()),
        ("command", ("specmill", "nul\0")),
        ("env", {"A B": "1"}),
        ("folder", 'runs/"demo"'),
        ("folder", "runs/%j"),
        ("after", "4:4"),
        ("folder", "runs/demo\n#SBATCH --uid=0"),
    ],
)
def test_a_bad_field_of_a_job_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"(?m)^{field}\b"):
        Job.model_validate(JOB | {field: value})


def test_threads_share_the_cores_at_hand() -> None:
    assert Cluster(workers=1).resources().threads == cores()
    assert Cluster(workers=10_000).resources().threads == 1
    assert Cluster(workers=1, threads=3).resources().threads == 3


def test_threads_are_one_where_the_cores_are_elsewhere() -> None:
    assert Cluster(workers=1, backend="slurm").resources().threads == 1


def test_resources_of_a_table_keep_its_fields() -> None:
    table = Cluster(workers=3, threads=2, memory="4GiB", walltime="1-00:00:00", partition="long")

    expected = Resources(
        workers=3, threads=2, memory="4GiB", walltime="1-00:00:00", partition="long"
    )

    assert table.resources() == expected


def test_a_written_script_lies_in_the_run_with_a_folder_for_its_logs(tmp_path: Path) -> None:
    job = Job(name="demo", command=("true",), folder=tmp_path / "my run")

    path = job.write("echo µ\n")

    assert path == tmp_path / "my run" / "jobs" / "demo.sh"
    assert path.read_text(encoding="utf-8") == "echo µ\n"
    assert job.logs.is_dir()


# A script has no end of words that a shell could misread: run it, and compare what arrives.
@settings(max_examples=60, deadline=None)
@given(words=st.lists(TEXT, max_size=4), env=st.dictionaries(NAME, TEXT, max_size=2))
def test_every_word_and_variable_reaches_the_program_unchanged(
    words: list[str], env: dict[str, str]
) -> None:
    show = ("bash", "-c", 'printf "%s\\0" "$@"; env -0', "show", *words)
    job = Job(name="echo", command=show, env=env, folder=Path("run"))

    run = subprocess.run(["bash", "-c", script(job)], capture_output=True, check=True)
    said = run.stdout.decode().split("\0")[:-1]

    # printf prints one empty string when it has nothing to print.
    count = max(1, len(words))
    assert said[:count] == (words or [""])
    seen = dict(line.split("=", 1) for line in said[count:])
    assert seen.items() >= env.items()
    assert seen["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(("status", "record"), [(0, "0 \n"), (1, "1 \n"), (137, "137 \n")])
def test_a_script_records_how_its_command_ended(status: int, record: str, tmp_path: Path) -> None:
    job = Job(name="end", command=("bash", "-c", f"exit {status}"), folder=tmp_path)

    run = subprocess.run(["bash", str(job.write(script(job, id="7")))], check=False)

    assert run.returncode == status
    assert (tmp_path / "jobs/end-7.exit").read_text() == record


@pytest.mark.parametrize(
    ("given", "heard", "record"),
    [("USR1", "USR1", "4 USR1\n"), ("TERM", "TERM", "4 TERM\n"), ("HUP", "TERM", "4 TERM\n")],
)
def test_a_script_passes_a_signal_on_and_waits_for_the_end(
    given: str, heard: str, record: str, tmp_path: Path
) -> None:
    # The shell that stands for the command is busy for a while after the signal.
    wait = (
        f"trap 'sleep 0.3; echo {heard}; exit 4' {heard}; echo ready; while :; do sleep 0.1; done"
    )
    job = Job(name="end", command=("bash", "-c", wait), folder=tmp_path)
    with subprocess.Popen(
        ["bash", str(job.write(script(job, id="7")))],
        stdout=subprocess.PIPE,
        text=True,
        # A shell cannot trap what was ignored before it began, as under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.Signals[f"SIG{given}"])
        assert run.stdout.readline() == f"{heard}\n"
        assert run.wait(20) == 4

    assert (tmp_path / "jobs/end-7.exit").read_text() == record


def test_an_old_record_is_gone_while_the_command_runs(tmp_path: Path) -> None:
    look = ("bash", "-c", f"ls {tmp_path}/jobs/*.exit")
    job = Job(name="end", command=look, folder=tmp_path)
    path = job.write(script(job, id="7"))
    (tmp_path / "jobs/end-7.exit").write_text("4 USR1\n")

    run = subprocess.run(["bash", str(path)], check=False, capture_output=True)

    assert run.returncode == 2
