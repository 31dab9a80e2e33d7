"""Origin: when, where and by what a model was taught; it lies beside what it is of.

A run has one while it learns, a checkpoint has it in the end: outside the digest, since the same
spectra and card give the same model on any day.
"""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.provenance import code_version
from storage.whole import replace

FILE = "origin.json"
PACKAGES = ("specmill", "numpy", "ray", "torch")


class Origin(BaseModel):
    """What is known of how a model came to be, but for what its card says."""

    # A later version may say more.
    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str = ""
    "Digest of what was to be learnt, whatever the number of workers."
    snapshot: str = ""
    "Of the survey that its spectra were read at."
    code: tuple[str, ...] = ()
    "Version of the code that taught it; several, in order, where a newer one went on."
    workers: int = 1
    "Ranks that learnt together, each from batches of the card's size."
    threads: int = 1
    "Of each."
    device: str = "cpu"
    "What the first rank computed on."
    date: str = ""
    "When it was begun, or gone on with for the last time; UTC."
    seconds: float = 0.0
    "Of all epochs."
    packages: dict[str, str] = Field(default_factory=dict)
    "Versions, by name."

    @property
    def words(self) -> str:
        """The day, the time it took, and on what."""
        ranks = f"{self.workers} x " if self.workers > 1 else ""
        return f"{self.date[:10]}, {self.seconds:.0f} s on {ranks}{self.device}"


def here(task: str, workers: int, threads: int, device: torch.device) -> Origin:
    """What is taught now, by this code, on this machine."""
    return Origin(
        task=task,
        code=(code_version(),),
        workers=workers,
        threads=threads,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        packages={name: version(name) for name in PACKAGES},
    )


def note(folder: Path, origin: Origin, goes_on: bool) -> None:
    """Put an origin into the folder of a run that begins, or goes on with what others began."""
    before = read(folder) if goes_on else None
    codes = before.code if before else ()
    if codes[-1:] != origin.code:
        codes += origin.code
    write(folder, origin.model_copy(update={"code": codes}))


def write(folder: Path, origin: Origin) -> None:
    """Put an origin beside a checkpoint, or into a run, in place of an older one."""
    replace(folder / FILE, origin.model_dump_json(indent=2) + "\n")


def read(folder: Path) -> Origin | None:
    """The origin that lies in a folder; None where there is none, as of older checkpoints.

    Raises
    ------
    ValueError
        When it cannot be read; names the file.
    """
    try:
        return Origin.model_validate_json((folder / FILE).read_text())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{folder / FILE}: {error}; remove it, nothing depends on it") from error
