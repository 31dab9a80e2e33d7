"""What is on the shelves, as tables for people."""

from collections.abc import Callable

from rich.table import Table

from pipeline import card as cards
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

    table = Table("card", "model", "parameters", "what")
    for file in sorted((cards.CARDS / "models").glob("*.toml")):
        card = ModelCard.load(file)
        count = card.build(named("fs").grid).parameters_count()
        table.add_row(
            file.stem, card.model, f"{count:,}", _first_line("training.models", card.model)
        )
    return table


def _indices() -> Table:
    from pipeline import index

    table = Table("name", "units", "reference")
    for name in index.names():
        table.add_row(name, index.units(name), index.find(name).reference)
    return table


def _first_line(family: str, name: str) -> str:
    return (resolve(family, name).__doc__ or "").strip().splitlines()[0]
