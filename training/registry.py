"""Registry: a folder of checkpoints, and the names that people call them by."""

import json
from pathlib import Path

from storage.whole import replace
from training.checkpoint import CARD, digest

ALIASES = "aliases.json"


def aliases(folder: Path | str) -> dict[str, str]:
    """Alias -> directory name; empty where there is no folder yet."""
    file = Path(folder) / ALIASES
    return dict(json.loads(file.read_text())) if file.exists() else {}


def set_alias(folder: Path | str, alias: str, path: Path | str) -> None:
    """Let a name mean a checkpoint of the folder, from now on.

    Raises
    ------
    ValueError
        When the checkpoint is not in the folder.
    """
    folder, target = Path(folder), Path(path)
    if not (folder / target.name / CARD).is_file():
        raise ValueError(f"{target.name} is not in {folder} {_there(folder)}")
    known = aliases(folder) | {alias: target.name}
    replace(folder / ALIASES, json.dumps(known, indent=2, sort_keys=True) + "\n")


def resolve(folder: Path | str, ref: str) -> Path:
    """The directory of the checkpoint that a card means.

    Parameters
    ----------
    folder : Path
        Where checkpoints are.
    ref : str
        An alias; the name of a directory in it, or a path; or a digest, 8 hex digits or more.

    Raises
    ------
    ValueError
        When it means none or several; lists what is there.
    """
    folder = Path(folder)
    alias = aliases(folder).get(ref)
    for candidate in (folder / alias if alias else None, folder / ref, Path(ref)):
        if candidate is not None and (candidate / CARD).is_file():
            return candidate
    found = _by_digest(folder, ref) if len(ref) >= 8 else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{ref!r} means {', '.join(path.name for path in found)}; give the whole name"
        )
    raise ValueError(
        f"no checkpoint {ref!r} in {folder} {_there(folder)}; `specmill train` makes them"
    )


def checkpoints(folder: Path | str) -> list[Path]:
    """Directories of the checkpoints in a folder, sorted."""
    return sorted(card.parent for card in Path(folder).glob(f"[!.]*/{CARD}"))


def _by_digest(folder: Path, ref: str) -> list[Path]:
    same8 = [path for path in checkpoints(folder) if path.name.endswith(f"-{ref[:8]}")]
    # Only a longer reference is worth the reading of the files.
    return same8 if len(ref) == 8 else [path for path in same8 if digest(path).startswith(ref)]


def _there(folder: Path) -> str:
    names = [f"{alias} -> {target}" for alias, target in aliases(folder).items()]
    listed = names + [path.name for path in checkpoints(folder)]
    return f"(there: {', '.join(listed) or 'none'})"
