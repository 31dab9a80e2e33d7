"""A survey and checkpoints of known content, made without files, Ray or workers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.card import Card
from storage.provenance import provenance
from storage.store import Survey
from storage.writer import writing
from tests.pipeline.stores import CONFIG, FRAME, GRID, build, put, verdict_of
from training import checkpoint, registry
from training.footprint import Footprint
from training.frame import Frame
from training.model import Denoiser
from training.recipe import ModelCard
from training.verdict import Verdict

SPECTRA = f"spectra/{CONFIG}"
FOOTPRINT = Footprint(z=(0.02, 0.13), snr_g=(3, 30), classes=("GALAXY",), snr_ceiling=20)
"Some rows of the survey are outside, some above its ceiling."
GOOD, POOR = verdict_of(0.5), verdict_of(1.0)


def ingested(folder: Path, n: int = 600) -> str:
    """A store with spectra and their truth; the last three rows are bad, sky, and a star."""
    known, path = build(folder / "parts", n=n, products=()), str(folder / "survey.icechunk")
    truth = Survey.open(known.card.store).dataset(f"truth/{CONFIG}").load()
    columns = known.columns
    columns["digest"].values[:] = [f"{row:032x}" for row in range(n)]
    Survey.create(path)
    with writing(path, "ingest") as writer:
        about = {"grid": GRID.model_dump(), **provenance()}
        put(writer, SPECTRA, columns, about)
        put(writer, f"truth/{CONFIG}", truth, about)
        for group in (f"truth/{CONFIG}", SPECTRA):
            writer.set_attrs(group, {"complete": True})
            writer.commit(f"{group}: complete", {"group": group})
    return path


def card_of(folder: Path, *routes: dict[str, str], **tables: Any) -> Card:
    """The card of a folder; tables replace or join its own."""
    denoise = {"route": list(routes), **tables.pop("denoise", {})}
    return Card.model_validate(
        {
            "run": {"dir": str(folder)},
            "survey": {"root": "files", "config": CONFIG},
            "denoise": denoise if routes else {},
            **tables,
        }
    )


def factors(path: str, components: int = 4, frame: Frame = FRAME) -> tuple[ModelCard, Denoiser]:
    """A ppca whose mean and loadings are the principal components of the noiseless spectra."""
    ds = Survey.open(path).dataset(SPECTRA).isel(spectrum=slice(0, 200))
    flux, z, ebv = (ds[name].to_numpy() for name in ("model", "z", "ebv"))
    batch = frame.on(GRID).to(flux, np.ones_like(flux), z, ebv)
    made = ModelCard(model="ppca", options={"components": components})
    model = made.build(frame.grid)
    mean = batch.x.mean(0)
    _, widths, vectors = torch.linalg.svd(batch.x - mean, full_matrices=False)
    loading = vectors[:components].T * widths[:components] / len(flux) ** 0.5
    model.load_state_dict({**model.state_dict(), "mean": mean, "loading": loading})
    return made, model


def save(
    folder: Path,
    name: str,
    made: tuple[ModelCard, Denoiser] | None = None,
    *,
    verdict: Verdict | None = GOOD,
    frame: Frame = FRAME,
    **options: Any,
) -> Path:
    """A checkpoint and its alias, as train leaves them; a filter where no model is given."""
    if made is None:
        plain = ModelCard(model="butterworth", options=options)
        made = plain, plain.build(frame.grid)
    about = checkpoint.Card(
        model=made[0].model,
        options=made[0].options,
        frame=frame,
        footprint=FOOTPRINT,
    )
    path = checkpoint.save(folder / "checkpoints", name, made[1], about)
    if verdict is not None:
        checkpoint.write_verdict(path, verdict.model_dump(mode="json"))
    registry.set_alias(folder / "checkpoints", name, path)
    return path
