"""Files of spectra and a checkpoint of known content: what the tests of files share."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.cli import OK, main
from storage import schema
from storage.readers import desi, sdss
from storage.schema import Status
from tests.pipeline.scene import GOOD, save
from training.frame import Frame
from training.frames import named
from training.recipe import ModelCard
from training.verdict import Verdict

SDSS, DESI = sdss.build(), desi.build()
NAME = "spec-0266-51602-0001"
LEVEL = 10.0


def spectra(n: int = 1, grid: schema.Grid = sdss.GRID) -> xr.Dataset:
    """Galaxies with a break at 4000 A and noise of 1, S/N 10, that a footprint takes."""
    rng = np.random.default_rng(5)
    ds = schema.blank(n, grid)
    inside = (grid.wavelength > 3700) & (grid.wavelength < 9500)
    z = np.linspace(0.05, 0.1, n)
    rest = grid.wavelength / (1 + z[:, None])
    truth = LEVEL * (1 + 0.3 * np.tanh((rest - 4000) / 60))
    ds["ivar"][:] = np.where(inside, 1, 0)
    ds["flux"][:] = np.where(inside, truth + rng.normal(size=truth.shape), 0)
    ds["ra"][:], ds["dec"][:], ds["z"][:] = 150 + 1e-4 * np.arange(n), 2, z
    ds["ebv"][:], ds["ebv_known"][:], ds["class"][:] = 0.001, 1, "GALAXY"
    ds["target_id"][:] = [str(39633345008634465 + row) for row in range(n)]
    ds["observation"][:] = [f"{266 + row // 640:04d}-51602-{row % 640 + 1:04d}" for row in range(n)]
    ds["lsf"][:], ds["mjd"][:], ds["status"][:] = np.where(inside, 1, 0), 51602, Status.DONE
    return schema.check(ds)


def sdss_file(folder: Path, **columns: object) -> Path:
    """One SDSS file, with other values of some columns."""
    ds = spectra()
    for name, value in columns.items():
        ds[name][:] = value
    return Path(SDSS.write(ds, str(folder), "sdss")[0])


def model(folder: Path, verdict: Verdict | None = GOOD, frame: Frame | None = None) -> Path:
    """A checkpoint `wave` that knows the break, its errors and a few waves."""
    frame = frame or named("fs")
    card = ModelCard(model="ppca", options={"components": 4})
    made = card.build(frame.grid)
    wave = torch.from_numpy(frame.grid.wavelength).float()
    shape = 1 + 0.3 * torch.tanh((wave - 4000) / 60)
    loading = torch.stack([0.1 * torch.sin(wave / length) for length in (8, 15, 300, 600)], 1)
    mean = frame.level * shape / shape[-500:].mean()
    made.load_state_dict({**made.state_dict(), "mean": mean, "loading": loading})
    return save(folder, "wave", (card, made), verdict=verdict, frame=frame)


@dataclass(frozen=True)
class Said:
    """What the command answered."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


def command(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`specmill denoise`, in this process."""

    def run(*words: object) -> Said:
        patch.setattr(sys, "argv", ["specmill", "denoise", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        code, said = ended.value.code, capsys.readouterr()
        return Said(code if isinstance(code, int) else OK, said.out, said.err)

    return run
