"""A survey of some blocks that costs little, for the tests that interrupt it."""

from pathlib import Path

from pipeline.card import Card, load
from storage.store import Survey, exists
from tests.pipeline.runs import contents

ROWS, BLOCKS = 1536, 3
CARD = f"""
[run]
dir = "run"
commit_blocks = 1

[survey]
root = "files"
reader = "tests.slurm.patient"

[survey.options]
patience = 0.01

[simulate]
mock = "sparse.toml"
n = {ROWS}
repeats = 0

[[denoise.route]]
model = "none"
reason = "nothing is trained here"

[measure]
inputs = ["raw"]

[cluster]
workers = 1
memory = "1GiB"
"""


def written(folder: Path, card: str = CARD) -> Path:
    """A folder with the card; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sparse.toml").write_text('mock = "tests.pipeline.surveys"\n')
    (folder / "card.toml").write_text(card)
    return folder


def card_of(folder: Path, *settings: str) -> Card:
    """The card of such a folder, for use from anywhere."""
    paths = (f"run.dir={folder / 'run'}", f"survey.root={folder / 'files'}")
    return load(str(folder / "card.toml"), [*paths, *settings])


def store_of(folder: Path) -> str:
    """The store of such a folder."""
    return str(folder / "run" / "survey.icechunk")


def rows_done(folder: Path) -> int:
    """Spectra that are in the store by now."""
    path, group = store_of(folder), "spectra/sdss"
    if not exists(path) or group not in (survey := Survey.open(path)):
        return 0
    return int((survey.dataset(group)["status"] != 0).sum())


def everything(folder: Path) -> dict[str, dict[str, bytes]]:
    """The bytes of every array of every group."""
    groups = Survey.open(store_of(folder)).groups()
    return {group: contents(store_of(folder), group) for group in groups}
