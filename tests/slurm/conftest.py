"""What the tests on a real Slurm share: the cluster, and a line that says whether there was one."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import cluster, missing

Say = Callable[..., str]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of two virtual nodes; the environment of its commands."""
    if why := missing():
        pytest.skip(f"no real Slurm: {why}")
    with cluster(tmp_path_factory.mktemp("slurm")) as here:
        yield here


@pytest.fixture
def say(slurm: dict[str, str], tmp_path: Path) -> Say:
    """Run a command there, in the test's folder; gives what it printed. Status None: any."""

    def run(*words: str, status: int | None = 0) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=os.environ | slurm, capture_output=True, text=True, check=False
        )
        assert status in (None, done.returncode), f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what became of these tests: a skipped one looks like one that passed."""
    count = {
        word: sum("tests/slurm/" in report.nodeid for report in terminalreporter.getreports(word))
        for word in ("passed", "failed", "skipped")
    }
    if any(count.values()):
        said = ", ".join(f"{n} {word}" for word, n in count.items() if n)
        terminalreporter.write_line(f"on a real Slurm: {said} {missing()}".rstrip())
