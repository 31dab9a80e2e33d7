"""The verbs of the specmill command that hand a card to a cluster, and follow it there."""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, cast

import typer
from dask.utils import format_bytes
from rich.table import Table

from deploy.backend import Backend, Queue, QueueError
from deploy.job import Job, Resources, program
from pipeline import card as cards
from pipeline import jobs, signals, stages
from pipeline.card import Card
from pipeline.jobs import Record
from pipeline.outlook import outlook
from pipeline.stores import out
from storage import names
from storage.place import alone

CardArgument = Annotated[str, typer.Argument(metavar="CARD", help="A run card (TOML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="table.key=value", help="A one-off value.")
]
SPREAD = ("ingest", "map", *stages.APART)
"Stages that Dask workers do; the others are one process, on one node."
NO_GPU = ("simulate", "ingest", "evaluate", "report")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command was asked for."""

    path: str
    "Of the card."
    settings: tuple[str, ...]
    "Given by --set."
    backend: str
    "A name of deploy.backends."

    def card(self, stage: str) -> Card:
        """The card as the job of a stage reads it."""
        return cards.load(self.path, self.told(stage))

    def told(self, stage: str) -> list[str]:
        """The settings of the job of a stage: it starts its workers in what the queue gave it."""
        given = list(self.settings)
        if any(setting.startswith("cluster.backend=") for setting in given):
            return given
        cluster = cards.load(self.path, given).cluster
        alone = "cuda" if cluster.gpus else "local"
        inside = "srun" if cluster.nodes > 1 and stage in SPREAD else alone
        # What a card names beside these, as the GPUs of a node, is meant for inside.
        return given if cluster.backend not in ("local", "slurm") else [*given, _backend(inside)]

    @property
    def digest(self) -> str:
        """Eight hex digits that change with the card, and when it is saved again."""
        saved = Path(self.path).stat().st_mtime_ns
        return cards.digest8([cards.load(self.path, self.settings).digest, saved])

    def job(self, stage: str, after: str = "") -> Job:
        """The job of a stage."""
        words = [word for setting in self.told(stage) for word in ("--set", setting)]
        card = self.card(stage)
        return Job(
            name=f"specmill-{stage}",
            command=(program(), stage, self.path, *words),
            resources=_resources(stage, card, self.backend),
            folder=Path(card.run.dir),
            after=after,
        )


def submit(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="run, or one stage.")],
    card: CardArgument,
    backend: Annotated[str, typer.Option(help="A name of `specmill list backends`.")] = "slurm",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and the scripts.")
    ] = False,
    walltime: Annotated[
        str | None, typer.Option(metavar="HH:MM:SS", help="Longest run of each job.")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Hand a stage, or every stage that is not done, to a cluster."""
    if stage not in ("run", *stages.ORDER, *stages.APART):
        raise ValueError(f"{stage!r} is no stage (there: run, {', '.join(stages.ORDER)})")
    given = [*(settings or []), *([f'cluster.walltime="{walltime}"'] if walltime else [])]
    order = Order(path=card, settings=tuple(given), backend=backend)
    place = cast(Backend, names.resolve("deploy.backends", backend))
    wanted = _wanted(stage, order, place)
    if not wanted:
        out.print(f"nothing to do: {'every stage' if stage == 'run' else stage} of {card} is done")
        return
    out.print(*_plan(wanted, order), sep="\n", highlight=False)
    if dry_run:
        for one in wanted:
            print(f"\n# {order.job(one).name}.sh\n{place.render(order.job(one))}", end="")
        return
    for line in _submit(wanted, order, place):
        out.print(line, highlight=False)


def jobs_(card: CardArgument, settings: SetOption = None) -> None:
    """The jobs of a card: what became of them, what is done, how long the rest takes."""
    show(cards.load(card, settings or []))


def show(card: Card) -> None:
    """Print the jobs of a card beside the rows of its store."""
    folder = Path(card.run.dir)
    try:
        records = jobs.newest(jobs.refresh(folder))
    except QueueError as error:
        out.print(f"what was known before: {error}", highlight=False)
        records = jobs.newest(jobs.load(folder))
    found = outlook([name for name in stages.ORDER if stages.applies(name, card)], card)
    table = Table("stage", "job", "state", "done", "pending", "rest", "what to do")
    for stage, ahead in found.items():
        record = records.get(stage) or records.get("run")
        job = (record.id, record.state, record.reason) if record else ("", "", "")
        numbers = ("", "", "")
        if stage in SPREAD and ahead.rows is not None and ahead.pending is not None:
            numbers = (str(ahead.rows - ahead.pending), str(ahead.pending), ahead.hours)
        table.add_row(stage, job[0], job[1], *numbers, job[2])
    out.print(table)
    if asked := max((record.seen for record in records.values()), default=0.0):
        out.print(f"states as of {time.time() - asked:.0f} s ago", highlight=False)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command()(submit)
    app.command("jobs")(jobs_)


def is_done(stage: str, card: Card) -> bool:
    """Whether a stage has nothing to do, as far as can be said before those ahead of it ran."""
    try:
        if stage in ("map", *stages.APART):
            passes = import_module("pipeline.passes")
            return bool(passes.is_done(card, passes.STAGES if stage == "map" else (stage,)))
        return bool(import_module(f"pipeline.{stage}").is_done(card))
    except (ValueError, FileNotFoundError):
        return False


def _wanted(stage: str, order: Order, place: Backend) -> list[str]:
    """The stages to submit: all from the first that is not done, for what it makes is theirs."""
    if stage != "run":
        return [] if is_done(stage, order.card(stage)) else [stage]
    stages.require_models(order.card(stage))
    there = [name for name in stages.ORDER if stages.applies(name, order.card(name))]
    first = next((i for i, name in enumerate(there) if not is_done(name, order.card(name))), None)
    if first is None:
        return []
    # Where nothing queues, nothing waits for another either.
    return there[first:] if isinstance(place, Queue) else ["run"]


def _plan(wanted: Sequence[str], order: Order) -> Iterator[Table | str]:
    card = order.card(wanted[0])
    found = outlook(wanted, card)
    table = Table("stage", "rows", "tasks", "estimate", "nodes", "cores", "memory", "walltime")
    for stage in wanted:
        asked, ahead = order.job(stage).resources, found[stage]
        cores = asked.workers * asked.threads
        rows = "?" if ahead.pending is None else str(ahead.pending)
        memory = format_bytes(asked.workers * asked.memory_bytes)
        shape = (str(asked.nodes), str(cores), memory, asked.walltime)
        table.add_row(stage, rows, ahead.tasks, ahead.hours, *shape)
    yield table
    unknown = [stage for stage in wanted if stage in SPREAD and found[stage].seconds is None]
    if unknown and not any("cluster.walltime=" in setting for setting in order.settings):
        yield (
            f"no rate measured yet for {', '.join(unknown)}: first run a small card, or give "
            "--walltime"
        )
    for stage in wanted:
        if (seconds := found[stage].seconds or 0) > card.cluster.walltime_s:
            yield f"{stage}: {_pauses(seconds, card)}"
    yield f"scratch  {Path(card.run.dir) / 'workers'}: {_free(Path(card.run.dir))} free"


def _pauses(seconds: float, card: Card) -> str:
    runs = -(-seconds // (card.cluster.walltime_s - card.cluster.grace_s))
    if not card.cluster.requeue:
        return f"longer than its walltime: submit it {runs:.0f} times, or ask for more"
    return f"longer than its walltime: it queues again {runs - 1:.0f} times"


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return str(format_bytes(shutil.disk_usage(folder).free))


def _submit(wanted: Sequence[str], order: Order, place: Backend) -> Iterator[str]:
    """Queue what has no job that still goes on, each after the one before it."""
    folder = Path(order.card(wanted[0]).run.dir)
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    with alone(str(folder / "jobs")):
        records = jobs.refresh(folder, age_s=0)
        before, after = jobs.newest(records), ""
        _require_free(wanted, before, order)
        for stage in wanted:
            old = before.get(stage)
            if old and old.is_live and old.state != jobs.STUCK and _follows(old, after):
                yield f"{stage}: {old.state.lower()} as {old.id} already"
                after = old.id
                continue
            if old and old.is_live:
                cast(Queue, place).cancel([old.id])
                yield f"{stage}: {old.id} waited for a job that ended badly; cancelled"
            # A job without its record would be submitted twice.
            with signals.later():
                records.append(_queued(stage, after, order, place))
                jobs.save(folder, records)
            yield f"{stage}: submitted as {records[-1].id}" + (f" after {after}" if after else "")
            after = records[-1].id


def _follows(old: Record, after: str) -> bool:
    """Whether a job waits for the right one, or waits no more."""
    return not after or old.state == jobs.RUNNING or old.after == after


def _queued(stage: str, after: str, order: Order, place: Backend) -> Record:
    job = order.job(stage, after)
    return Record(
        id=place.submit(job),
        stage=stage,
        name=job.name,
        backend=order.backend,
        submitted=jobs.now(),
        script=str((job.folder / "jobs" / f"{job.name}.sh").absolute()),
        card=order.digest,
        after=after,
    )


def _require_free(wanted: Sequence[str], before: dict[str, Record], order: Order) -> None:
    """Refuse a stage that is under way, and one whose card was wrong and is the same still.

    Raises
    ------
    ValueError
        With what to do instead.
    """
    one = len(wanted) == 1
    for stage in wanted:
        for old in filter(None, (before.get(stage), before.get("run"))):
            if old.is_live and old.state != jobs.STUCK and (one or old.stage == "run"):
                raise ValueError(
                    f"{stage}: {old.state.lower()} as job {old.id} of {old.backend} already "
                    f"({old.reason or 'under way'}); `specmill jobs {order.path}` follows it"
                )
            if old.state == jobs.WRONG and old.card == order.digest:
                raise ValueError(
                    f"{stage}: job {old.id} ended with status 2, and {order.path} is as it was; "
                    f"mend it and save it, then submit again. It said:\n{old.last_words()}"
                )


def _resources(stage: str, card: Card, backend: str) -> Resources:
    # The cores at hand are not those of the node.
    asked = card.cluster.model_copy(update={"backend": backend}).resources()
    less = {} if stage in (*SPREAD, "run") else {"nodes": 1}
    return asked.model_copy(update=less | ({"gpus": 0} if stage in NO_GPU else {}))


def _backend(name: str) -> str:
    return f"cluster.backend={name}"
