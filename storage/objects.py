"""One sky object has one id and one side, whatever file, exposure or plate shows it.

Rows are joined into objects by the survey's own id, or by 1.5 arcsec on the sky. The id of an
object is a hash of its earliest row, and the side (train, val, calib, test) is a hash of the id:
neither depends on the order, the number or the place of the files.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord, search_around_sky
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storage.schema import Split

RADIUS_ARCSEC = 1.5


class Shares(BaseModel):
    """How objects are shared out; the shares add up to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(default=0.70, ge=0, le=1)
    val: float = Field(default=0.10, ge=0, le=1)
    calib: float = Field(default=0.10, ge=0, le=1)
    test: float = Field(default=0.10, ge=0, le=1)

    def model_post_init(self, _: object) -> None:
        """Refuse shares that do not add up."""
        total = self.train + self.val + self.calib + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"split.shares: train + val + calib + test is {total:g}, expected 1")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Objects of rows."""

    object_id: NDArray[np.uint64]
    "(N,) id of the object of each row; 0 where a row has no identity."
    bridged: NDArray[np.bool_]
    "(N,) rows that a later row joined to another object: they keep their ids and never train."


def assign(
    survey: ArrayLike,
    target_id: ArrayLike,
    observation: ArrayLike,
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    identity: Literal["target_id", "position"],
    existing: NDArray[np.uint64] | None = None,
) -> Assignment:
    """Objects of N rows.

    Parameters
    ----------
    survey, target_id, observation : (N,) str
        Names as in `storage.schema.COLUMNS`.
    ra, dec : (N,) float64
        Degrees, ICRS; rows without a finite position have no identity by position.
    identity
        Whether rows are joined by (survey, target_id), or by 1.5 arcsec on the sky.
    existing : (N,) uint64, optional
        Ids given before, 0 for new rows: these never change. Where new rows join two objects, all
        rows of both are `bridged` and new rows take the id of the earlier one.
    """
    n = len(ra)
    before = np.zeros(n, np.uint64) if existing is None else existing.astype(np.uint64)
    group = _by_name(survey, target_id) if identity == "target_id" else _by_position(ra, dec)
    known = group >= 0
    object_id = before.copy()
    bridged = np.zeros(n, bool)
    keys = _joined(survey, observation)
    # Old rows before new ones, each in the order of their names: that of the files does not matter.
    order = np.lexsort((np.unique(keys, return_inverse=True)[1], before == 0))
    order = order[known[order]]
    _, first, inverse = np.unique(group[order], return_index=True, return_inverse=True)
    founder = order[first]
    ids = np.array([_hash(keys[row]) for row in founder], np.uint64)
    old = before[founder]
    ids = np.where(old > 0, old, ids)
    fresh = before[order] == 0
    object_id[order[fresh]] = ids[inverse[fresh]]
    torn = np.zeros(len(ids), bool)
    np.logical_or.at(torn, inverse, (before[order] > 0) & (before[order] != ids[inverse]))
    bridged[order] = torn[inverse]
    return Assignment(object_id=object_id, bridged=bridged)


def split(object_id: NDArray[np.uint64], salt: str, shares: Shares) -> NDArray[np.uint8]:
    """The side of each object: a hash of its id and the salt; `Split.NONE` for id 0.

    Examples
    --------
    >>> ids = np.arange(1, 10_001, dtype=np.uint64)
    >>> sides = split(ids, "salt", Shares())
    >>> bool(abs((sides == Split.TRAIN).mean() - 0.7) < 0.02)
    True
    """
    unique, inverse = np.unique(object_id, return_inverse=True)
    place = np.array([_hash(f"{salt}/{value}") for value in unique]) / 2.0**64
    bounds = np.cumsum([shares.train, shares.val, shares.calib])
    side = np.searchsorted(bounds, place, side="right") + int(Split.TRAIN)
    side[unique == 0] = Split.NONE
    return np.asarray(side[inverse], np.uint8)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _by_name(survey: ArrayLike, target_id: ArrayLike) -> NDArray[np.int64]:
    """Group numbers of rows of one name; -1 for rows without one."""
    _, group = np.unique(_joined(survey, target_id), return_inverse=True)
    return np.where(np.asarray(target_id) == "", -1, group)


def _joined(one: ArrayLike, two: ArrayLike) -> Any:
    text = np.dtypes.StringDType()
    head = np.strings.add(np.asarray(one, text), "/")
    return np.strings.add(head, np.asarray(two, text))


def _by_position(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.int64]:
    """Group numbers of rows that chains of 1.5 arcsec connect; -1 for rows without a position."""
    group = np.full(len(ra), -1, np.int64)
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if placed.size == 0:
        return group
    sky = SkyCoord(ra[placed] * units.deg, dec[placed] * units.deg)
    one, two, _, _ = search_around_sky(sky, sky, RADIUS_ARCSEC * units.arcsec)
    links = coo_array((np.ones(len(one), bool), (one, two)), shape=(placed.size,) * 2)
    group[placed] = connected_components(links, directed=False)[1]
    return group
