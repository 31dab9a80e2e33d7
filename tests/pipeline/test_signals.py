"""Signals: the first ends a command in order with status 4, a second one at once."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import signals
from pipeline.cli import FAILED, INTERRUPTED, OK, QUARANTINED, USAGE
from pipeline.signals import Interrupted
from tests.pipeline.runs import SPECMILL, marked, specmill
from tests.slurm.survey import ROWS, everything, rows_done, store_of, written

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
KEPT = "what was finished is kept; the same command goes on"


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_an_exception_in_the_main_thread(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=number.name), signals.interruptible():
        kill(number)


def test_no_exception_handler_of_ours_takes_it_for_a_failure() -> None:
    assert not issubclass(Interrupted, Exception)


def test_handlers_are_as_they_were_afterwards() -> None:
    before = [signal.getsignal(number) for number in ALL]
    with signals.interruptible():
        assert [signal.getsignal(number) for number in ALL] != before
    assert [signal.getsignal(number) for number in ALL] == before


def test_what_is_silenced_stays_silent() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.interruptible():
            kill(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_commit_is_finished_first() -> None:
    done = []

    def work() -> None:
        with signals.later(), signals.later():
            kill(signal.SIGTERM)
            done.append("commit")
        done.append("more")

    with pytest.raises(Interrupted), signals.interruptible():
        work()
    assert done == ["commit"]


def test_a_commit_that_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with signals.later():
            kill(signal.SIGTERM)
            raise OSError("no space left")

    with pytest.raises(Interrupted), signals.interruptible():
        work()
    assert "no space left" in caplog.text


def test_signals_at_once_are_one() -> None:
    """A scheduler tells a script and its command; the script tells the command again."""
    done = []

    def work() -> None:
        try:
            kill(signal.SIGTERM)
        finally:
            kill(signal.SIGTERM)
            done.append("closed")

    with pytest.raises(Interrupted), signals.interruptible():
        work()
    assert done == ["closed"]


def test_a_second_one_is_abrupt() -> None:
    script = """
import os, signal, time
from pipeline import signals
signals.ONE_S = 0.1
with signals.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
"""
    run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert run.returncode == -signal.SIGTERM


@pytest.mark.parametrize("status", [0, 1, 15])
def test_a_library_that_answers_in_our_place_does_not_choose_the_status(status: int) -> None:
    """Ray ends a process that it hears SIGTERM in, with a status of its own."""

    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(status))
        kill(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"), signals.interruptible():
        work()


def test_we_listen_again_when_told_to() -> None:
    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signals.rearm()
        kill(signal.SIGTERM)

    with pytest.raises(Interrupted), signals.interruptible():
        work()


def test_a_status_stays_when_nobody_interrupted() -> None:
    with pytest.raises(SystemExit) as ended, signals.interruptible():
        sys.exit(3)
    assert ended.value.code == 3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The survey's files, and its card."""
    folder = written(tmp_path_factory.mktemp("files"))
    assert specmill(folder, "simulate", "card.toml").returncode == OK
    return folder


def interrupted(folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    """`specmill ingest`, which hears a signal when its first block is committed."""
    words = [str(SPECMILL), "ingest", "card.toml"]
    with subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while run.poll() is None and not rows_done(folder):
            time.sleep(0.1)
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    return subprocess.CompletedProcess(words, run.returncode, out, err)


@pytest.mark.cluster
@pytest.mark.slow
def test_an_interrupted_stage_ends_with_4_and_leaves_nothing_behind(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = shutil.copytree(files, tmp_path / "run"), secrets.token_hex(8)
    monkeypatch.setenv("SPECMILL_TEST", mark)
    said = interrupted(folder, signal.SIGUSR1)
    assert said.returncode == INTERRUPTED, said.stderr
    assert f"specmill: interrupted (SIGUSR1): {KEPT}" in said.stderr
    assert "Traceback" not in said.stderr
    assert 0 < rows_done(folder) < ROWS
    assert not Path(f"{store_of(folder)}.lease").exists()
    assert [process.cmdline() for process in marked(mark)] == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_same_command_goes_on_and_changes_no_bit(
    files: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = shutil.copytree(files, tmp_path / "run")
    assert interrupted(folder, number).returncode == INTERRUPTED
    left = ROWS - rows_done(folder)
    again = specmill(folder, "ingest", "card.toml")
    assert again.returncode == OK, again.stderr
    assert f"rows {ROWS - left}:" in again.stderr
    undisturbed = shutil.copytree(files, tmp_path / "undisturbed")
    specmill(undisturbed, "ingest", "card.toml", "--set", "survey.options.patience=0.0")
    assert everything(folder) == everything(undisturbed)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_training_is_interrupted_too(files: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = shutil.copytree(files, tmp_path / "run")
    with (folder / "card.toml").open("a") as card:
        card.write('[[train.model]]\nname = "ppca"\noverrides = { "fit.epochs" = 2000 }\n')
    specmill(folder, "ingest", "card.toml", "--set", "survey.options.patience=0.0")
    words = [str(SPECMILL), "train", "card.toml"]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not list((folder / "run" / "training").rglob("*")):
            time.sleep(0.2)
        time.sleep(5)
        run.send_signal(number)
        said = run.communicate(timeout=90)[1]
    assert run.returncode == INTERRUPTED, said
    assert f"interrupted ({number.name}): {KEPT}" in said


@pytest.mark.cluster
@pytest.mark.slow
def test_the_exit_status_tells_how_it_ended(files: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(files, tmp_path / "run")
    few = ("--set", "survey.options.patience=0.0", "--set", "survey.root=few")
    (folder / "few").mkdir()
    for file in sorted((folder / "files").rglob("*.fits"))[:3]:
        shutil.copy(file, folder / "few")
    broken = min((folder / "few").iterdir())
    broken.write_bytes(broken.read_bytes()[:11520])
    assert specmill(folder, "ingest", "card.toml", *few).returncode == QUARANTINED
    assert specmill(folder, "status", store_of(folder)).returncode == OK
    assert specmill(folder, "ingest", "nowhere.toml").returncode == USAGE
    Path(f"{store_of(folder)}.lease").write_text("{}")
    assert specmill(folder, "expire", store_of(folder)).returncode == FAILED
