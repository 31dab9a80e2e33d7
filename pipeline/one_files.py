"""A file of spectra by itself: which reader takes it, and the rows that this one reads of it.

A reader finds files below a folder; here the folder holds a link to one file, and links to the
files that go into its rows, such as redshifts.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from pipeline import stage
from pipeline.card import Card
from storage.grid import Grid
from storage.names import shelf
from storage.reader import Reader, Source

_SHELF = "storage.readers"
FALLBACK = "table"
"It takes a file of any name: asked only where no survey's own reader does."


@dataclass(frozen=True, kw_only=True)
class Known:
    """A file whose reader is known; nothing of its pixels is read yet."""

    path: Path
    "As it was given."
    name: str
    "Of the reader."
    reader: Reader
    "Who takes it."
    config: str
    "Instrument configuration."
    root: str
    "Folder of the links."
    sources: tuple[Source, ...]
    "Its rows."

    @property
    def rows(self) -> int:
        """Spectra."""
        return sum(source.rows for source in self.sources)

    @property
    def grid(self) -> Grid:
        """The wavelength axis of its rows."""
        return self.reader.configs[self.config]

    @property
    def stem(self) -> str:
        """Its name without what says the format."""
        return Path(self.path.name.removesuffix(".gz")).stem

    def read(self, wanted: Sequence[int]) -> Iterator[xr.Dataset]:
        """The wanted rows, ascending, as `storage.reader.Reader.read` gives them; in parts."""
        before = 0
        for source in self.sources:
            mine = [row - before for row in wanted if before <= row < before + source.rows]
            before += source.rows
            if mine:
                first = mine[0]
                part = source.part(first, mine[-1] + 1)
                ds = self.reader.read(part, self.root, self.config)
                yield ds.isel(spectrum=[row - first for row in mine])


def recognised(path: str, card: Card, reader: str, folder: Path) -> Known:
    """The file, by the reader that was named, else by the one whose survey names files so.

    Parameters
    ----------
    card : Card
        Its [survey] gives the configuration, where it is not the reader's first that fits, and
        the options of the reader.
    reader : str
        A name on storage.readers; empty to try them all.
    folder : Path
        An empty folder, for links.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When no reader takes it, or several do: names them.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one of spectra, or a card (.toml)")
    if reader:
        return _named(file, card, reader, folder)
    if card.survey.options:
        raise ValueError("survey.options are those of one reader; name it with --reader")
    there = shelf(_SHELF)
    own = [name for name in there if name != FALLBACK]
    found = _among(file, card, own, folder) or _among(file, card, [FALLBACK], folder)
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(known.name for known in found)
        raise ValueError(f"{path}: readers {names} take files of such a name; give --reader")
    raise ValueError(
        f"{path}: no reader takes a file of such a name (tried: {', '.join(there)}); give it the "
        "name that its survey gave it, or say --reader to hear why that one does not"
    )


def chosen(text: str, total: int, what: str) -> list[int]:
    """Rows of a file of `total` spectra: '0,4,10:20' (the last left out); all when empty.

    Raises
    ------
    ValueError
        When it is of another form, or there is no such row.
    """
    if not text:
        return list(range(total))
    rows: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)\s*(?::\s*([0-9]+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or int(match[1]) + 1)) if match else (0, 0)
        if first >= last:
            raise ValueError(f"--rows {text}: expected such as 0,4,10:20 (20 is left out)")
        if last > total:
            raise ValueError(f"{what}: has {total} spectra, 0 to {total - 1}; --rows is {text}")
        rows |= set(range(first, last))
    return sorted(rows)


def _among(file: Path, card: Card, names: Sequence[str], folder: Path) -> list[Known]:
    """The file by each reader that takes it."""
    found = []
    for name in names:
        reader = stage.reader(_told(card, name))
        try:
            known = _known(file, card, name, reader, folder / name)
        except (ValueError, OSError):
            continue
        _link_beside(known.reader, file, known.config, Path(known.root))
        found.append(known)
    return found


def _named(file: Path, card: Card, name: str, folder: Path) -> Known:
    told = _told(card, name)
    reader, root = stage.reader(told), folder / name.rpartition(".")[2]
    stage.config_of(told)
    for config in _configs(reader, card):
        _link_beside(reader, file, config, root)
    try:
        return _known(file, card, name, reader, root)
    except (ValueError, OSError) as error:
        said = str(error).replace(str(root), str(file.parent))
        raise ValueError(f"{file}: reader {name} does not take it ({said})") from error


def _told(card: Card, reader: str) -> Card:
    """The card with another reader."""
    return card.model_copy(update={"survey": card.survey.model_copy(update={"reader": reader})})


def _configs(reader: Reader, card: Card) -> list[str]:
    there = list(reader.configs)
    return [config for config in there if card.survey.config in ("", config)]


def _known(file: Path, card: Card, name: str, reader: Reader, root: Path) -> Known:
    """The file in the first configuration in which the reader finds it.

    Raises
    ------
    ValueError, OSError
        What the reader says where it finds it in none.
    """
    link, said = _link(file, root, file.name), [f"no configuration {card.survey.config!r}"]
    for config in _configs(reader, card):
        try:
            sources = tuple(_of(link, reader.find(str(root), config)))
        except (ValueError, OSError) as error:
            said.append(str(error))
            continue
        if sources:
            return Known(
                path=file,
                name=name,
                reader=reader,
                config=config,
                root=str(root),
                sources=sources,
            )
    raise ValueError(said[-1])


def _of(link: str, sources: Iterator[Source]) -> Iterator[Source]:
    """Of the sources of a folder those of one file: what is beside it may look like spectra."""
    for source in sources:
        if source.files == (link,):
            yield source
        elif link in source.files:
            place = source.files.index(link)
            yield source.part(place, place + 1)


def _link(file: Path, root: Path, name: str) -> str:
    link = root / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(file.absolute())
    return str(link)


def _link_beside(reader: Reader, file: Path, config: str, root: Path) -> None:
    """Links to the files whose content goes into the rows, where they were beside the file."""
    parent = file.absolute().parent
    for path in reader.beside(str(file.absolute()), str(parent), config):
        name = os.path.relpath(path, parent)
        if Path(name).parts[0] != os.pardir:
            _link(Path(path), root, name)
