"""Checkpoint: a trained model on disk, named by what it is: <name>-<digest8>/, and how it is used.

    model.safetensors   what was learnt
    card.json           architecture, frame, footprint, how it was trained
    verdict.json        what it is worth; added later, so outside the digest
    errors.json         what errors its indices have (`training.calibrated`); outside it, too
    origin.json         when, where and by what it was taught (`training.origin`); outside it, too

The digest is blake2b over the bytes of the first two files, one after the other.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file

from storage import schema
from storage.grid import Grid
from storage.whole import replace
from training import calibrated, origin
from training.apply import ROWS, Precision, apply
from training.batch import Batch
from training.calibrated import Calibrated
from training.device import device_of, download
from training.footprint import Footprint
from training.frame import Frame
from training.model import Denoiser, Output
from training.origin import Origin
from training.recipe import ModelCard

MODEL, CARD, VERDICT = "model.safetensors", "card.json", "verdict.json"


class Card(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    "A module on the shelf training.models."
    options: dict[str, Any] = Field(default_factory=dict)
    "What its build() takes besides the grid of the frame."
    frame: Frame
    "How it sees spectra."
    footprint: Footprint | None = None
    "Where it applies; None: not known."
    training: dict[str, Any] = Field(default_factory=dict)
    "Recipe, rows, split, seed, epochs, metrics: what is the same wherever it is trained."
    code: str = ""
    "Version of the code that trained it; of all that did, where a newer one went on."


class Flag(IntFlag):
    """What `Checkpoint.denoise` warns of."""

    UNUSABLE = 1
    "No redshift, or no flux to normalise by: the result is 0."
    MISSING = 2
    "More pixels are missing than the footprint allows."
    REDSHIFT = 4
    "Outside the footprint's redshifts."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model, in eval mode."""

    path: Path
    "Its directory."
    name: str
    "Without the digest."
    digest: str
    "blake2b of model.safetensors and card.json, hex."
    card: Card
    "What it says of itself."
    model: Denoiser
    "On the device that it was loaded to."

    @property
    def digest8(self) -> str:
        """First 8 hex digits of the digest."""
        return self.digest[:8]

    @property
    def label(self) -> str:
        """Name and digest8: the name of its products."""
        return f"{self.name}-{self.digest8}"

    @property
    def frame(self) -> Frame:
        """How it sees spectra."""
        return self.card.frame

    @property
    def footprint(self) -> Footprint | None:
        """Where it applies."""
        return self.card.footprint

    @cached_property
    def verdict(self) -> dict[str, Any] | None:
        """What was found of it; None when it was never judged."""
        file = self.path / VERDICT
        return json.loads(file.read_text()) if file.exists() else None

    @property
    def errors(self) -> Calibrated | None:
        """The table of what errors its indices have, as it is now; None where there is none."""
        return calibrated.read(self.path)

    @property
    def origin(self) -> Origin | None:
        """When, where and by what it was taught; None where nobody wrote it down."""
        return origin.read(self.path)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model) or torch.device("cpu")

    def run(self, batch: Batch, precision: Precision = "float32") -> Output:
        """Denoise a batch whose first row is a multiple of 256, as `training.apply` says."""
        return apply(self.model, batch, precision)

    def denoise(
        self,
        wavelength: ArrayLike,
        flux: ArrayLike,
        ivar: ArrayLike,
        z: ArrayLike,
        ebv: ArrayLike = 0.0,
    ) -> xr.Dataset:
        """Denoise one spectrum or a million; memory beyond the result is that of 4,096 rows.

        Parameters
        ----------
        wavelength : (L,) float
            Vacuum A, even in A or in log10(A).
        flux, ivar : (N, L) or (L,) float
            Observed flux and its inverse variance; 0 is no data.
        z, ebv : (N,) or number
            Redshift; Galactic E(B-V), mag.

        Returns
        -------
        Dataset
            flux and sigma (spectrum, wavelength) on the frame's wavelengths, dereddened where the
            frame is, in the unit of the input; latent, flags, scale. No sigma or latent where the
            model has none. One spectrum in, no axis `spectrum` out.

        Raises
        ------
        ValueError
            When the shapes do not fit or the wavelengths are not even.
        """
        flux_NL, ivar_NL = np.atleast_2d(flux), np.atleast_2d(ivar)
        grid = Grid.infer(wavelength)
        if flux_NL.shape != ivar_NL.shape or flux_NL.shape[1:] != (grid.size,):
            raise ValueError(
                f"flux {flux_NL.shape}, ivar {ivar_NL.shape} and wavelength ({grid.size},) do not "
                "fit; expected (N, L), (N, L) and (L,)"
            )
        rows = len(flux_NL)
        z_N, ebv_N = (np.broadcast_to(np.asarray(value, "f8"), rows) for value in (z, ebv))
        mapper = self.frame.on(grid)
        step = 16 * ROWS
        blocks = []
        for first in range(0, rows, step):
            part = slice(first, first + step)
            rows_N = flux_NL[part], ivar_NL[part], z_N[part], ebv_N[part]
            batch = mapper.to(*rows_N, device=self.device)
            blocks.append(self._dataset(batch, self.run(batch)))
        found = xr.concat(blocks, dim="spectrum").assign_attrs(model=self.label)
        return found.isel(spectrum=0) if np.ndim(flux) == 1 else found

    def _dataset(self, batch: Batch, output: Output) -> xr.Dataset:
        scale = batch.scale[:, None]
        pixels = ("spectrum", "wavelength")
        usable = batch.ok[:, None]
        values = {"flux": (pixels, download(output.flux * scale * usable))}
        if output.sigma is not None:
            values["sigma"] = (pixels, download(output.sigma * scale * usable))
        if output.latent is not None:
            values["latent"] = (("spectrum", "latent"), download(output.latent))
        return xr.Dataset(
            {
                **values,
                "flags": ("spectrum", self._flags(batch)),
                "scale": ("spectrum", download(batch.scale)),
            },
            coords={"wavelength": schema.wavelength(self.frame.grid)},
        )

    def _flags(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.uint8]]:
        flags = np.where(download(batch.ok), 0, Flag.UNUSABLE).astype("u1")
        if self.footprint is not None:
            missing = download(batch.missing)
            flags[missing > self.footprint.missing] |= int(Flag.MISSING)
            low, high = self.footprint.z
            z = download(batch.z)
            flags[~((z >= low) & (z <= high))] |= int(Flag.REDSHIFT)
        return flags


def save(folder: Path | str, name: str, model: Denoiser, card: Card) -> Path:
    """Write <folder>/<name>-<digest8>/, whole or not at all; gives its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        inside = Path(temporary) / name
        inside.mkdir()
        tensors = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, inside / MODEL)
        text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True)
        (inside / CARD).write_text(text + "\n")
        target = folder / f"{name}-{digest(inside)[:8]}"
        if not target.exists():
            inside.rename(target)
    return target


def load(path: Path | str, device: torch.device | None = None) -> Checkpoint:
    """Open a checkpoint, on a device; on the CPU, unless given.

    Raises
    ------
    FileNotFoundError
        When a file of it is missing.
    ValueError
        When the content is not what the directory's name says, the card cannot be read, or this
        version builds the model otherwise.
    """
    path = Path(path)
    for file in (MODEL, CARD):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path}: no {file}; a checkpoint is a directory with both")
    name, _, digest8 = path.name.rpartition("-")
    found = digest(path)
    if found[:8] != digest8:
        raise ValueError(
            f"{path}: the digest of {MODEL} and {CARD} begins with {found[:8]}, its name says "
            f"{digest8}; the content was changed or cut short: copy or train it again"
        )
    try:
        card = Card.model_validate_json((path / CARD).read_text())
    except ValidationError as error:
        raise ValueError(f"{path / CARD}: {error}; train it again with this version") from error
    model = _restored(path, card).eval().to(device or torch.device("cpu"))
    return Checkpoint(path=path, name=name, digest=found, card=card, model=model)


def _restored(path: Path, card: Card) -> Denoiser:
    try:
        model = ModelCard(model=card.model, options=card.options).build(card.frame.grid)
        model.load_state_dict(load_file(path / MODEL))
    # PyTorch lists every tensor that is of another name or shape.
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: {card.model!r} is built otherwise by this version, or its options are; "
            f"train it again ({error})"
        ) from error
    return model


def digest(path: Path) -> str:
    """blake2b of model.safetensors and card.json, hex."""
    found = hashlib.blake2b()
    for file in (MODEL, CARD):
        found.update((path / file).read_bytes())
    return found.hexdigest()


def write_verdict(path: Path | str, verdict: dict[str, Any]) -> None:
    """Put a verdict beside a checkpoint, in place of an older one."""
    replace(Path(path) / VERDICT, json.dumps(verdict, indent=2) + "\n")
