"""Matching: which row of a catalogue belongs to each row of a survey, by key or on the sky."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from pipeline.catalogue import TEXT, Values


@dataclass(frozen=True, kw_only=True)
class Match:
    """Rows of a catalogue for the rows of a survey."""

    row: NDArray[np.int64]
    "(N,) row of the catalogue; -1 where none matches."
    distance: NDArray[np.float64] | None = None
    "(N,) arcsec, NaN where none matches; None for a match by key."
    ambiguous: int = 0
    "Rows of the survey that more than one row of the catalogue matches."


def by_key(ours: NDArray[Any], theirs: Values, first: bool, where: str) -> Match:
    """The row of each key; an empty text, or 0, is no key.

    Parameters
    ----------
    ours : (N,) uint64 or str
        Keys of the survey.
    theirs : Values
        (M,) keys of the catalogue: integers or texts; compared digit by digit.
    first
        Whether the first of several rows of one key counts; else they are refused.
    where
        What the catalogue is called in messages.

    Raises
    ------
    ValueError
        When the catalogue's keys are of another kind, or several of its rows have a key of ours.
    """
    keys = _keys(theirs, ours.dtype, where)
    text = ours.dtype.kind == "T"
    wanted = pa.array(
        _objects(ours), pa.string() if text else pa.uint64(), mask=ours == ("" if text else 0)
    )
    there = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
    keys = keys.take(pa.array(there))
    found = pc.index_in(wanted, value_set=keys, skip_nulls=True)
    place = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.where(place >= 0, there[place] if there.size else -1, -1)
    twice = _twice(keys, wanted)
    if len(twice) and not first:
        rows = there[np.flatnonzero(pc.equal(keys, twice[0]).to_numpy(zero_copy_only=False))]
        raise ValueError(
            f"{where}: {len(twice)} keys of the survey are there more than once "
            f"({twice[0].as_py()!r} in rows {rows[0]} and {rows[1]}); clean it, or take the first "
            "row of each with --first"
        )
    doubtful = pc.is_in(wanted, value_set=twice, skip_nulls=True)
    return Match(row=row, ambiguous=int(doubtful.to_numpy(zero_copy_only=False).sum()))


def on_sky(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    ra_cat: NDArray[np.float64],
    dec_cat: NDArray[np.float64],
    radius_arcsec: float,
) -> Match:
    """The nearest row within a radius; of several equally near ones, the first.

    Parameters
    ----------
    ra, dec : (N,) float64
        Degrees, of the survey; a row without a position matches nothing.
    ra_cat, dec_cat : (M,) float64
        Degrees, of the catalogue.
    """
    # The tree is ten times faster than a search around every row.
    from scipy.spatial import cKDTree

    ours, theirs = _placed(ra, dec), _placed(ra_cat, dec_cat)
    row, distance = np.full(len(ra), -1, np.int64), np.full(len(ra), np.nan)
    if not ours.size or not theirs.size:
        return Match(row=row, distance=distance)
    # Of rows at the very same place the first counts.
    places = ra_cat[theirs] + 1j * dec_cat[theirs]
    spot, first, count = np.unique(places, return_index=True, return_counts=True)
    first = theirs[first]
    reach = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2) * (1 + 1e-12) + 1e-15
    chord, place = cKDTree(_vectors(spot.real, spot.imag)).query(
        _vectors(ra[ours], dec[ours]), k=2, distance_upper_bound=reach
    )
    hit, second = np.isfinite(chord).T
    ours, chord, place, second = ours[hit], chord[hit], place[hit], second[hit]
    near = first[place[:, 0]]
    other = np.where(second, first[place[:, 1] % first.size], near)
    row[ours] = np.where(chord[:, 1] <= chord[:, 0] + 1e-15, np.minimum(near, other), near)
    distance[ours] = np.degrees(2 * np.arcsin(chord[:, 0] / 2)) * 3600
    several = second | (count[place[:, 0]] > 1)
    return Match(row=row, distance=distance, ambiguous=int(several.sum()))


def _keys(theirs: Values, kind: np.dtype[Any], where: str) -> pa.Array:
    """Keys of a catalogue as those of the survey are: texts, or unsigned integers."""
    values, known = theirs.values, theirs.known
    if values.dtype.kind not in "iuT":
        raise ValueError(
            f"{where}: the key is {values.dtype}, expected integers or texts; an id of more than "
            "15 digits is not kept by a float, write it as an integer"
        )
    if kind.kind == "T":
        texts = values if values.dtype.kind == "T" else values.astype(TEXT)
        return pa.array(_objects(texts), pa.string(), mask=~(known & (texts != "")))
    if values.dtype.kind == "T":
        return _numbers(values, known, where)
    known = known & (values > 0)
    return pa.array(np.where(known, values, 0).astype(np.uint64), mask=~known)


def _numbers(texts: NDArray[Any], known: NDArray[np.bool_], where: str) -> pa.Array:
    try:
        return pa.array(_objects(texts), pa.string(), mask=~known).cast(pa.uint64())
    except pa.ArrowInvalid as error:
        raise ValueError(f"{where}: the key is not an integer everywhere ({error})") from error


def _objects(values: NDArray[Any]) -> NDArray[Any]:
    """Texts as Arrow takes them; numbers as they are."""
    return values.astype(object) if values.dtype.kind == "T" else values


def _twice(keys: pa.Array, wanted: pa.Array) -> pa.Array:
    """Keys that are there more than once, of those wanted."""
    counted = pc.value_counts(keys)
    several = pc.greater(counted.field("counts"), 1)
    twice = counted.field("values").filter(several)
    return twice.filter(pc.is_in(twice, value_set=wanted, skip_nulls=True))


def _placed(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))


def _vectors(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
