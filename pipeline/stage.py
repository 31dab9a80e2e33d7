"""What every stage of a card needs: its reader, its grid, its way of filling a group."""

from functools import lru_cache
from typing import Any, cast

import xarray as xr
from pydantic import ValidationError

from pipeline import blocks
from pipeline.card import Card
from storage.grid import Grid
from storage.names import resolve
from storage.provenance import provenance
from storage.reader import Reader
from storage.schema import COLUMNS
from storage.store import Survey
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
        if version.metadata.get("group") == group:
            return version.snapshot
    raise ValueError(f"{survey.path}: no version in its history changed {group}; ingest it again")


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


def footprint_columns(spectra: xr.Dataset) -> xr.Dataset:
    """What a footprint looks at of each spectrum."""
    # Pipelines give dispersions below their resolution and at the edge of their search, which say
    # nothing of a galaxy: a default footprint does not look at them.
    columns = spectra[[name for name in COLUMNS if name in spectra and name != "vdisp"]]
    # Every 16th pixel is enough for a median.
    spread = spectra["lsf"].isel(wavelength=slice(None, None, 16))
    columns = columns.drop_vars("wavelength", errors="ignore")
    return columns.assign(lsf=(("spectrum", "sparse"), spread.to_numpy()))


def origin(card: Card) -> dict[str, Any]:
    """Attributes that say which card, code, packages and threads a group is from."""
    return {
        **provenance(),
        "card_digest": card.digest,
        "threads_per_worker": card.cluster.resources().threads,
    }


def target(card: Card, writer: Writer, group: str, pixels: int, arrays: int = 8) -> blocks.Target:
    """How a stage of a card fills a group: blocks and commits as the card's cluster allows.

    pixels, arrays : values in one row of the widest array, and how many such arrays a worker holds.
    """
    cluster = card.cluster
    rows = writer.rows(group)
    return blocks.Target(
        writer=writer,
        group=group,
        chunk_rows=CHUNK_ROWS,
        block_chunks=blocks.block_chunks(
            rows, CHUNK_ROWS, 4 * pixels * arrays, int(cluster.memory), cluster.workers
        ),
        commit_blocks=card.run.commit_blocks,
        commit_s=card.run.commit_s,
        metadata={"group": group, "card": card.digest, "code": provenance()["code_version"]},
    )
