"""What is on the shelves, as tables for people."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from pipeline import card as cards
from pipeline.card import Card
from storage.names import resolve, shelf


def shelf_table(what: str) -> Table:
    """The entries of a shelf.

    Raises
    ------
    ValueError
        When there is no such shelf.
    """
    tables: dict[str, Callable[[], Table]] = {
        "readers": _readers,
        "models": _models,
        "indices": _indices,
        "backends": lambda: _modules("deploy.backends"),
        "mocks": lambda: _modules("storage.mocks"),
        "samples": _samples,
    }
    if what not in tables:
        raise ValueError(f"nothing to list by {what!r} (there: {', '.join(tables)})")
    return tables[what]()


def _modules(family: str) -> Table:
    table = Table("name", "what")
    for name in shelf(family):
        table.add_row(name, _first_line(family, name))
    return table


def _readers() -> Table:
    table = Table("name", "configurations", "what")
    family = "storage.readers"
    for name in shelf(family):
        table.add_row(
            name, ", ".join(resolve(family, name).build().configs), _first_line(family, name)
        )
    return table


def _models() -> Table:
    from training.frames import named
    from training.recipe import ModelCard

    table = Table("card", "model", "frame", "parameters", "what")
    for file in sorted((cards.CARDS / "models").glob("*.toml")):
        card = ModelCard.load(file)
        frame = named(card.frame or "fs")
        count = f"{card.build(frame.grid).parameters_count():,}"
        what = _first_line("training.models", card.model)
        table.add_row(file.stem, card.model, frame.name, count, what)
    return table


def trained(card: Card) -> Table:
    """The models in the folder of a card's checkpoints, how they were made, and their worth."""
    from training import checkpoint, registry

    heads = ("model", "checkpoint", "frame", "parameters", "trained on", "epochs", "when")
    table = Table(*heads, "verdict")
    folder = Path(card.checkpoints)
    for alias, name in sorted(registry.aliases(folder).items()):
        found = checkpoint.load(folder / name)
        about = found.card.training
        size = f"{found.model.parameters_count():,}"
        taught = str(about.get("rows", {}).get("train", "unknown"))
        epochs, judged = str(about.get("epochs", "unknown")), _judged(found.verdict)
        when = found.origin.words if found.origin else "unknown"
        table.add_row(alias, found.label, found.frame.name, size, taught, epochs, when, judged)
    return table


def _judged(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "missing"
    return f"{'passes' if verdict['passed'] else 'fails'}: {verdict['reason']}"


def _samples() -> Table:
    from pipeline.sample import SHELF, sample_card

    table = Table("card", "catalogues", "what")
    for file in sorted((cards.CARDS / SHELF).glob("*.toml")):
        found = sample_card(file.stem)
        table.add_row(file.stem, ", ".join(found.catalogues), found.about)
    return table


def _indices() -> Table:
    from pipeline import index

    # What a card writes may not be cut, nor folded.
    table = Table(Column("name", no_wrap=True), "bands (rest, air Å)", "units", "reference")
    for name in index.names():
        found = index.find(name)
        table.add_row(name, _bands(found), index.units(name), found.reference)
    return table


def _bands(found: Any) -> str:
    """Bands in the order in which they are measured; of what is made of others, their names."""
    if hasattr(found, "parts"):
        return f"those of {', '.join(found.parts)}"
    return "  ".join(f"{low:.9g}-{high:.9g}" for low, high in found.bands)


def _first_line(family: str, name: str) -> str:
    return (resolve(family, name).__doc__ or "").strip().splitlines()[0]
