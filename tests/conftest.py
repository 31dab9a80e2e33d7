"""What all tests share: the folder of real spectra, where there is one."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


# Before pytest-xdist looks at the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A finished run has workers too and is made in one process; Slurm is waited for first."""
    for item in items:
        group = f"{item.path.parent.name}/{item.path.name}"
        if "finished" in getattr(item, "fixturenames", ()):
            group = "finished"
            item.add_marker(pytest.mark.cluster)
        if item.config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if "slurm" in item.path.parts:
        return 0
    return 1 if "finished" in getattr(item, "fixturenames", ()) else 2


@pytest.fixture(scope="session")
def survey_data() -> Path:
    """Folder of real survey files: SPECMILL_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SPECMILL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real spectra at {folder}; set SPECMILL_DATA to their folder")
    return folder
