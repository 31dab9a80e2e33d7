"""What the tests of the pipeline share: one finished run, and workers."""

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed import Client

from deploy.backends import local
from deploy.job import Resources
from storage.writer import Writer
from tests.pipeline.runs import CARD, SPECMILL, copied, marked
from tests.pipeline.surveys import CHUNK


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run from simulate to report, made by `specmill run` in a process of its own."""

    folder: Path
    "Holds card.toml and run/."
    status: int
    "Exit status."
    said: str
    "What it printed."
    left: list[str]
    "Processes that outlived it."
    owners: list[set[str]]
    "Who had processes, among ray and dask, each time that somebody looked."


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, mark = tmp_path_factory.mktemp("finished"), secrets.token_hex(8)
    (folder / "card.toml").write_text(CARD)
    owners = []
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [str(SPECMILL), "run", "card.toml"],
            cwd=folder,
            stdout=said,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "SPECMILL_TEST": mark},
        )
        while process.poll() is None:
            owners.append(_owners(process.pid))
            time.sleep(0.2)
    left = [" ".join(found.cmdline())[:200] for found in marked(mark)]
    return Finished(
        folder=folder,
        status=process.returncode,
        said=(folder / "said").read_text(),
        left=left,
        owners=owners,
    )


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, to do anything with."""
    return copied(finished.folder, tmp_path / "copy")


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Two workers."""
    with local.cluster(Resources(workers=2), tmp_path_factory.mktemp("workers")) as found:
        yield found


def _owners(pid: int) -> set[str]:
    found = set()
    try:
        for child in psutil.Process(pid).children(recursive=True):
            words = " ".join(child.cmdline())
            if "raylet" in words or "gcs_server" in words:
                found.add("ray")
            if "multiprocessing.spawn" in words:
                found.add("dask")
    except psutil.Error:
        pass
    return found


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    """Some thirty rows are several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stage.CHUNK_ROWS", CHUNK)
        patch.setattr(Writer.create_group, "__defaults__", (CHUNK,))
        yield
