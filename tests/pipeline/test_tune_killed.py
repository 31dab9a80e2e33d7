"""A search whose driver is killed goes on: no finished trial again, and the same losses."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pipeline.tune import read, results, trials
from tests.pipeline.scene import ingested
from tests.pipeline.test_tune import searching
from training import curves
from training.loop import loop
from training.task import Task

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 60
"Of a trial: some seconds, most of which Ray takes to hear of each."
DRIVER = """
from pathlib import Path
from pipeline.tune import tune
from tests.pipeline.test_tune import searching
for line in tune(searching(Path({folder!r}), Path({run!r}), epochs={epochs})):
    print(line["number"])
"""


def started(folder: Path, run: Path) -> subprocess.Popen[str]:
    script = run / "driver.py"
    script.write_text(DRIVER.format(folder=str(folder), run=str(run), epochs=EPOCHS))
    return subprocess.Popen(
        [sys.executable, str(script)],
        cwd=run,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def running(file: Path) -> list[str]:
    """Trials that have begun and not ended, by their folders."""
    ended = {line["trial"] for line in read(file)}
    begun = file.with_suffix("").glob(f"*/{curves.LINES}")
    return [path.parent.name for path in begun if path.parent.name.partition("-")[0] not in ended]


def wait_for_the_second(file: Path) -> None:
    for _ in range(24000):
        if read(file) and running(file):
            return
        time.sleep(0.01)
    raise AssertionError(f"{file}: no second trial after four minutes")


@contextmanager
def killed_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill a driver, and all that it has started."""
    with process:
        try:
            yield
        finally:
            driver = psutil.Process(process.pid)
            them = [driver, *driver.children(recursive=True)]
            for one in them:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGKILL)
            psutil.wait_procs(them, timeout=30)


def straight(task: Task) -> float:
    """The loss that a trial comes to with nobody in its way."""
    model, watched = task.card.build(task.frame.grid), None
    if len(task.val):
        watched = task.batches("val")
    return loop(model, task.batches("train"), watched, task.card.fit).history[-1]["val"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_search_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    ingested(tmp_path, 80)
    killed = tmp_path / "killed"
    killed.mkdir()
    card = searching(tmp_path, killed, epochs=EPOCHS)
    file = results(card)
    with killed_at_the_end(started(tmp_path, killed)):
        wait_for_the_second(file)
    before = read(file)
    assert 0 < len(before) < len(trials(card))
    assert running(file)
    # Of Ray's own files, which the driver could not take with it.
    assert list(file.with_suffix("").glob(".tune-*"))
    again = started(tmp_path, killed)
    said, _ = again.communicate()
    assert again.returncode == 0
    assert sorted(map(int, said.split())) == sorted(trial.number for trial in trials(card))
    after = {line["trial"]: line for line in read(file)}
    # With the seconds that they took: they were not done again.
    assert all(after[line["trial"]] == line for line in before)
    assert not list(file.with_suffix("").glob(".tune-*"))
    for trial in trials(card):
        # On other threads sums are rounded otherwise.
        assert after[trial.digest]["val"] == pytest.approx(straight(trial.task), rel=1e-5)
        assert after[trial.digest]["epochs"] == EPOCHS
