"""Ingest: a folder of survey files becomes the groups /spectra and /truth of a store."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from distributed import Client

from pipeline import blocks, simulate, truth
from pipeline.card import Card
from pipeline.stage import config_of, origin, reader, target
from storage import objects, schema
from storage.grid import Grid
from storage.reader import Reader, Source
from storage.schema import Reason, Split, Status
from storage.store import Survey, exists
from storage.writer import Writer, writing

logger = logging.getLogger(__name__)

STEP_ROWS = 65_536
"Rows that one step of ingest appends."


def is_done(card: Card) -> bool:
    """Whether the files of the card, and their truth, are all in its store."""
    if not exists(card.store):
        return False
    survey, group = Survey.open(card.store), f"spectra/{config_of(card)}"
    if group not in survey or not (attrs := survey.attrs(group)).get("complete"):
        return False
    return _same_files(card, attrs) and _same_split(card, attrs) and truth.is_done(card, survey)


def _same_files(card: Card, attrs: dict[str, Any]) -> bool:
    """Whether the folder holds what the store was made from; files may be put away afterwards."""
    try:
        sources = reader(card).find(card.survey.root, config_of(card))
        end, found = 0, []
        for step in _steps(sources):
            found.append(_fingerprint(card.survey.root, end, step))
            end += sum(source.rows for source in step)
    except FileNotFoundError:
        return bool(attrs["survey_root"] == card.survey.root)
    return bool(found == attrs["steps"])


def _same_split(card: Card, attrs: dict[str, Any]) -> bool:
    wanted = card.split.model_dump()
    return bool(attrs.get("split", wanted) == wanted)


@dataclass(frozen=True)
class Read:
    """Rows of a group from the files: what a worker does."""

    reader: Reader
    config: str
    root: str
    sources: tuple[Source, ...]
    first: int
    "Row of the group where the sources begin."

    def __call__(self, block: blocks.Block) -> xr.Dataset:
        """Read a block."""
        parts = [self.reader.read(s, self.root, self.config) for s in self._parts(block)]
        ds = parts[0] if len(parts) == 1 else xr.concat(parts, "spectrum", combine_attrs="override")
        return schema.check(
            ds.drop_vars("wavelength"), f"{self.root} rows {block.first}:{block.last}"
        )

    def only(self, block: blocks.Block) -> "Read":
        """As much of it as a block needs: what is sent to a worker."""
        return replace(self, sources=tuple(self._parts(block)), first=block.first)

    def _parts(self, block: blocks.Block) -> Iterator[Source]:
        begin = self.first
        for source in self.sources:
            first, last = max(block.first, begin), min(block.last, begin + source.rows)
            if first < last:
                yield source.part(first - begin, last - begin)
            begin += source.rows


def require_files(card: Card) -> None:
    """Refuse a folder that is no survey, before workers are started or a store is made.

    Raises
    ------
    FileNotFoundError
        When the folder is not there or holds no file of the format.
    ValueError
        When it is a mock survey that is not whole.
    """
    simulate.require_whole(card.survey.root)
    next(reader(card).find(card.survey.root, config_of(card)))


def ingest(card: Card, client: Client) -> blocks.Tally:
    """Read every file below survey.root into the store; quarantined rows keep their place.

    Raises
    ------
    FileNotFoundError, ValueError
        As `require_files`; when the folder, or the card's split, has changed since the ingest
        of its store began.
    LeaseError
        When another process writes to the store.
    """
    form, config = reader(card), config_of(card)
    grid, group = form.configs[config], f"spectra/{config}"
    require_files(card)
    Survey.create(card.store)
    with writing(card.store, "ingest") as writer:
        end, done = 0, blocks.Tally()
        for step in _steps(form.find(card.survey.root, config)):
            begin, end = end, end + sum(source.rows for source in step)
            _extend(writer, card, group, grid, begin, step)
            # Room for a step is made when those before it are done.
            if end < writer.rows(group):
                continue
            make = Read(form, config, card.survey.root, step, begin)
            done += blocks.run(make, target=target(card, writer, group, grid.size), client=client)
        _finish(writer, card, group, form.identity, end)
        if truth.is_there(card):
            done += truth.ingest(card, writer, client)
        return done + blocks.tally(writer, group)


def _steps(sources: Iterator[Source]) -> Iterator[tuple[Source, ...]]:
    """Sources in groups of STEP_ROWS rows exactly, but for the last."""
    held: list[Source] = []
    rows = 0
    for source in sources:
        begin = 0
        while begin < source.rows:
            end = min(source.rows, begin + STEP_ROWS - rows)
            held.append(source.part(begin, end))
            rows += end - begin
            begin = end
            if rows == STEP_ROWS:
                yield tuple(held)
                held, rows = [], 0
    if held:
        yield tuple(held)


def _extend(
    writer: Writer, card: Card, group: str, grid: Grid, begin: int, step: tuple[Source, ...]
) -> None:
    """Make room for a step, or see that the room made before is for these very files."""
    new = _fingerprint(card.survey.root, begin, step)
    end = begin + sum(source.rows for source in step)
    made = writer.attrs(group)["steps"] if group in writer else []
    if new in made:
        return
    if made and (made[-1][1] > begin or writer.attrs(group).get("complete")):
        raise ValueError(
            f"{card.survey.root}: its files are not those that {card.store} was made from "
            f"({made[-1][1]} rows), and a store cannot grow yet: put the folder back as it was, or "
            "give survey.store a new path to ingest what is there now"
        )
    if not made:
        attrs = {**origin(card), "survey_root": card.survey.root, "reader": card.survey.reader}
        writer.create_group(group, schema.template(end, grid), {**attrs, "grid": grid.model_dump()})
    else:
        writer.resize(group, end)
    writer.set_attrs(group, {"steps": [*made, new]})
    writer.commit(f"{group}: room for rows {begin}:{end}", {"group": group})


def _fingerprint(root: str, begin: int, step: tuple[Source, ...]) -> list[int | str]:
    """First and last row of a step, and a digest of the names of its files.

    Two mock surveys have the same names: there it is of the recipe too.
    """
    names = [str(Path(f).relative_to(root)) for s in step for f in s.files]
    told = "\n".join([*names, simulate.told(root)])
    digest = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
    return [begin, begin + sum(source.rows for source in step), digest]


def _finish(
    writer: Writer, card: Card, group: str, identity: Literal["target_id", "position"], rows: int
) -> None:
    """Objects, sides and duplicates: what only the whole survey can say."""
    attrs = writer.attrs(group)
    if attrs["steps"][-1][1] != rows:
        raise ValueError(
            f"{card.survey.root}: holds {rows} spectra, {card.store} was begun with "
            f"{attrs['steps'][-1][1]}; put the missing files back, or give survey.store a new path"
        )
    if not _same_split(card, attrs):
        raise ValueError(
            f"{card.store}: its objects were shared out by {attrs['split']}, the card's [split] "
            "says otherwise; put it back, or give survey.store a new path"
        )
    if attrs.get("complete"):
        return
    columns = {name: writer.read_column(group, name) for name in _NEEDED}
    good = columns["status"] == Status.DONE
    place = [np.where(good, columns[name], np.nan) for name in ("ra", "dec")]
    names = [columns[name] for name in ("survey", "target_id", "observation")]
    found = objects.assign(names[0], names[1], names[2], place[0], place[1], identity)
    side = objects.split(found.object_id, card.split.salt, card.split.shares)
    side[found.bridged & (side == Split.TRAIN)] = Split.NONE
    new = {"object_id": found.object_id, "split": side, **_duplicates(columns)}
    writer.write_columns(group, 0, new)
    writer.set_attrs(group, {"complete": True, "split": card.split.model_dump()})
    writer.commit(f"{group}: objects and split", {"group": group})


_NEEDED = (
    "survey",
    "target_id",
    "observation",
    "ra",
    "dec",
    "status",
    "reason_code",
    "reason",
    "digest",
    "source",
)


def _duplicates(columns: dict[str, Any]) -> dict[str, Any]:
    """The ledger with every second row of one observation, or of one file, quarantined."""
    status, code, reason = (columns[n].copy() for n in ("status", "reason_code", "reason"))
    rows = np.flatnonzero(status == Status.DONE)
    for key in ("observation", "digest"):
        values = columns[key][rows]
        _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
        again = (first[inverse] != np.arange(len(rows))) & (values != "")
        for row, original in zip(rows[again], rows[first[inverse[again]]], strict=True):
            status[row], code[row] = Status.QUARANTINED, Reason.DUPLICATE
            reason[row] = (
                f"{columns['source'][row]}: the same {key} as {columns['source'][original]}; "
                "remove one of the two files"
            )
    return {"status": status, "reason_code": code, "reason": reason}
