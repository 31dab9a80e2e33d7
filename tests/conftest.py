"""What all tests share: the folder of real spectra, where there is one."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A finished run has workers too, and is made once; what waits for Slurm begins first."""
    items.sort(key=lambda item: "slurm" not in item.path.parts)
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def survey_data() -> Path:
    """Folder of real survey files: SPECMILL_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SPECMILL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real spectra at {folder}; set SPECMILL_DATA to their folder")
    return folder
