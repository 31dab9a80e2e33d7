"""What became of the rows of a damaged survey: each is held against the sound one's."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage import schema
from storage.schema import Reason, Status
from tests.mutations.bases import Key, Rows
from tests.mutations.damage import May

Outcome = Literal[
    "refused",
    "no data",
    "harmless",
    "undetectable",
    "ACCEPTED-WRONG",
    "FALSE-ALARM",
    "CRASH",
    "HANG",
    "MEMORY",
]
GOOD: tuple[Outcome, ...] = ("refused", "no data", "harmless", "undetectable")
BAD: tuple[Outcome, ...] = ("ACCEPTED-WRONG", "FALSE-ALARM", "CRASH", "HANG", "MEMORY")

MOST = {
    "flux": 1e12,
    "ivar": 1e16,
    "model": 1e12,
    "lsf": 1e3,
    "mjd": 1e6,
    "z": 10.0,
    "z_err": 1e6,
    "vdisp": 1e6,
    "ebv": 1e3,
    "ra": 360.0,
    "dec": 90.0,
}
"More than this is absurd, in the unit of the variable; no telescope has seen it."
_SIGMAS = 6.0
"Pixels beside a dropped one are rebinned from fewer, and differ within their errors."
_ELSEWHERE = ("mjd", "observation", "survey")
"""What another column or the file's name says, too, where a column is lost: a table without SURVEY
or MEAN_MJD is as good as another, and its readers then take INSTRUMENT, or the mean of MJD."""
_UNSAID = ("source", "source_row", "digest", "source_size", "source_time", "reason")
_DERIVED = ("snr", "snr_g", "snr_r")
_FITTED = ("z", "class", "zwarn")
"What a damaged file of redshifts must not take from a row without a word."


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one trial."""

    outcome: Outcome
    words: str = ""
    kind: str = ""
    "Of damage."
    where: str = ""
    "The file, and how it was stored."
    memory: int = 0
    "Peak above what it began with, bytes."
    seconds: float = 0.0
    "Of finding and reading."


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Variables of an accepted row that differ from the sound one's."""

    changed: tuple[str, ...]
    "They say another thing."
    near: tuple[str, ...]
    "They say it within their errors, or say nothing."
    emptied: tuple[str, ...]
    "They say nothing."


def judge(
    found: dict[Key, Rows],
    sound: dict[Key, Rows],
    may: May | tuple[str, ...],
    promised: bool = False,
    alone: bool = True,
) -> Result:
    """Outcome of the rows of one survey.

    may : see `tests.mutations.damage.Damage`; promised : a checksum tells of the damage;
    alone : rows that are missing have no file any more to speak of them.
    """
    refused = [row for row in found.values() if row["status"] == Status.QUARANTINED]
    for row in refused:
        if words := _unclear(row):
            return Result(outcome="CRASH", words=words)
    accepted = {key: row for key, row in found.items() if row["status"] != Status.QUARANTINED}
    for key, row in accepted.items():
        if wild := absurd(row):
            return Result(outcome="ACCEPTED-WRONG", words=f"{key} has absurd {wild}")
    changed, near = _compared(accepted, sound, "nothing" if promised else may)
    # Of a table that its checksum gives the lie nothing may come in, not even less than it says.
    changed += near if promised else []
    if changed:
        words = f"changed: {'; '.join(changed)}"
        surely = may != "anything" or promised
        return Result(outcome="ACCEPTED-WRONG" if surely else "undetectable", words=words)
    if refused:
        return Result(outcome="refused", words=str(refused[0]["reason"]))
    if missing := sorted(sound.keys() - found.keys()):
        words = f"without a word rows are missing: {missing}"
        surely = alone and (may != "anything" or promised)
        return Result(outcome="ACCEPTED-WRONG" if surely else "no data", words=words)
    if near:
        return Result(outcome="no data", words=f"empty or near: {'; '.join(near)}")
    return Result(outcome="harmless")


def _compared(
    accepted: dict[Key, Rows], sound: dict[Key, Rows], may: May | tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """What is wrong in accepted rows, and what is less than it was."""
    changed, near = list[str](), list[str]()
    for key, row in accepted.items():
        if key not in sound:
            changed.append(f"a row that was not there, {key}")
            continue
        found = difference(row, sound[key])
        wrong = [*found.changed, *(() if may in ("pixels", "less") else found.near)]
        if may not in ("pixels", "anything"):
            wrong += [name for name in found.emptied if name in _FITTED]
        if may == "less":
            wrong = [name for name in wrong if name not in _ELSEWHERE]
        if isinstance(may, tuple):
            wrong = [name for name in wrong if name not in may]
        changed += [f"{key} {name}" for name in wrong]
        near += [
            f"{key} {name}"
            for name in (*found.changed, *found.near, *found.emptied)
            if name not in wrong
        ]
    return changed, near


def _unclear(row: Rows) -> str:
    """What a quarantined row does not say, or should not."""
    reason = str(row["reason"])
    if not reason.startswith(str(row["source"])):
        return f"a reason that does not name the file: {reason!r}"
    if int(row["reason_code"]) not in [int(code) for code in Reason] or not int(row["reason_code"]):
        return f"reason code {row['reason_code']}: {reason}"
    if "MemoryError" in reason:
        return f"it took all memory: {reason}"
    if row["flux"].any() or row["ivar"].any() or not np.isnan(row["z"]):
        return f"a quarantined row with values: {reason}"
    return ""


def absurd(row: Rows) -> list[str]:
    """Names of variables with values that cannot be."""
    with np.errstate(invalid="ignore"):
        found = [
            name
            for name, most in MOST.items()
            if bool((np.abs(np.asarray(row[name]).astype("f8")) > most).any())
        ]
    pixels = [n for n in schema.PIXELS if not np.isfinite(np.asarray(row[n]).astype("f8")).all()]
    found += ["z below -0.1"] if row["z"] < -0.1 else []
    lost = [] if np.isfinite(row["ra"]) and np.isfinite(row["dec"]) else ["position"]
    return found + pixels + lost


def difference(row: Rows, sound: Rows) -> Difference:
    """How an accepted row differs from the sound one."""
    changed, near, emptied = list[str](), list[str](), list[str]()
    dropped = (row["ivar"] == 0) & (sound["ivar"] > 0)
    for name, mine in row.items():
        if name in _UNSAID or name in _DERIVED:
            continue
        theirs = sound[name]
        if _equal(mine, theirs):
            continue
        if isinstance(mine, np.ndarray):
            same = _same(mine, theirs)
            if bool((same | (dropped if mine.shape == dropped.shape else False)).all()):
                emptied.append(name)
            elif _is_near(name, mine, theirs, row, sound):
                near.append(name)
            else:
                changed.append(name)
        elif str(mine) == "" or mine != mine or (mine == 0 and name != "zwarn"):
            emptied.append(name)
        else:
            changed.append(name)
    if "zwarn" in changed and "z" in emptied:
        changed.remove("zwarn")
        emptied.append("zwarn")
    return Difference(changed=tuple(changed), near=tuple(near), emptied=tuple(emptied))


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray):
        return mine.tobytes() == theirs.tobytes()
    return bool(mine == theirs or (mine != mine and theirs != theirs))


def _same(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((mine == theirs) | ((mine != mine) & (theirs != theirs)))


def _is_near(name: str, mine: Any, theirs: Any, row: Rows, sound: Rows) -> bool:
    """Whether pixels are those of the sound row within their errors."""
    good = (row["ivar"] > 0) & (sound["ivar"] > 0)
    if name == "ivar":
        # Where less is known, as far as the next pixels' ivar.
        return not (row["ivar"][sound["ivar"] == 0] > 0).any() and bool(
            (mine <= 1.5 * _around(theirs)).all()
        )
    if name == "flux":
        errors = np.sqrt(1 / np.where(good, np.minimum(row["ivar"], sound["ivar"]), 1))
        return bool((np.abs(mine - theirs)[good] <= _SIGMAS * errors[good]).all())
    # A fit, a line spread or a mask where there is none any more.
    return bool((_same(mine, theirs) | (mine == 0) | ~good).all()) or name in ("lsf", "resolution")


def _around(values: NDArray[Any], reach: int = 5) -> NDArray[Any]:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, reach), 2 * reach + 1)
    return np.asarray(windows.max(axis=1))
