"""What a run says of itself: the table, the lines of a log, the curves."""

import io
import json
import logging
import re
import time
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from tests.training.course import learn, task
from training import curves, progress
from training.progress import NOW, Pulse, Step, line, remaining, shown, table
from training.state import Record


def history(epochs: int) -> list[Record]:
    """The third epoch is the best; 60 s each."""
    return [
        {
            "epoch": epoch,
            "train": 1 / epoch,
            "val": 0.5 + abs(epoch - 3) / 10,
            "lr": 1e-3 * 0.5**epoch,
            "seconds": 60.0,
            "spectra_per_s": 1234.5,
        }
        for epoch in range(1, epochs + 1)
    ]


WITHIN: Record = {
    "epoch": 5,
    "batch": 25,
    "batches": 100,
    "train": 0.123456,
    "lr": 2e-4,
    "seconds": 15.0,
    "spectra_per_s": 4000.0,
}


def text(made: object) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(made)
    return [row.rstrip() for row in console.file.getvalue().splitlines() if row.strip()]


def test_the_table_has_the_epochs_and_the_one_that_is_done_now() -> None:
    rows = text(table(history(4), WITHIN, 10, "fs-01234567"))
    assert rows[0].strip() == "fs-01234567"
    words = [row.split() for row in rows]
    assert words[1] == [
        "epoch",
        "train",
        "loss",
        "val",
        "loss",
        "step",
        "size",
        "spectra/s",
        "left,",
        "at",
        "most",
    ]
    assert words[3] == ["1/10", "1", "0.7", "0.0005", "1,234"]
    # Six epochs of a minute are left, but for a quarter of one.
    assert words[-1] == ["5/10", "25%", "0.12346", "0.0002", "4,000", "0:05:45"]


def test_a_long_run_shows_its_last_epochs() -> None:
    words = [row.split()[0] for row in text(table(history(50), {}, 60))]
    assert words[-2:] == ["50/60", "0:10:00"]
    assert len(words) < 15


def test_time_left_is_known_within_the_first_epoch() -> None:
    # 15 s for a quarter: 45 s more, and nine epochs of a minute.
    assert remaining([], WITHIN | {"epoch": 1}, 10) == 45 + 9 * 60
    assert remaining([], {}, 10) is None
    # What an earlier epoch has left behind is not looked at.
    assert remaining(history(5), WITHIN, 10) == 5 * 60
    assert remaining(history(10), {}, 10) == 0


def test_a_line_says_the_last_epoch() -> None:
    expected = (
        "epoch 4/10: train 0.25, val 0.6, step 6.3e-05, 1,234 spectra/s, 0:06:00 left at most"
    )
    assert line(history(4), 10) == expected


def test_a_log_has_a_line_and_not_one_for_each_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SHOWN_S", 0.01)
    curves.write(history(2), tmp_path / curves.LINES)
    (tmp_path / NOW).write_text("left behind by a run that was killed")
    with caplog.at_level(logging.INFO), shown(tmp_path, 10, Console(file=io.StringIO())):
        time.sleep(0.05)
        curves.write(history(3), tmp_path / curves.LINES)
        wait_until(lambda: "epoch 3/10" in caplog.text)
        for epochs in range(4, 9):
            curves.write(history(epochs), tmp_path / curves.LINES)
            time.sleep(0.02)
    # What was done before is not told again; what comes soon after a line waits, the last does not.
    assert re.findall(r"epoch (\d+)/10", caplog.text) == ["3", "8"]
    assert not (tmp_path / NOW).exists()


def wait_until(done: object) -> None:
    for _ in range(1000):
        if done():  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError


def test_a_terminal_has_a_table_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOWN_S", 0.01)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with shown(tmp_path, 10, console):
        curves.write(history(4), tmp_path / curves.LINES)
        (tmp_path / NOW).write_text(json.dumps(WITHIN))
        wait_until(lambda: "25%" in screen.getvalue())
    assert "4/10" in screen.getvalue()
    # The cursor goes up, to write over what was there.
    assert "\x1b[1A" in screen.getvalue()


def test_a_failure_is_not_kept_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), shown(tmp_path, 10, Console(file=io.StringIO())):
        raise KeyError("worker")


def test_a_pulse_is_written_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pulse = Pulse(tmp_path / NOW, last=now)
    steps: list[Step] = []
    learn(task(epochs=1, batch_size=100), tell=steps.append)
    pulse(steps[0])
    assert not pulse.path.exists()
    now = 101.5
    pulse(steps[1])
    pulse(steps[2])
    said = json.loads(pulse.path.read_text())
    assert (said["epoch"], said["batch"], said["batches"]) == (1, 2, 3)
    assert said.keys() == {*WITHIN}


def test_by_sums_there_is_no_loss_within_an_epoch() -> None:
    said: list[Record] = []
    learn(task("ppca", epochs=1, batch_size=100), tell=lambda step: said.append(step.record()))
    assert said[0].keys() == {*WITHIN} - {"train"}
    assert text(table([], said[0], 10))


def test_curves_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / curves.LINES
    assert curves.read(path) == []
    curves.write(history(3), path)
    assert curves.read(path) == history(3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "records",
    [
        history(30),
        history(1),
        [record | {"lr": 0.0, "train": -record["train"]} for record in history(5)],
    ],
    ids=["by gradient", "one epoch", "by sums, below zero"],
)
def test_curves_are_drawn(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / curves.PICTURE
    curves.draw(records, path, "fs-01234567")
    image = matplotlib.image.imread(path)
    assert min(image.shape[:2]) > 500
    # Something is on it.
    assert image[..., :3].std() > 0.05
    assert list(tmp_path.iterdir()) == [path]
