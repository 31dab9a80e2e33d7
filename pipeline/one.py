"""One: files of spectra in, denoised files and a picture out, by one checkpoint; no store.

What a card says of the reader, the model and the indices holds here as well: the card is implied,
and `--set` changes it.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import ValidationError

from pipeline import one_files, route
from pipeline.card import Card, CardError
from pipeline.card_words import put, words
from pipeline.one_files import Known
from pipeline.one_product import joined, product_of
from pipeline.one_result import SUFFIX, Made, written
from pipeline.product import loaded, product
from storage import schema
from storage.border import Z_RANGE
from storage.schema import Status
from training.checkpoint import CARD

SETTINGS = (
    *("survey.options", "survey.config", "denoise.outside", "denoise.unproven"),
    *("measure.indices", "measure.draws"),
)
"What --set may change: nothing else of a card is of a file."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be done with files."""

    files: tuple[str, ...]
    "Paths."
    model: str
    "Folder of a checkpoint; or a name, digest or 'best', of those in `checkpoints`."
    checkpoints: str = ""
    "Folder of checkpoints, or of a run that has one."
    reader: str = ""
    "Survey format; found by the files' names when empty."
    z: float | None = None
    "Redshift, in place of the file's."
    rows: str = ""
    "Of each file, such as 0,4,10:20; all when empty."
    out: str = "."
    "Folder that is written to."
    force: bool = False
    "Whether files that are there are replaced."
    figure: bool = True
    "Whether pictures are drawn."
    unproven: bool = False
    "Whether a model whose verdict is failed or missing may be used."
    settings: tuple[str, ...] = ()
    "table.key=value, of the implied card."

    @property
    def is_card(self) -> bool:
        """Whether a card was given, which says all of this itself.

        Raises
        ------
        ValueError
            When files have no model, or a card comes with what is of files.
        """
        if not any(path.endswith(".toml") for path in self.files):
            if not self.model:
                raise ValueError("denoise FILE...: name the checkpoint with --model")
            return False
        if self != Asked(files=self.files[:1], model="", settings=self.settings):
            raise ValueError(
                "denoise: one CARD, which says everything itself or by --set, or FILEs of spectra "
                "with --model"
            )
        return True


def denoise_files(asked: Asked) -> Iterator[Made]:
    """Denoise files one after another, each whole or not at all.

    Nothing is written before all files, the model and the places of the results are found good.

    Raises
    ------
    FileNotFoundError
        When a file or the checkpoint is not there.
    FileExistsError
        When a result is there already, and may not be replaced.
    ValueError
        When no reader takes a file, the model's verdict is failed or missing and that was not
        allowed, or something was asked for that cannot be.
    """
    card = implied(asked)
    (chosen,) = route.plan(card).checkpoints or (None,)
    if chosen is None:
        raise ValueError("--model none: expected a checkpoint")
    with tempfile.TemporaryDirectory(prefix="specmill-") as folder:
        files = [
            one_files.recognised(path, card, asked.reader, Path(folder, str(number)))
            for number, path in enumerate(asked.files)
        ]
        rows = [one_files.chosen(asked.rows, known.rows, str(known.path)) for known in files]
        _require_one(asked, sum(map(len, rows)))
        targets = _targets(asked, files)
        for known, wanted, target in zip(files, rows, targets, strict=True):
            _make_ready(known, chosen)
            begun = time.perf_counter()
            found = _product(known, wanted, chosen, card, asked.z)
            seconds = time.perf_counter() - begun
            paths = written(known, chosen, found, target, z=asked.z, figure=asked.figure)
            yield Made(known=known, chosen=chosen, product=found, paths=paths, seconds=seconds)


def implied(asked: Asked) -> Card:
    """The card that the same words would make.

    Raises
    ------
    ValueError
        When a setting is of no use here, or no card has it.
    """
    folder, model = _model(asked)
    content: dict[str, Any] = {
        "run": {"dir": asked.out},
        "survey": {"root": "."},
        "denoise": {"checkpoints": folder, "unproven": asked.unproven, "outside": "flag"},
    }
    for setting in asked.settings:
        if not setting.startswith(tuple(f"{key}{end}" for key in SETTINGS for end in ".=")):
            raise CardError(f"--set {setting}: of files, expected one of {', '.join(SETTINGS)}")
        put(content, setting)
    content["denoise"]["route"] = [{"model": model}]
    try:
        return Card(**content)
    except ValidationError as error:
        said = (words("--set", item, Card.model_json_schema()) for item in error.errors())
        raise CardError("\n".join(said)) from error


def _model(asked: Asked) -> tuple[str, str]:
    """Folder of checkpoints, and which of them."""
    path = Path(asked.model)
    if (path / CARD).is_file():
        return str(path.absolute().parent), path.absolute().name
    if not asked.checkpoints:
        raise FileNotFoundError(
            f"--model {asked.model}: no checkpoint is there (a folder with {CARD}); give one, or a "
            "name and --checkpoints FOLDER"
        )
    inside = Path(asked.checkpoints, "checkpoints")
    return str(inside if inside.is_dir() else asked.checkpoints), asked.model


def _require_one(asked: Asked, spectra: int) -> None:
    """Refuse a redshift that cannot be, or that would be given to many."""
    if asked.z is None:
        return
    if not Z_RANGE[0] <= asked.z <= Z_RANGE[1]:
        raise ValueError(f"--z {asked.z:g}: expected {Z_RANGE[0]:g} to {Z_RANGE[1]:g}")
    if spectra > 1:
        raise ValueError(
            f"--z is the redshift of one spectrum, and here are {spectra}; choose one with --rows"
        )


def _targets(asked: Asked, files: list[Known]) -> list[Path]:
    """The FITS file of each; its picture has the same name with .png."""
    found = [Path(asked.out, f"{known.stem}{SUFFIX}") for known in files]
    for place, target in enumerate(found):
        if target in found[:place]:
            twice = files[found.index(target)].path
            raise ValueError(f"{twice} and {files[place].path} would both be written to {target}")
        for path in (target, target.with_suffix(".png")):
            if path.exists() and not asked.force:
                raise FileExistsError(f"{path}: is there already; --force replaces it")
    return found


def _make_ready(known: Known, chosen: route.Chosen) -> None:
    """What is made once, for the first file: what a model gives, and the way to its frame."""
    model = loaded(chosen.path)
    product(0, model)
    model.frame.on(known.grid)
    schema.wavelength(known.grid)


def _product(
    known: Known, wanted: list[int], chosen: route.Chosen, card: Card, z: float | None
) -> xr.Dataset:
    parts, first = [], 0
    for ds in known.read(wanted):
        if z is not None:
            # Whoever gives a redshift vouches for it.
            good = ds["status"].to_numpy() == Status.DONE
            for name, value in (("z", z), ("z_err", np.nan), ("zwarn", 0)):
                ds[name].to_numpy()[good] = value
        parts.append(product_of(ds, known.grid, chosen.path, card, first))
        first += ds.sizes["spectrum"]
    return joined(parts)
