"""One trial: a survey with one damaged file, found and read; what became of its rows."""

import gzip
import os
import shutil
import stat
import tempfile
import time
import traceback
import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from storage.reader import Source
from tests.mutations import bases, headers, places, values
from tests.mutations.bases import Base, Survey
from tests.mutations.damage import ALL, Form, May, one_of
from tests.mutations.judge import BAD, Result, judge
from tests.mutations.parts import holds, promises

MEMORY = 400 << 20
"Bytes that a trial may take; the files have 0.2 MB."
KINDS = (*ALL, *places.KINDS)
_SPEAKS = (headers, values)
"Modules that put their kinds of damage into the list."


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done in a trial."""

    survey: Survey
    form: Form
    kind: str
    victim: str
    "The file that is damaged."
    lay: partial[None]
    "Puts what it becomes where it was."
    promised: bool = False
    "Whether a checksum that is still there tells of it."


def trial(name: str, number: int, seed: int) -> Result:
    """The trial of a number: it decides the kind, the seed what is done, and to which file."""
    random = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    base, case = bases.base(name), chosen(name, KINDS[number % len(KINDS)], random)
    late = random.random() < 0.25
    root = Path(tempfile.mkdtemp(prefix="mutations-"))
    try:
        sources = _laid(base, case, root, late)
        before = _memory("VmRSS")
        _forget_peak()
        started = time.monotonic()
        result = _outcome(base, case, root, sources)
        seconds = time.monotonic() - started
        grown = _memory("VmHWM") - before
    finally:
        removed(root)
    blown = grown > MEMORY or "MemoryError" in result.words
    return replace(
        result,
        outcome="MEMORY" if blown else result.outcome,
        words=result.words.replace(str(root), "ROOT"),
        kind=case.kind,
        where=f"{case.victim}, {case.form}{', after it was found' if late else ''}",
        memory=grown,
        seconds=seconds,
    )


def chosen(name: str, kind: str, random: np.random.Generator) -> Case:
    """A case of a kind of damage; of the next one, where the files have nothing of that kind."""
    at = KINDS.index(kind)
    tried = (_case(name, each, random) for each in (*KINDS[at:], *KINDS[:at]))
    return next(case for case in tried if case is not None)


def _case(name: str, kind: str, random: np.random.Generator) -> Case | None:
    forms: tuple[Form, ...] = ALL[kind].forms if kind in ALL else ("plain", "packed")
    form = one_of(random, forms)
    survey = bases.survey(name, form)
    for victim in map(str, random.permutation([*survey.files])):
        content = survey.files[victim]
        case = Case(
            survey=survey,
            form=form,
            kind=kind,
            victim=victim,
            lay=partial(places.place, kind=kind, content=content),
        )
        if kind in places.KINDS:
            return case
        sound = gzip.decompress(content) if form == "packed" else content
        made = ALL[kind].make(random, sound)
        if made is not None and (made != sound or ALL[kind].sound):
            kept = promises(sound)
            promised = bool(kept) and promises(made) == kept and not ALL[kind].whole
            packed = form == "packed" and not made.startswith(b"\x1f\x8b")
            written = gzip.compress(made, 1, mtime=0) if packed else made
            return replace(case, lay=partial(_write, content=written), promised=promised)
    return None


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _laid(base: Base, case: Case, root: Path, late: bool) -> list[Source] | None:
    """Write the files; sources, when they are found before the damage is done."""
    for name, content in case.survey.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if late or name != case.victim:
            path.write_bytes(content)
    if not late:
        case.lay(root / case.victim)
        return None
    sources = list(base.reader.find(str(root), base.config))
    (root / case.victim).unlink()
    case.lay(root / case.victim)
    return sources


def _outcome(base: Base, case: Case, root: Path, sources: list[Source] | None) -> Result:
    try:
        found = sources or list(base.reader.find(str(root), base.config))
    except (FileNotFoundError, PermissionError, ValueError) as error:
        # Nothing of the survey is left, or it cannot be looked for: finding says so, and where.
        if str(root) not in str(error):
            return Result(outcome="CRASH", words=_told(error))
        return Result(outcome="refused", words=str(error))
    except Exception as error:
        return Result(outcome="CRASH", words=_told(error))
    try:
        rows = bases.read(base.reader, found, str(root), base.config)
    except Exception as error:
        return Result(outcome="CRASH", words=_told(error))
    given = ALL.get(case.kind)
    # A folder is no file of the survey, whatever its name: what is in it counts.
    folder = case.kind in places.FOLDERS
    may: May | tuple[str, ...] = given.may if given else "pixels" if folder else "nothing"
    may = "anything" if case.kind in base.unsaid else may
    result = judge(rows, case.survey.rows, may, case.promised, alone=not folder)
    sound = case.survey.files[case.victim]
    if case.promised and result.outcome in BAD and holds(case.lay.keywords["content"], sound):
        result = judge(rows, case.survey.rows, may, alone=not folder)
    if given and given.sound and result.outcome != "harmless":
        return replace(result, outcome="FALSE-ALARM")
    return result


def _told(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def removed(root: Path) -> None:
    """Remove a folder, with those below it that nobody may enter."""
    for path in root.rglob("*"):
        if not path.is_symlink() and stat.S_ISDIR(path.lstat().st_mode):
            path.chmod(0o700)
    shutil.rmtree(root)


def _memory(key: str) -> int:
    """Memory of this process, bytes; 0 where the system does not say it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(key)), 0)


def _forget_peak() -> None:
    if os.path.exists("/proc/self/clear_refs"):  # noqa: PTH110
        Path("/proc/self/clear_refs").write_text("5")
