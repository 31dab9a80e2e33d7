"""A card on real Slurm: submitted, cut off, killed, taken back, submitted again: the same bits."""

import os
import re
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from pipeline import jobs
from pipeline.jobs import Record
from tests.pipeline.runs import SPECMILL, specmill
from tests.slurm.cluster import until
from tests.slurm.conftest import Say
from tests.slurm.survey import CARD, ROWS, everything, rows_done, store_of, written

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
PROMPT = CARD.replace("patience = 0.01", "patience = 0.0").replace(f"n = {ROWS}", "n = 24")
SPEC = str(SPECMILL)


def test_a_run_on_slurm_is_done_stage_after_stage(say: Say, tmp_path: Path) -> None:
    written(tmp_path, PROMPT)
    said = say(SPEC, "submit", "run", "card.toml")
    ids = re.findall(r"submitted as (\d+)", said)
    assert re.findall(r"after (\d+)", said) == ids[:-1]
    again = say(SPEC, "submit", "map", "card.toml", status=2)
    assert f"map: pending as job {last(tmp_path, 'map').id} of slurm already" in again
    until(lambda: states(say, ids) == ["COMPLETED"] * len(ids), 300)
    # What Slurm said is kept for half a minute.
    until(lambda: say(SPEC, "jobs", "card.toml").count("COMPLETED") == len(ids), 90)
    assert "nothing to do: every stage" in say(SPEC, "submit", "run", "card.toml")
    here = written(tmp_path / "here", PROMPT)
    assert specmill(here, "run", "card.toml").returncode == 0
    assert everything(tmp_path) == everything(here)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slow survey, ingested and measured on this machine."""
    folder = written(tmp_path_factory.mktemp("undisturbed"))
    for stage in ("simulate", "ingest", "measure"):
        done = specmill(folder, stage, "card.toml", "--set", "survey.options.patience=0.0")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def started(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with its files, not ingested."""
    written(tmp_path)
    shutil.copytree(undisturbed / "files", tmp_path / "files")
    return tmp_path


def finish(say: Say, folder: Path, undisturbed: Path) -> None:
    """What was broken off goes on with the same command, and what comes out is the same."""
    left = ROWS - rows_done(folder)
    said = say(SPEC, "submit", "ingest", "card.toml", "--set", "cluster.workers=2")
    until(lambda: states(say, [last(folder, "ingest").id]) == ["COMPLETED"])
    log = last(folder, "ingest").last_words(100)
    assert f"rows {ROWS - left}:" in log, said
    spectra = {group: everything(folder)[group] for group in ("spectra/sdss", "truth/sdss")}
    expected = everything(undisturbed)
    assert spectra == {group: expected[group] for group in spectra}


def submitted(say: Say, folder: Path, *words: str) -> str:
    """Submit ingest, and wait for its first rows; gives the job."""
    say(SPEC, "submit", "ingest", "card.toml", *words)
    until(lambda: rows_done(folder))
    return last(folder, "ingest").id


@pytest.mark.slow
def test_a_killed_worker_is_started_again(say: Say, started: Path, undisturbed: Path) -> None:
    id = submitted(say, started)
    (worker,) = workers(started)
    os.kill(worker, signal.SIGKILL)
    until(lambda: states(say, [id]) == ["COMPLETED"])
    spectra = everything(started)["spectra/sdss"]
    assert spectra == everything(undisturbed)["spectra/sdss"]


@pytest.mark.slow
def test_a_walltime_is_only_a_pause(say: Say, started: Path, undisturbed: Path) -> None:
    # A minute of reading: longer than what the grace leaves of the walltime.
    slow = ("--set", "cluster.grace_s=60", "--set", "survey.options.patience=0.04")
    id = submitted(say, started, "--walltime", "00:02:00", *slow)
    until(lambda: restarts(say, id) == 1 and states(say, [id]) == ["PENDING"])
    record = started / "run" / "jobs" / f"specmill-ingest-{id}.exit"
    assert record.read_text() == "4 USR1\n"
    assert not Path(f"{store_of(started)}.lease").exists()
    assert 0 < rows_done(started) < ROWS
    assert "pending as job" in say(SPEC, "submit", "ingest", "card.toml", *slow, status=2)
    until(lambda: pushed(say, id) == "COMPLETED", 500)
    assert restarts(say, id) >= 1
    spectra = everything(started)["spectra/sdss"]
    assert spectra == everything(undisturbed)["spectra/sdss"]


@pytest.mark.slow
def test_a_job_that_was_taken_back_goes_on(say: Say, started: Path, undisturbed: Path) -> None:
    id = submitted(say, started)
    say("scancel", id)
    until(lambda: states(say, [id]) == ["CANCELLED"])
    until(lambda: (started / "run" / "jobs" / f"specmill-ingest-{id}.exit").exists(), 20)
    assert "CANCELLED" in say(SPEC, "jobs", "card.toml")
    assert not Path(f"{store_of(started)}.lease").exists()
    finish(say, started, undisturbed)


@pytest.mark.slow
def test_a_killed_command_goes_on(say: Say, started: Path, undisturbed: Path) -> None:
    id = submitted(say, started)
    (coordinator,) = processes(f"{SPEC} ingest", started)
    os.kill(coordinator, signal.SIGKILL)
    until(lambda: states(say, [id]) == ["FAILED"])
    assert "raise cluster.memory" in say(SPEC, "jobs", "card.toml")
    finish(say, started, undisturbed)


@pytest.mark.slow
def test_a_job_that_is_queued_again_by_hand_goes_on(
    say: Say, started: Path, undisturbed: Path
) -> None:
    id = submitted(say, started)
    say("scontrol", "requeue", id)
    until(lambda: states(say, [id]) == ["PENDING"])
    assert "pending as job" in say(SPEC, "submit", "ingest", "card.toml", status=2)
    say("scancel", id)
    finish(say, started, undisturbed)


@pytest.mark.slow
def test_a_wrong_card_ends_the_chain_until_it_is_mended(say: Say, tmp_path: Path) -> None:
    written(tmp_path, PROMPT.replace('root = "files"', 'root = "/proc/files"'))
    first, *rest = re.findall(r"submitted as (\d+)", say(SPEC, "submit", "run", "card.toml"))
    until(lambda: states(say, [first]) == ["FAILED"])
    until(lambda: "DependencyNeverSatisfied" in say("squeue", "-h", "-o", "%r"))
    refused = say(SPEC, "submit", "run", "card.toml", status=2)
    assert f"simulate: job {first} ended with status 2, and card.toml is as it was" in refused
    written(tmp_path, PROMPT)
    said = say(SPEC, "submit", "run", "card.toml")
    ids = re.findall(r"submitted as (\d+)", said)
    assert len(ids) == len(rest) + 1
    until(lambda: states(say, ids) == ["COMPLETED"] * len(ids), 300)
    assert set(states(say, rest)) == {"CANCELLED"}


@pytest.mark.slow
def test_workers_on_two_nodes_do_the_same(say: Say, started: Path, undisturbed: Path) -> None:
    wide = ("cluster.nodes=2", "cluster.workers=2", "cluster.interface=lo")
    settings = [word for setting in wide for word in ("--set", setting)]
    id = submitted(say, started, *settings)
    (victim, _) = workers(started)
    os.kill(victim, signal.SIGKILL)
    until(lambda: states(say, [id]) == ["COMPLETED"])
    assert len(list((started / "run" / "workers" / "logs").glob(f"srun-{id}-*.log"))) == 2
    assert not list((started / "run" / "workers").glob("tls-*"))
    spectra = everything(started)["spectra/sdss"]
    assert spectra == everything(undisturbed)["spectra/sdss"]
    assert workers(started) == []


@pytest.mark.slow
def test_workers_as_jobs_of_their_own_do_the_same(
    say: Say, started: Path, undisturbed: Path
) -> None:
    own = ("cluster.backend=slurm", "cluster.interface=lo", "cluster.workers=2")
    settings = [word for setting in own for word in ("--set", setting)]
    say(SPEC, "ingest", "card.toml", *settings, "--set", "survey.options.patience=0.0")
    spectra = everything(started)["spectra/sdss"]
    assert spectra == everything(undisturbed)["spectra/sdss"]
    until(lambda: not say("squeue", "-h").strip(), 60)


def last(folder: Path, stage: str) -> Record:
    return jobs.newest(jobs.load(folder / "run"))[stage]


def states(say: Say, ids: list[str]) -> list[str]:
    return [_said_of(say, id, "JobState") for id in ids]


def pushed(say: Say, id: str) -> str:
    """The state of a job, which begins at once: Slurm waits two minutes before it starts again."""
    if (state := states(say, [id])[0]) == "PENDING":
        say("scontrol", "update", f"jobid={id}", "starttime=now", status=None)
    return state


def restarts(say: Say, id: str) -> int:
    return int(_said_of(say, id, "Restarts"))


def _said_of(say: Say, id: str, word: str) -> str:
    found = re.search(rf"{word}=(\w+)", say("scontrol", "show", "job", "-o", id))
    assert found
    return found[1]


def workers(folder: Path) -> list[int]:
    """Processes of Dask that compute for a run's folder."""
    return processes("multiprocessing.spawn", folder)


def processes(words: str, folder: Path) -> list[int]:
    """Processes with these words on their command line that stand in a folder."""
    return [process.pid for process in psutil.process_iter() if _is(process, words, folder)]


def _is(process: psutil.Process, words: str, folder: Path) -> bool:
    try:
        return words in " ".join(process.cmdline()) and Path(process.cwd()) == folder
    except psutil.Error:
        return False
