"""What every stage of a card needs: its reader, its grid, its way of filling a group."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr
from pydantic import ValidationError

from pipeline.block import Target
from pipeline.blocks import block_chunks
from pipeline.card import Card
from storage.grid import Grid
from storage.names import resolve
from storage.place import is_bucket
from storage.provenance import provenance
from storage.reader import Reader
from storage.store import Survey
from storage.velocity import C_KMS
from storage.writer import CHUNK_ROWS, Writer


def reader(card: Card) -> Reader:
    """The survey format of a card, with its options.

    Raises
    ------
    ValueError
        When there is no such format, or an option is unknown or wrong; names it.
    """
    name, options = card.survey.reader, card.survey.options
    module = resolve("storage.readers", name)
    try:
        return cast(Reader, module.build(**options))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"[survey.options] of reader {name}: {said}") from error
    except TypeError as error:
        raise ValueError(f"[survey.options] of reader {name}: {error}") from error


def config_of(card: Card) -> str:
    """The instrument configuration of a card."""
    known = reader(card).configs
    config = card.survey.config or next(iter(known))
    if config not in known:
        raise ValueError(
            f"survey.config: {card.survey.reader} has no {config!r} (there: {', '.join(known)})"
        )
    return config


def grid_of(survey: Survey, group: str) -> Grid:
    """The wavelength axis of a group, exactly as ingest or denoise recorded it."""
    return Grid(**survey.attrs(group)["grid"])


def snapshot_of(survey: Survey, group: str) -> str:
    """The newest version in which a group itself was changed: the same however others grow.

    Raises
    ------
    ValueError
        When no version says so.
    """
    for version in survey.history():
        said = version.metadata
        if said.get("group") == group or group in said.get("groups", ()):
            return version.snapshot
    raise ValueError(f"{survey.path}: no version in its history changed {group}; ingest it again")


def everywhere(store: str) -> str:
    """The path of a store for workers, who may stand in another folder."""
    return store if is_bucket(store) else str(Path(store).absolute())


@lru_cache(maxsize=4)
def reading(store: str, snapshot: str) -> Survey:
    """A survey at a snapshot, opened once per process."""
    return Survey.open(store, snapshot=snapshot)


def require_ingested(survey: Survey, group: str) -> None:
    """Refuse to build on an ingest that is not finished.

    Raises
    ------
    ValueError
        When the spectra are not all there; says what makes them so.
    """
    if group not in survey or not survey.attrs(group).get("complete"):
        raise ValueError(
            f"{survey.path}: {group} is not ingested whole; `specmill ingest CARD` goes on with it"
        )


def footprint_columns(
    spectra: xr.Dataset, grid: Grid, column: Callable[[str], np.ndarray] | None = None
) -> xr.Dataset:
    """What a footprint looks at of each spectrum; column: gives the values of one by its name."""
    # No dispersion: pipelines give it below their resolution and at the edge of their search, and
    # at S/N 5 it scatters by tens of km/s, so a bound would put galaxies out by their noise. Nor is
    # one missed: what `outside` finds of a model hardly depends on it from 40 to 400 km/s.
    values = column or (lambda name: spectra[name].to_numpy())
    columns = {name: ("spectrum", values(name)) for name in ("z", "snr_g", "class", "zwarn")}
    # Every 16th pixel is enough for a median. In pixels, line spreads of surveys are all alike.
    pixel_kms = (C_KMS * grid.widths / grid.wavelength)[::16]
    lsf_kms = values("lsf")[:, ::16] * pixel_kms.astype("f4")
    return xr.Dataset({**columns, "lsf_kms": (("spectrum", "sparse"), lsf_kms)})


def origin(card: Card) -> dict[str, Any]:
    """Attributes that say which card, code, packages and threads a group is from."""
    return {
        **provenance(),
        "card_digest": card.digest,
        "threads_per_worker": card.cluster.resources().threads,
    }


def target(
    card: Card, writer: Writer, groups: Sequence[str], pixels: int, arrays: int = 8
) -> Target:
    """How a stage of a card fills groups: blocks and commits as the card's cluster allows.

    pixels, arrays : values in one row of the widest array, and how many such arrays a worker holds.
    """
    cluster = card.cluster
    rows = writer.rows(groups[0])
    about = {"card": card.digest, "code": provenance()["code_version"]}
    return Target(
        writer=writer,
        groups=tuple(groups),
        chunk_rows=CHUNK_ROWS,
        block_chunks=block_chunks(
            rows, CHUNK_ROWS, 4 * pixels * arrays, int(cluster.memory), cluster.workers
        ),
        commit_blocks=card.run.commit_blocks,
        commit_s=card.run.commit_s,
        metadata={**about, **({"group": groups[0]} if len(groups) == 1 else {})},
    )
