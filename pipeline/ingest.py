"""Ingest: a folder of survey files becomes the groups /spectra and /truth of a store.

What is new is appended, what has changed is read again in its place, and what was read stays.
"""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from distributed import Client

from pipeline import arrivals, blocks, simulate, truth
from pipeline.arrivals import Files, Folder, Integers, Known, Step
from pipeline.card import Card
from pipeline.plan import NAMED, Plan, changed_files, look
from pipeline.read import Read
from pipeline.settle import settle
from pipeline.stage import config_of, everywhere, origin, reader, target
from storage import schema
from storage.reader import Reader
from storage.schema import Reason, Status
from storage.store import Survey, exists
from storage.writer import Writer, writing

logger = logging.getLogger(__name__)


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


def is_done(card: Card) -> bool:
    """Whether the files of the card, and their truth, are all in its store as they are now."""
    if not exists(card.store):
        return False
    survey, group = Survey.open(card.store), f"spectra/{config_of(card)}"
    if group not in survey or not (attrs := survey.attrs(group)).get("complete"):
        return False
    if not (_same_split(card, attrs) and truth.is_done(card, survey)):
        return False
    try:
        return _same_mock(card, attrs) and not look(card)[1]
    except FileNotFoundError:
        # Files may be put away once they are in the store.
        return bool(attrs["survey_root"] == card.survey.root)


def plan(card: Card) -> Plan:
    """What `ingest` would do; reads names, sizes and times of files, and what has changed.

    Raises
    ------
    FileNotFoundError, ValueError
        As `require_files`.
    """
    require_files(card)
    return look(card)[0]


def ingest(card: Card, client: Client) -> blocks.Tally:
    """Read what is new or changed below survey.root into the store; bad rows keep their place.

    Raises
    ------
    FileNotFoundError, ValueError
        As `require_files`; when the card's split, or its mock survey, is another than the store's.
    LeaseError
        When another process writes to the store.
    """
    config = config_of(card)
    group = f"spectra/{config}"
    require_files(card)
    Survey.create(card.store)
    with writing(card.store, "ingest") as writer:
        form = reader(card)
        _require_same(writer, card, group)
        _make(writer, card, form, config)
        done = _arrive(writer, card, form, config, client)
        if not writer.attrs(group).get("complete"):
            settle(writer, card, config, form)
        if truth.is_there(card):
            # Its rows are spectra that are counted already.
            done += replace(truth.ingest(card, writer, client), computed=0)
        return done + blocks.tally(writer, group)


def _arrive(writer: Writer, card: Card, form: Reader, config: str, client: Client) -> blocks.Tally:
    """Step by step: make room, note what changed, read."""
    group, root = f"spectra/{config}", card.survey.root
    known = Known({name: writer.read_column(group, name) for name in arrivals.NEEDED})
    done, changed = blocks.Tally(), set[str]()
    folder = Folder(form, root, config)
    for files in arrivals.steps(folder):
        step = known.compare(files, root)
        if len(step.touched):
            changed |= _refresh(writer, group, folder, step, client)
        if len(step.new):
            _extend(writer, config, step.new, root)
        done += _fill(writer, card, form, config, client)
    names = {arrivals.relative(path, root) for path in changed}
    _drop(writer, config, known.gone(names))
    # What was left over by a broken-off ingest whose folder is there no more.
    return done + _fill(writer, card, form, config, client)


def _fill(writer: Writer, card: Card, form: Reader, config: str, client: Client) -> blocks.Tally:
    group = f"spectra/{config}"
    snapshot = Survey.open(card.store).snapshot
    survey = card.survey
    make = Read(
        form,
        config,
        survey.root,
        everywhere(card.store),
        snapshot,
        survey.dust_map,
        survey.precision,
    )
    where = target(card, writer, [group], form.configs[config].size)
    return blocks.run(make, target=where, client=client)[group]


def _make(writer: Writer, card: Card, form: Reader, config: str) -> None:
    """The group of a configuration, without rows yet."""
    group, grid = f"spectra/{config}", form.configs[config]
    if group in writer:
        return
    attrs = {**origin(card), "survey_root": card.survey.root, "reader": card.survey.reader}
    attrs |= {"options": card.survey.options, "precision": card.survey.precision}
    attrs |= {"simulated": simulate.told(card.survey.root), "identity": form.identity}
    fields = {**schema.SPECTRA, **form.fields}
    writer.create_group(
        group, schema.template(0, grid, fields, form.sizes), {**attrs, "grid": grid.model_dump()}
    )
    writer.commit(f"{group}: made", {"group": group})


def _extend(writer: Writer, config: str, new: Files, root: str) -> None:
    """Room for new rows in every group of a configuration, saying which file each is for."""
    group = f"spectra/{config}"
    first = writer.rows(group)
    writer.resize_all(config, first + len(new))
    names = [arrivals.relative(path, root) for path in new.paths]
    text = np.array(names, np.dtypes.StringDType())
    columns = {"source": text, "source_row": new.rows.astype("i4")}
    writer.write_columns(group, first, columns)
    writer.set_attrs(group, {"complete": False})
    writer.commit(f"{group}: room for rows {first}:{first + len(new)}", {"group": group})


def _refresh(writer: Writer, group: str, folder: Folder, step: Step, client: Client) -> set[str]:
    """Rows of changed files are pending again, everywhere; gives those files."""
    digests = writer.read_column(group, "digest")[step.touched_at]
    other = changed_files(step, digests, folder, client)
    same = ~other
    for row, size, time in zip(
        step.touched_at[same], step.touched.size[same], step.touched.time[same], strict=True
    ):
        facts = {"source_size": np.array([size]), "source_time": np.array([time])}
        writer.write_columns(group, int(row), facts)
    files = step.touched.take(other)
    rows = step.touched_at[other]
    if len(rows):
        # A copy of what was there may be the only one now.
        code = writer.read_column(group, "reason_code")
        _reset(writer, folder.config, np.union1d(rows, np.flatnonzero(code == Reason.DUPLICATE)))
    said = f"{len(rows)} rows of changed files to be read again" if len(rows) else "files touched"
    names = sorted(set(files.paths))[:NAMED]
    writer.commit(f"{group}: {said}", {"group": group, "changed": names})
    return set(files.paths)


def _reset(writer: Writer, config: str, rows: Integers) -> None:
    for group in Survey.open(writer.path).groups():
        if group.split("/")[1] == config:
            writer.reset(group, rows)
    writer.set_attrs(f"spectra/{config}", {"complete": False})


def _drop(writer: Writer, config: str, rows: Integers) -> None:
    """Rows that their file holds no more stay in their place, and out of everything."""
    group = f"spectra/{config}"
    code = writer.read_column(group, "reason_code")
    rows = rows[code[rows] != Reason.GONE] if len(rows) else rows
    if not len(rows):
        return
    _reset(writer, config, rows)
    reason, status = (writer.read_column(group, name) for name in ("reason", "status"))
    source = writer.read_column(group, "source")
    for row in rows:
        reason[row] = f"{source[row]}: the file was changed and ends before this row"
    status[rows], code[rows] = Status.QUARANTINED, Reason.GONE
    # Without a digest it is read again if it comes back.
    digest, size = (writer.read_column(group, name) for name in ("digest", "source_size"))
    digest[rows], size[rows] = "", -1
    ledger = {"status": status, "reason_code": code, "reason": reason}
    writer.write_columns(group, 0, {**ledger, "digest": digest, "source_size": size})
    writer.commit(f"{group}: {len(rows)} rows are in their files no more", {"group": group})


def _require_same(writer: Writer, card: Card, group: str) -> None:
    if group not in writer:
        return
    attrs = writer.attrs(group)
    if not _same_mock(card, attrs):
        raise ValueError(
            f"{card.survey.root}: holds another mock survey than {card.store} was made from; "
            "give survey.store a new path"
        )
    if (held := attrs.get("precision", "lossless")) != card.survey.precision:
        raise ValueError(
            f"{card.store}: {group} is held in precision {held!r}, the card says "
            f"{card.survey.precision!r}; put it back, or give survey.store a new path"
        )
    if not _same_split(card, attrs):
        raise ValueError(
            f"{card.store}: its objects were shared out by {attrs['split']}, the card's [split] "
            "says otherwise; put it back, or give survey.store a new path"
        )


def _same_mock(card: Card, attrs: dict[str, Any]) -> bool:
    return bool(attrs.get("simulated", "") == simulate.told(card.survey.root))


def _same_split(card: Card, attrs: dict[str, Any]) -> bool:
    wanted = card.split.model_dump()
    return bool(attrs.get("split", wanted) == wanted)
