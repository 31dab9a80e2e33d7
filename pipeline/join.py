"""Join: the columns of an external catalogue beside the spectra, aligned with them row by row.

A catalogue is a group of its own, /catalog/<config>/<prefix>: joining again replaces it, and the
columns of the survey stay what the survey gave.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.accessor import LABEL, members
from pipeline.carry import carry, chosen
from pipeline.catalogue import TEXT, Catalogue
from pipeline.catalogue_files import open_catalogue
from pipeline.columns import BEST
from pipeline.match import Match, by_key, on_sky
from pipeline.query import choose_config
from storage import schema
from storage.objects import RADIUS_ARCSEC
from storage.provenance import provenance
from storage.schema import Field, Reason, Status
from storage.store import Survey
from storage.writer import COLUMN_ROWS, Writer, writing

KEYS = ("object_id", "target_id", "observation")
"Columns of a survey that a catalogue may share."
SKY = "sky"
NO_MATCH = Reason.NOT_IN_CATALOGUE
"Why a row has no values of a catalogue."


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What became of a join."""

    group: str
    "Where the columns are."
    columns: tuple[str, ...]
    "Their names, as one asks for them: <prefix>.<column>."
    rows: int
    "Rows of the catalogue."
    matched: int
    "Rows of the survey that have one of the catalogue."
    unmatched: int
    "Rows of the survey that have none."
    ambiguous: int
    "Rows of the survey that several rows of the catalogue match: they have the nearest or first."
    snapshot: str
    "The version that has them."

    def __str__(self) -> str:
        several = f", {self.ambiguous} of several candidates" if self.ambiguous else ""
        return (
            f"{self.group}: {self.matched} of {self.matched + self.unmatched} spectra matched"
            f"{several}; {len(self.columns)} columns of {self.rows} rows"
        )


def join(
    path: str,
    table: str | Path,
    on: str,
    prefix: str,
    *,
    columns: Sequence[str] | None = None,
    config: str | None = None,
    radius: float = RADIUS_ARCSEC,
    first: bool = False,
) -> Joined:
    """Add the columns of a catalogue to a store, in one commit; what the prefix had is replaced.

    Parameters
    ----------
    path : str
        The store.
    table : path
        FITS (its first table), Parquet, CSV or ECSV.
    on : str
        ``object_id``, ``target_id`` or ``observation``, as ``target_id=TARGETID`` where the
        catalogue calls it otherwise; or ``sky``, as ``sky=RA_1,DEC_1``, degrees, ICRS.
    prefix : str
        The columns become ``<prefix>.<column>``.
    columns : sequence of str, optional
        Of the catalogue; all when None.
    config : str, optional
        Instrument configuration; may be left out where there is one.
    radius : float
        Arcsec, for the sky: the nearest within it counts.
    first
        Of several rows of one key take the first, instead of refusing them.

    Raises
    ------
    FileNotFoundError
        When there is no such store or file.
    ValueError
        When a column is not there (with the nearest) or no column of numbers or texts, a key is
        there more than once or of another kind, or the prefix is taken or no name.
    LeaseError
        When another process writes to the store.
    """
    survey = Survey.open(path)
    config = choose_config(survey, config)
    _check_prefix(survey, config, prefix)
    catalogue = open_catalogue(table)
    link = _link(catalogue, on, radius)
    names = chosen(catalogue, columns)
    about = {**_origin(catalogue), "prefix": prefix, **link.attrs()}
    spectra, group = f"spectra/{config}", f"catalog/{config}/{prefix}"
    with writing(path, "join") as writer:
        status = writer.read_column(spectra, "status")
        match = link.match(writer, spectra, catalogue, status == Status.DONE, first)
        count = {"matched": int((match.row >= 0).sum()), "ambiguous": match.ambiguous}
        _create(writer, group, match, status, {**about, **count})
        carry(writer, group, catalogue, match.row, names)
        said = f"{group}: {count['matched']} rows matched with {catalogue.path.name}"
        snapshot = writer.commit(said, {"group": group})
    return Joined(
        group=group,
        columns=tuple(f"{prefix}.{name}" for name in names),
        rows=catalogue.rows,
        unmatched=len(status) - count["matched"],
        snapshot=snapshot,
        **count,
    )


def drop(path: str, prefix: str, config: str | None = None) -> str:
    """Take the columns of a prefix out of a store; older versions keep them. Gives the snapshot.

    Raises
    ------
    ValueError
        When nothing was joined under the prefix; lists what was.
    """
    survey = Survey.open(path)
    config = choose_config(survey, config)
    with writing(path, "join") as writer:
        group = f"catalog/{config}/{prefix}"
        if not prefix or group not in writer:
            there = ", ".join(members(survey, f"catalog/{config}/")) or "none"
            raise ValueError(f"{path}: no catalogue is joined as {prefix!r} (there: {there})")
        writer.delete_group(group)
        return writer.commit(f"{group}: dropped", {"group": group})


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a survey and a catalogue have in common."""

    on: str
    "One of `KEYS`, or `SKY`."
    key: tuple[str, ...]
    "Columns of the catalogue: the key, or right ascension and declination."
    radius_arcsec: float | None = None
    "For the sky."

    def attrs(self) -> dict[str, Any]:
        """What is written of it."""
        return {"on": self.on, "key": list(self.key), "radius_arcsec": self.radius_arcsec}

    def match(
        self,
        writer: Writer,
        spectra: str,
        catalogue: Catalogue,
        good: NDArray[np.bool_],
        first: bool,
    ) -> Match:
        """Rows of the catalogue for the good rows of a survey."""
        if self.radius_arcsec is None:
            ours = writer.read_column(spectra, self.on)
            ours = ours.astype(TEXT) if ours.dtype.kind in "OT" else ours
            ours[~good] = "" if ours.dtype.kind == "T" else 0
            where = f"{catalogue.path} {self.key[0]!r}"
            return by_key(ours, catalogue.read_key(self.key[0]), first, where)
        ra, dec = (writer.read_column(spectra, name) for name in ("ra", "dec"))
        theirs = [_degrees(catalogue, name) for name in self.key]
        return on_sky(np.where(good, ra, np.nan), dec, theirs[0], theirs[1], self.radius_arcsec)


def _link(catalogue: Catalogue, on: str, radius: float) -> Link:
    name, _, given = on.partition("=")
    if name not in (*KEYS, SKY):
        raise ValueError(f"--on is {on!r}, expected one of {', '.join((*KEYS, SKY))}")
    if name == SKY and not 0 < radius <= 3600:
        raise ValueError(f"--radius is {radius:g}, expected more than 0 arcsec, and 3600 at most")
    said = [part.strip() for part in given.split(",")] if given else []
    wanted = said or (["ra", "dec"] if name == SKY else [name])
    if len(wanted) != (2 if name == SKY else 1):
        form = "sky=RA,DEC" if name == SKY else f"{name}=COLUMN"
        raise ValueError(f"--on is {on!r}, expected {form}: columns of {catalogue.path}")
    key = tuple(catalogue.named(column) for column in wanted)
    return Link(on=name, key=key, radius_arcsec=radius if name == SKY else None)


def _degrees(catalogue: Catalogue, name: str) -> NDArray[np.float64]:
    column = catalogue.columns[name]
    if column.dtype.kind not in "iuf" or column.units not in ("1", "", "deg", "degree", "degrees"):
        unit = "" if column.units == "1" else f" in {column.units!r}"
        raise ValueError(
            f"{catalogue.path}: {name!r} is {column.dtype}{unit}, expected degrees, ICRS"
        )
    found = catalogue.read(name)
    return np.where(found.known, found.values, np.nan).astype(np.float64)


def _create(
    writer: Writer, group: str, match: Match, status: NDArray[np.uint8], attrs: dict[str, Any]
) -> None:
    """The group with the match and its ledger; what was there before goes."""
    if group in writer:
        writer.delete_group(group)
    own: dict[str, tuple[Field, NDArray[Any]]] = {"catalogue_row": (_ROW, match.row)}
    if match.distance is not None:
        own["distance"] = (_DISTANCE, match.distance)
    template = schema.template(len(status), None, schema.LEDGER)
    writer.create_group(group, template, attrs, COLUMN_ROWS)
    writer.write_columns(group, 0, _ledger(match.row >= 0, status))
    for name, (field, values) in own.items():
        writer.add_column(group, name, field, values)


_ROW = Field(dtype="i8", units="1", description="row of the catalogue; -1 for none")
_DISTANCE = Field(dtype="f8", units="arcsec", description="distance on the sky")


def _ledger(hit: NDArray[np.bool_], status: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Done where a row matches; a spectrum that is not done yet is pending here too."""
    cases = [
        (hit, Status.DONE, Reason.NONE),
        (status == Status.DONE, Status.NOT_APPLICABLE, NO_MATCH),
        (status == Status.QUARANTINED, Status.NOT_APPLICABLE, Reason.UPSTREAM_QUARANTINED),
        (status == Status.NOT_APPLICABLE, Status.NOT_APPLICABLE, Reason.UPSTREAM_NOT_APPLICABLE),
    ]
    where, became, why = zip(*cases, strict=True)
    return {
        "status": np.select(where, became, int(Status.PENDING)).astype("u1"),
        "reason_code": np.select(where, why, int(Reason.NONE)).astype("u2"),
    }


def _check_prefix(survey: Survey, config: str, prefix: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", prefix, re.ASCII) or prefix in {"and", "or", "not", "in"}:
        raise ValueError(f"--prefix is {prefix!r}, expected letters, digits and _, as in galaxyzoo")
    inputs = [
        name for kind in ("indices", "denoised") for name in members(survey, f"{kind}/{config}/")
    ]
    taken = {"raw", "truth", "model", BEST, *(LABEL.sub("", name) for name in inputs)}
    if prefix in taken | {name.replace("-", "_") for name in inputs}:
        raise ValueError(
            f"--prefix is {prefix!r}, which {survey.path} has for columns of its own "
            f"(taken: {', '.join(sorted(taken))}); take another"
        )


def _origin(catalogue: Catalogue) -> dict[str, Any]:
    """Where the columns came from."""
    with catalogue.path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    about = provenance()
    return {
        **about,
        "packages": f"{about['packages']} pyarrow={version('pyarrow')} scipy={version('scipy')}",
        # A join is asked for at a prompt, not by a card.
        "card_digest": "none",
        "catalogue": catalogue.path.name,
        "catalogue_digest": digest,
        "catalogue_rows": catalogue.rows,
        "joined": datetime.now(UTC).isoformat(timespec="seconds"),
    }
