"""The verbs of the specmill command that keep a survey up to date."""

from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline import card as cards
from pipeline import stores
from pipeline.stores import FAILED, StoreArgument, out
from pipeline.submit import CardArgument, SetOption, show
from storage.store import exists

SideArgument = Annotated[str, typer.Argument(help="STORE[@VERSION]:INPUT, or INPUT of the other.")]


def status(
    store: Annotated[str, typer.Argument(metavar="STORE|CARD", help="A store, or a run card.")],
    snapshot: stores.SnapshotOption = None,
) -> None:
    """A line per group: rows by what became of them; of a card, its jobs and the rest."""
    if store.endswith(".toml"):
        loaded = cards.load(store)
        show(loaded)
        if not exists(loaded.store):
            return
        store = loaded.store
    stores.status(store, snapshot)


def reprocess(
    card: CardArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is stale.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Rows that failed too.")] = False,
    settings: SetOption = None,
) -> None:
    """Do again what a changed file, card, model or code has made stale, and nothing else."""
    from pipeline import reprocess as again
    from pipeline.stages import Machine

    loaded = cards.load(card, settings or [])
    if retry and not dry_run:
        out.print(f"{again.retry(loaded)} rows that failed are tried again", highlight=False)
    if dry_run:
        found = again.look(loaded)
        for one in found:
            out.print(f"[bold]{one.stage}[/bold] {one.what}", highlight=False)
        if not found:
            out.print("nothing is stale")
        return
    with Machine(loaded) as machine:
        for name, said in again.do(loaded, machine):
            out.print(f"[bold]{name}[/bold]\n{said}", highlight=False)
    left = again.look(loaded)
    out.print("\n".join(f"{one.stage} {one.what}" for one in left) or "nothing is stale")


def compare(
    a: SideArgument,
    b: SideArgument,
    worst: Annotated[int, typer.Option(help="Rows that differ most to print.")] = 10,
    config: Annotated[str | None, typer.Option("--config", help="Configuration.")] = None,
) -> None:
    """How the indices of two runs differ: A - B over the formal error, by S/N and class."""
    from pipeline import compare as comparing

    found = comparing.compare(
        comparing.side(a, other=b), comparing.side(b, other=a), config=config, worst=worst
    )
    for table in (found.rows, found.bins, found.worst):
        out.print(_table(table))


def coverage(card: CardArgument, settings: SetOption = None) -> None:
    """What each route of a card takes, and what its model made of it."""
    from pipeline.coverage import coverage as covered

    out.print(covered(cards.load(card, settings or [])))


def release(
    card: CardArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The release's name.")],
    settings: SetOption = None,
) -> None:
    """Tag a card's finished store as a release: inputs, models and products together."""
    from pipeline import release as releasing

    out.print(
        f"{name}: {releasing.publish(cards.load(card, settings or []), name)}", highlight=False
    )


def rederive(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A release.")],
    checkpoints: Annotated[str, typer.Option(help="Where its checkpoints are now.")] = "",
    rows: Annotated[int | None, typer.Option(help="The first so many rows only.")] = None,
) -> None:
    """Make the products of a release again and hold them against it, bit by bit."""
    from pipeline import release as releasing
    from pipeline.stages import Machine

    with Machine(releasing.card_of(store, name)) as machine:
        found = releasing.prove(store, name, machine.client(), checkpoints, rows)
    if found.machine:
        out.print(f"another kind of machine: {found.machine}", highlight=False)
    for array, count in sorted(found.different.items()):
        out.print(f"{array}: {count} rows differ", highlight=False)
    word = "differ" if found.different else "equal to the bit"
    out.print(f"{found.rows} rows of {found.arrays} arrays: {word}", highlight=False)
    raise typer.Exit(FAILED if found.different else 0)


def register(app: typer.Typer) -> None:
    """Give the verbs to the command."""
    for verb in (status, reprocess, compare, coverage, release, rederive):
        app.command()(verb)


def _table(frame: Any) -> Table:
    table = Table(*(str(name).removesuffix("_a") if name != "value_a" else name for name in frame))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    return table
