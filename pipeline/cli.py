"""The specmill command."""

import logging
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from deploy.backend import QueueError
from pipeline import card as cards
from pipeline import signals, stages, stores, study, submit, upkeep
from pipeline.block import BlockError
from pipeline.stores import out
from pipeline.submit import CardArgument, SetOption
from storage.lease import LeaseError
from storage.place import StoreError
from storage.schema import Status
from storage.store import Survey
from storage.writer import WriteError

if TYPE_CHECKING:
    from pipeline.one_result import Made

OK, QUARANTINED, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 4
SHOWN = 20
"Reasons that are printed."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Denoised spectra and trustworthy line measurements for whole surveys.",
)


def _verb(name: str, text: str) -> None:
    def verb(card: CardArgument, settings: SetOption = None) -> None:
        _do(name, card, settings)

    app.command(name, help=text)(verb)


def _do(name: str, path: str, settings: list[str] | None) -> NoReturn:
    """A stage of a card, and the exit status that it deserves."""
    loaded = cards.load(path, settings or [])
    with stages.Machine(loaded) as machine:
        _say(name, stages.stage(name, loaded, machine))
    raise typer.Exit(_quarantined(loaded))


for _name, _text in {
    "simulate": "Write a mock survey with known truth, in the survey's own files.",
    "train": "Train the models of the card, and judge them.",
    "map": "Denoise and measure, in one pass over the survey.",
    "measure": "Measure line indices on everything there is.",
    "evaluate": "Judge the products on the survey.",
    "report": "Write the page for people.",
}.items():
    _verb(_name, _text)


@app.command()
def denoise(
    sources: Annotated[list[str], typer.Argument(metavar="CARD | FILE...")],
    model: Annotated[str, typer.Option(help="A checkpoint; or its name, digest, best.")] = "",
    checkpoints: Annotated[str, typer.Option(help="Folder of checkpoints, or of a run.")] = "",
    reader: Annotated[str, typer.Option(help="Format; found by the file's name.")] = "",
    z: Annotated[float | None, typer.Option("--z", help="Redshift, for the file's own.")] = None,
    rows: Annotated[str, typer.Option(help="Of a file of many: 0,4,10:20.")] = "",
    output: Annotated[str, typer.Option("--out", metavar="DIR")] = ".",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    figure: Annotated[bool, typer.Option(help="Draw them, too.")] = True,
    unproven: Annotated[bool, typer.Option("--unproven", help="Whatever the verdict.")] = False,
    settings: SetOption = None,
) -> None:
    """Run the routes' models over the survey of a CARD, or one model over FILEs of spectra.

    Of each FILE comes a FITS table, <name>.denoised.fits, with the denoised flux and the input on
    the same wavelengths, flags, indices and where all of it is from; and a picture beside it.
    """
    from pipeline import one

    asked = one.Asked(
        files=tuple(sources),
        model=model,
        checkpoints=checkpoints,
        reader=reader,
        z=z,
        rows=rows,
        out=output,
        force=force,
        figure=figure,
        unproven=unproven,
        settings=tuple(settings or ()),
    )
    if asked.is_card:
        _do("denoise", sources[0], settings)
    raise typer.Exit(_one_by_one(one.denoise_files(asked)))


@app.command()
def ingest(
    card: CardArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is new.")] = False,
    settings: SetOption = None,
) -> None:
    """Read what is new or changed in the survey's folder into the store."""
    loaded = cards.load(card, settings or [])
    if dry_run:
        from pipeline.ingest import plan

        found = plan(loaded)
        _say("ingest", f"would find {found}")
        for name in found.names:
            out.print(f"changed: {name}", highlight=False)
        return
    with stages.Machine(loaded) as machine:
        _say("ingest", stages.stage("ingest", loaded, machine))
    raise typer.Exit(_quarantined(loaded))


@app.command()
def run(card: CardArgument, settings: SetOption = None) -> None:
    """Do all stages of a card; what is done already is left alone."""
    loaded = cards.load(card, settings or [])
    stages.require_models(loaded)
    with stages.Machine(loaded) as machine:
        for name in stages.ORDER:
            if stages.applies(name, loaded):
                _say(name, stages.stage(name, loaded, machine))
    from pipeline.report import table

    out.print(table(loaded))
    out.print(f"report  {Path(loaded.run.dir) / 'report' / 'index.html'}\nstore   {loaded.store}")
    raise typer.Exit(_quarantined(loaded))


@app.command()
def init(folder: Annotated[str, typer.Argument(metavar="DIR")]) -> None:
    """Write a commented card to start from."""
    target = Path(folder) / "card.toml"
    if target.exists():
        raise cards.CardError(f"{target}: is there already; edit it, or give another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text((cards.CARDS / "demo.toml").read_text())
    out.print(f"{target}: edit [survey] root and [run] dir, then `specmill run {target}`")


submit.register(app)
upkeep.register(app)
stores.register(app)
study.register(app)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="readers|models|indices|backends|mocks|samples")],
    card: Annotated[str, typer.Option("--card", help="Of models: those that a card trained.")] = "",
) -> None:
    """What there is, by the names that cards use."""
    from pipeline.shelves import shelf_table, trained

    if card and what != "models":
        raise ValueError(f"list {what} --card: only models are of a card")
    out.print(trained(cards.load(card)) if card else shelf_table(what))


def _one_by_one(found: "Iterable[Made]") -> int:
    """What became of each file; exit status 1 when any spectrum could not be denoised."""
    from pipeline.one_result import said

    status = OK
    for made in found:
        out.print("\n".join(said(made)), highlight=False, markup=False)
        status = QUARANTINED if made.failed else status
    return status


def _say(name: str, text: str) -> None:
    gap = "\n" if text.startswith(" ") else " "
    out.print(f"[bold]{name}[/bold]:{gap}{text}", highlight=False)


def _quarantined(card: cards.Card) -> int:
    """Exit status 1, and the reasons, when any spectrum was quarantined, at ingest or later."""
    from pipeline.stage import config_of
    from storage.store import exists

    config, found = config_of(card), OK
    if not exists(card.store):
        return OK
    survey = Survey.open(card.store)
    for group in survey.groups():
        if group.split("/")[1] == config and group.split("/")[0] in ("spectra", "denoised"):
            found = max(found, _told(survey, group))
    return found


def _told(survey: Survey, group: str) -> int:
    ds = survey.dataset(group)
    rows = (ds["status"] == Status.QUARANTINED).to_numpy().nonzero()[0]
    if not len(rows):
        return OK
    for text in dict.fromkeys(ds["reason"].to_numpy()[rows[:SHOWN]]):
        out.print(f"quarantined: {text}", highlight=False)
    lists = f"`specmill query {survey.path} 'status == 2'` lists them"
    again = "`specmill reprocess CARD --retry` tries them again"
    what = lists if group.startswith("spectra/") else again
    out.print(f"{len(rows)} quarantined in {group}; {what}", highlight=False)
    return QUARANTINED


def main() -> None:
    """Run the command.

    The exit status is 0, 1 (quarantined inputs), 2 (usage), 3 (failed) or 4 (interrupted).
    """
    _log()
    try:
        with signals.interruptible():
            app()
    except signals.Interrupted as signal:
        kept = "what was finished is kept; the same command goes on"
        print(f"specmill: interrupted ({signal}): {kept}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except (LeaseError, WriteError, StoreError, QueueError, BlockError) as error:
        print(f"specmill: {error}", file=sys.stderr)
        raise SystemExit(FAILED) from None
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        MemoryError,
        KeyError,
        ImportError,
    ) as error:
        # These are our words about what was asked for, so a traceback would only hide them.
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"specmill: {message}", file=sys.stderr)
        raise SystemExit(USAGE) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(FAILED) from None


def _log() -> None:
    """A line to stderr for whatever goes on, prettier on a terminal."""
    handler: logging.Handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s", handlers=[handler])
    for chatty in ("distributed", "ray", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for wordy in ("distributed.client", "distributed.core", "distributed.batched"):
        # Tracebacks of a lost connection, of which we say in a line what it means.
        logging.getLogger(wordy).setLevel(logging.CRITICAL)
