"""A small run by the command, and what a test does with one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import icechunk
import psutil

from pipeline.card import Card, load
from storage.store import Survey, location

SPECMILL = Path(sys.executable).with_name("specmill")
ROWS, BLOCKS = 1050, 3
CARD = """
[run]
dir = "run"
commit_blocks = 1

[survey]
root = "run/survey"

[simulate]
mock = "mock-v1"
n = 1000
repeats = 0.05

[[train.model]]
name = "ppca"
overrides = { "options.components" = 8, "fit.epochs" = 5 }

[[train.model]]
name = "mean"

[[train.model]]
name = "butterworth"

[verdict]
n = 120
reference = 400
calibrate = 100

[denoise]
unproven = true

[[denoise.route]]
where = "class == 'GALAXY'"
model = "ppca"

[[denoise.route]]
model = "none"
reason = "only galaxies have a model in this run"

[measure]
inputs = ["raw", "raw@frame", "truth@frame", "denoised"]

[report]
examples = 1

[cluster]
memory = "1GiB"
"""


def specmill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a folder; paths on a card are relative to it."""
    return subprocess.run(
        [str(SPECMILL), *words], cwd=folder, capture_output=True, text=True, timeout=280
    )


def card_of(folder: Path, *settings: str) -> Card:
    """The card of a run's folder, for use from anywhere."""
    paths = (f"run.dir={folder / 'run'}", f"survey.root={folder / 'run' / 'survey'}")
    return load(str(folder / "card.toml"), [*paths, *settings])


def store_of(folder: Path) -> str:
    """The store of a run's folder."""
    return str(folder / "run" / "survey.icechunk")


def copied(run: Path, target: Path) -> Path:
    """A copy of a run's folder; files that are never written twice are only linked."""
    linked = ("survey", "survey.icechunk")
    shutil.copytree(run, target, ignore=shutil.ignore_patterns(*linked))
    for name in linked:
        shutil.copytree(run / "run" / name, target / "run" / name, copy_function=os.link)
    return target


def rewind(folder: Path, group: str) -> None:
    """Take a store back to the version before a group was made."""
    versions = Survey.open(store_of(folder)).history()
    first = max(i for i, v in enumerate(versions) if v.metadata.get("group") == group)
    repository = icechunk.Repository.open(location(store_of(folder)))
    repository.reset_branch("main", versions[first + 1].snapshot)


def contents(path: str, group: str) -> dict[str, bytes]:
    """The bytes of every array of a group, but for the times of the files."""
    ds = Survey.open(path).dataset(group)
    names = [str(name) for name in ds.variables if name != "source_time"]
    found = {name: ds[name].to_numpy() for name in names}
    return {
        name: "\n".join(values.tolist()).encode() if values.dtype.kind in "TO" else values.tobytes()
        for name, values in found.items()
    }


def marked(mark: str) -> list[psutil.Process]:
    """Processes that began with SPECMILL_TEST=<mark>, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPECMILL_TEST") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found
