"""A small survey of the stars of star-v1 around the Ca II triplet, made without files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import xarray as xr
from distributed import Client

from pipeline.card import Card
from pipeline.stages import Machine, stage
from storage.grid import Grid
from storage.mocks.star import build
from storage.provenance import provenance
from storage.schema import ObjectType, Reason, Status, check
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.scene import card_of
from tests.pipeline.stores import CONFIG, put
from training import checkpoint, registry
from training.footprint import Footprint
from training.frame import Frame
from training.frames import named
from training.recipe import ModelCard

N, GALAXY, SKY, BAD = 40, 5, 6, 7
"Rows; and those that are no star to be measured."
SPECTRA = f"spectra/{CONFIG}"
GRID = Grid(kind="log", start=3.8487, step=1e-4, size=1000)
"7058-8885 A."
STARS = {"teff": (4000.0, 5000.0), "logg": (1.0, 4.0), "feh": (-1.5, 0.0), "alpha_m": (0.0, 0.25)}
TEMPLATES = {**STARS, "nodes": (5, 4, 4, 2), "wavelength": (8380.0, 8830.0)}
"What stars are, and what they are fitted with."


def ingested(folder: Path, n: int = N, **columns: Any) -> xr.Dataset:
    """A store with spectra of stars, and three rows that are none; gives the truth."""
    mock, path = build(**STARS, magnitude=(15.5, 17.0)), str(folder / "survey.icechunk")
    truth = mock.truth(n, GRID, seed=1, stream="survey")
    ds = mock.observe(truth, GRID, seed=1, stream="survey").copy(deep=True)
    ds["class"].values[GALAXY] = "GALAXY"
    ds["object_type"].values[SKY] = ObjectType.SKY
    ds["status"].values[BAD], ds["reason_code"].values[BAD] = Status.QUARANTINED, Reason.UNREADABLE
    ds["flux"].values[BAD], ds["ivar"].values[BAD] = 0, 0
    for name, values in columns.items():
        ds[name].values[:] = values
    Survey.create(path)
    with writing(path, "ingest") as writer:
        put(writer, SPECTRA, check(ds), {"grid": GRID.model_dump(), **provenance()})
        writer.set_attrs(SPECTRA, {"complete": True})
        writer.commit("complete", {"group": SPECTRA})
    return truth


def filter_on(folder: Path, name: str, frame: Frame | None = None) -> None:
    """The checkpoint of a low-pass filter, on the frame of stars unless another is given."""
    plain, frame = ModelCard(model="butterworth"), frame or named("star")
    known = Footprint(z=(-0.01, 0.01), snr_g=(0, 100), classes=("STAR",))
    about = checkpoint.Card(model=plain.model, frame=frame, footprint=known)
    path = checkpoint.save(folder / "checkpoints", name, plain.build(frame.grid), about)
    registry.set_alias(folder / "checkpoints", name, path)


def card(folder: Path, *routes: dict[str, str], templates: Any = None, **measure: Any) -> Card:
    """A card that asks for stars, and for nothing else to be measured."""
    fitted = TEMPLATES if templates is None else templates
    table = {"inputs": [], "stars": ["raw"], "star_templates": fitted, **measure}
    denoise = {"unproven": True, "outside": "flag"}
    return card_of(folder, *routes, denoise=denoise, measure=table)


def do(name: str, asked: Card, client: Client) -> str:
    """What a stage's command does, and says."""
    machine = SimpleNamespace(client=lambda: client, release=lambda: None)
    return stage(name, asked, cast(Machine, machine))
