"""The verbs of the specmill command that study samples and models."""

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline import card as cards
from pipeline.places import Found
from pipeline.sample import Chosen, choose
from pipeline.stores import out
from pipeline.submit import CardArgument, SetOption
from storage.store import Survey


def sample(card: CardArgument, settings: SetOption = None) -> None:
    """What every cut of a card's sample leaves of the survey, and what is on which side."""
    loaded = cards.load(card, settings or [])
    chosen = choose(loaded, Survey.open(loaded.store))
    out.print(flow(chosen))
    if chosen.bins:
        out.print(levels(chosen))
    sides = ", ".join(f"{name} {count:,}" for name, count in chosen.sides.items())
    out.print(f"{int(chosen.rows.sum()):,} spectra: {sides}", highlight=False)


def tune(card: CardArgument, settings: SetOption = None) -> None:
    """Search the card's ranges for the hyper-parameters of a model, by its validation loss."""
    from pipeline import tune as tuning

    loaded = cards.load(card, settings or [])
    lines = tuning.tune(loaded)
    file = tuning.results(loaded)
    head, *rows = tuning.table(lines)
    shown = _table(*head)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
    if lines[0]["val"] is None:
        raise ValueError(f"{file}: the loss of no trial stayed finite; search smaller fit.lr")
    best = tuning.overrides(loaded, lines[0])
    # A table of TOML would be taken for markup.
    out.print(f"the best, for a card:\n\n{best}\n", highlight=False, markup=False, soft_wrap=True)
    out.print(f"all of them: {file.with_suffix('.md')}", highlight=False)


def leaderboard(card: CardArgument, settings: SetOption = None) -> None:
    """All trained models of a run side by side: quality, size, speed, cost."""
    from pipeline import leaderboard as board
    from pipeline import standings

    page, found = board.leaderboard(cards.load(card, settings or []))
    for part in board.groups(found):
        out.print(standings.table(part))
    out.print(f"one thread of {board.machine()}\n{page}", highlight=False)


def outside(
    card: CardArgument,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Names or digests; the card's own if none."),
    ] = None,
    take: Annotated[
        bool, typer.Option("--take", help="Let the names lead to models with that footprint.")
    ] = False,
    settings: SetOption = None,
) -> None:
    """Try trained models on mocks beyond their footprints; the footprints that follow."""
    from pipeline import outside as beyond
    from pipeline import taken

    every = beyond.outside(cards.load(card, settings or []), models or [])
    for found in every:
        out.print(found.path.name, highlight=False)
        out.print(bins(found))
        for axis, follows in found.follows.items():
            present = _range(found.present[axis])
            out.print(f"{axis}: footprint {present}, holds in {_range(follows)}", highlight=False)
        out.print(f"{found.path / beyond.NUMBERS}\n{found.path / beyond.PICTURE}\n")
    if take:
        for path in [taken.take(found) for found in every]:
            out.print(f"its footprint is what follows: {path}", highlight=False)


def bins(found: Found) -> Table:
    """Where a model was tried, and what it was worth there."""
    shown = _table("bin", ">Δ_O / linear", ">Δ_O / noise", "")
    for place in found.places:
        ratios = [" ".join(f"{v:.2f}" for v in of.values()) for of in (place.worth, place.noise)]
        shown.add_row(place.name, *ratios, place.why or ("" if place.holds else "beyond"))
    return shown


def flow(chosen: Chosen) -> Table:
    """The cuts of a sample, one after another."""
    table = _table("cut", "what it asks for", ">before", ">left", ">%")
    for cut in chosen.cuts:
        share = f"{100 * cut.left / cut.before:.1f}" if cut.before else "–"
        table.add_row(cut.name, cut.expression, f"{cut.before:,}", f"{cut.left:,}", share)
    return table


def levels(chosen: Chosen) -> Table:
    """The bins of the strata."""
    table = _table(">from", ">to", ">there", ">taken")
    for one in chosen.bins:
        table.add_row(f"{one.low:.4g}", f"{one.high:.4g}", f"{one.there:,}", f"{one.taken:,}")
    return table


def register(app: typer.Typer) -> None:
    """Give the verbs to the command."""
    for verb in (sample, tune, leaderboard, outside):
        app.command()(verb)


def _range(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.4g}-{found[1]:.4g}"


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head in heads:
        table.add_column(
            head.removeprefix(">"), justify="right" if head.startswith(">") else "left"
        )
    return table
