"""Sample: the rows of a survey that a card lets teach: cuts, strata, a cap.

What is chosen depends on the objects and the seed, not on the order of the rows: every object draws
a lot, and of too many the lowest lots stay. A survey that grows keeps an object until one with a
lower lot takes its place.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.accessor import Columns, members
from pipeline.card import Card, CardError, read_toml, shipped
from pipeline.card_sample import SampleCard, Strata
from pipeline.card_words import words
from pipeline.columns import catalogues, truth
from pipeline.expression import evaluate, names
from pipeline.stage import config_of
from storage.schema import COLUMNS, ObjectType, Split, Status
from storage.store import Survey

SHELF = "samples"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What one cut left."""

    name: str
    "Of the cut."
    expression: str
    "What it asks for; in words, where it is none of a card's."
    before: int
    "Spectra that came to it."
    left: int
    "Spectra that it let through."


@dataclass(frozen=True, kw_only=True)
class Bin:
    """One bin of the strata."""

    low: float
    "Its lower edge, which it holds."
    high: float
    "Its upper edge, which the next one holds."
    there: int
    "Spectra in it."
    taken: int
    "Spectra of it in the sample."


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A sample, and how it came about."""

    rows: Mask
    "(N,) rows of the survey that are in it, on whatever side."
    cuts: tuple[Cut, ...]
    "In their order; the last one leaves the sample."
    bins: tuple[Bin, ...]
    "Of the strata, where there are any."
    sides: Mapping[str, int]
    "Spectra of the sample by side."


def sample(card: Card, survey: Survey, side: Split) -> NDArray[np.int64]:
    """Rows of one side that may teach: done, of the sky's objects, chosen by the card.

    Raises
    ------
    ValueError
        When there are none to train on; when a cut names a column that is not there.
    """
    chosen = choose(card, survey)
    on_side = survey.dataset(f"spectra/{config_of(card)}")["split"].to_numpy() == side
    found = np.flatnonzero(chosen.rows & on_side)
    if side == Split.TRAIN and not found.size:
        n = len(chosen.rows)
        if said(card) == card.sample.where:
            what = f"sample.where: {card.sample.where!r} leaves none"
        else:
            flow = ", ".join(f"{cut.name} {cut.left}" for cut in chosen.cuts)
            what = f"sample: the cuts leave none ({flow})"
        raise ValueError(f"{what} of {n} spectra to train")
    return found


def choose(card: Card, survey: Survey) -> Chosen:
    """The sample of a card, whatever the side, cut by cut.

    Raises
    ------
    CardError
        When there is no such sample card, or it is wrong.
    ValueError
        When a cut is no expression, or names a column that is not there; of a joined catalogue it
        says which, and how to join it.
    """
    config, paper = config_of(card), sample_card(card.sample.card)
    ds = survey.dataset(f"spectra/{config}")
    sides = ds["split"].to_numpy()
    steps = _steps(card, paper)
    strata = card.sample.strata or paper.strata
    asked = [*steps.values(), *([strata.by] if strata else [])]
    columns = _columns(survey, config, ds, asked)
    _require(asked, columns, paper, survey, config)
    rows, cuts = np.ones(len(sides), bool), []
    for name, text, keep in _masks(ds, sides, steps, columns):
        cuts.append(_cut(name, text, rows, rows & keep))
        rows &= keep
    bins: tuple[Bin, ...] = ()
    if strata:
        left, bins = _levelled(strata, _lots(ds, rows, card.sample.seed), rows, columns)
        cuts.append(_cut("strata", f"{strata.each} a bin of {strata.by}", rows, left))
        rows = left
    if cap := card.sample.cap or paper.cap:
        left = _only(rows, _lots(ds, rows, card.sample.seed)[:cap])
        cuts.append(_cut("cap", f"{cap} at most", rows, left))
        rows = left
    counts = {s.name.lower(): _count(rows & (sides == s)) for s in Split if s != Split.NONE}
    return Chosen(rows=rows, cuts=tuple(cuts), bins=bins, sides=counts)


def said(card: Card) -> Any:
    """What decides about a sample, for a recipe: the expression alone, where there is no more."""
    found = card.sample.model_dump(mode="json")
    if set(found) == {"where"}:
        return card.sample.where
    paper = sample_card(card.sample.card).model_dump(mode="json", exclude={"about", "catalogues"})
    return {**found, "card": paper}


def sample_card(name: str) -> SampleCard:
    """A sample card by its name or path; an empty one for none.

    Raises
    ------
    CardError
        When there is none, or a key of it is unknown or wrong.
    """
    if not name:
        return SampleCard()
    path = shipped(SHELF, name)
    try:
        return SampleCard(**read_toml(path))
    except ValidationError as error:
        schema = SampleCard.model_json_schema()
        raise CardError("\n".join(words(path, item, schema) for item in error.errors())) from error


def _steps(card: Card, paper: SampleCard) -> dict[str, str]:
    """The cuts by name: of the sample card, then `where`, then those of the card."""
    own = {"where": card.sample.where} if card.sample.where.strip() else {}
    given = [*paper.steps.items(), *own.items(), *card.sample.steps.items()]
    return {
        # A name that comes twice is two cuts.
        name if name not in dict(given[:number]) else f"{name} ({number + 1})": text
        for number, (name, text) in enumerate(given)
    }


def _masks(
    ds: xr.Dataset, sides: NDArray[Any], steps: Mapping[str, str], columns: Columns
) -> Iterator[tuple[str, str, Mask]]:
    """(name, expression, (N,) rows that pass) of every cut."""
    yield "read", "is in the store, whole", ds["status"].to_numpy() == Status.DONE
    kinds = ds["object_type"].to_numpy()
    yield "sky objects", "no sky fibre, no standard star", kinds == ObjectType.SCIENCE
    yield "split", "of an object that has a side", sides != Split.NONE
    for name, text in steps.items():
        yield name, text, evaluate(text, columns, len(sides))


def _columns(survey: Survey, config: str, ds: xr.Dataset, asked: list[str]) -> Columns:
    """The survey's own columns; those of catalogues and truth, where a name with a dot asks."""
    found = ds[list(COLUMNS)]
    if any("." in name for text in asked for name in names(text, _Anything())):
        found = found.assign(catalogues(survey, config)).assign(truth(survey, config))
    return Columns(found)


class _Anything(dict[str, Any]):
    """Has every name: what an expression names is what it names in this."""

    def __contains__(self, name: object) -> bool:
        return True


def _require(
    asked: list[str], columns: Columns, paper: SampleCard, survey: Survey, config: str
) -> None:
    """Refuse columns of catalogues that are not joined; others are the expression's to refuse."""
    wanted = [name for text in asked for name in names(text, _Anything()) if "." in name]
    for name in wanted:
        prefix, _, column = name.partition(".")
        if name in columns:
            continue
        if prefix in paper.catalogues:
            given = paper.catalogues[prefix]
            raise ValueError(
                f"sample: no column {name!r} in {survey.path}; it is of {given.what}: "
                f"`specmill join {survey.path} {given.file} --on {given.on} --prefix {prefix} "
                f"--columns {','.join(dict.fromkeys([*given.columns, column]))}` adds it"
            )
        there = members(survey, f"catalog/{config}/")
        if prefix not in (*there, "truth"):
            raise ValueError(
                f"sample: no column {name!r} in {survey.path}, and no catalogue is joined as "
                f"{prefix!r} (there: {', '.join(there) or 'none'}); "
                f"`specmill join {survey.path} TABLE --prefix {prefix}` adds one"
            )


def _lots(ds: xr.Dataset, rows: Mask, seed: int) -> NDArray[np.int64]:
    """The chosen rows in the order of their objects' lots; of one object by observation."""
    numbers = np.flatnonzero(rows)
    numbers = numbers[np.argsort(ds["observation"].to_numpy()[numbers], kind="stable")]
    lots = _lot(ds["object_id"].to_numpy()[numbers], seed)
    return numbers[np.argsort(lots, kind="stable")]


def _lot(object_id: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A number of each object (N,), uniform over 64 bits: splitmix64 of its id and the seed."""
    start = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    x = object_id ^ np.uint64(int.from_bytes(start, "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    found: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return found


def _levelled(
    strata: Strata, lots: NDArray[np.int64], rows: Mask, columns: Columns
) -> tuple[Mask, tuple[Bin, ...]]:
    """The lowest lots of every bin, and what is in the bins."""
    loaded = {name: columns[name] for name in names(strata.by, columns)}
    edges = strata.bounds
    # Comparisons, so that a value that is not known is in no bin.
    above = [evaluate(f"({strata.by}) >= {edge!r}", loaded, len(rows)) for edge in edges]
    place = np.sum(above, axis=0) - 1
    kept, bins = [], []
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = lots[place[lots] == number]
        kept.append(inside[: strata.each])
        bins.append(Bin(low=low, high=high, there=len(inside), taken=len(kept[-1])))
    return _only(rows, np.concatenate(kept)), tuple(bins)


def _cut(name: str, expression: str, before: Mask, left: Mask) -> Cut:
    return Cut(name=name, expression=expression, before=_count(before), left=_count(left))


def _only(rows: Mask, numbers: NDArray[np.int64]) -> Mask:
    found = np.zeros_like(rows)
    found[numbers] = True
    return found


def _count(rows: Mask) -> int:
    return int(rows.sum())
