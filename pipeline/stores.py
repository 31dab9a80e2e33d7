"""The verbs of the specmill command that take a store."""

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from storage.schema import REASONS, Reason, Status
from storage.store import Survey

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="A store (*.icechunk).")]
ConfigOption = Annotated[str | None, typer.Option("--config", help="Instrument configuration.")]
SnapshotOption = Annotated[
    str | None, typer.Option("--snapshot", help="A version or tag; the newest when left out.")
]
FAILED = 3

# Where nobody looks (a pipe, a log), rich would take 80 columns and cut tables to them.
out = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=not sys.stdout.isatty())


def query(
    store: StoreArgument,
    expression: Annotated[str, typer.Argument(metavar="EXPR", help="z < 0.1 and snr_g > 5")] = "",
    output: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help=".parquet .fits .csv .zarr")
    ] = None,
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="Rows to print.")] = 20,
) -> None:
    """Select spectra by columns and indices; print a table, or write it."""
    from pipeline.query import query as select

    select(store, expression, out=output, config=config, limit=limit)


def status(store: StoreArgument, snapshot: SnapshotOption = None) -> None:
    """A line per group: rows by what became of them."""
    survey = Survey.open(store, snapshot=snapshot)
    table = Table("group", *(Status(s).name.lower().replace("_", " ") for s in (1, 2, 3, 0)))
    reasons: Counter[tuple[str, str]] = Counter()
    for group in survey.groups():
        ds = survey.dataset(group)
        count = Counter(ds["status"].to_numpy().tolist())
        table.add_row(group, *(str(count[s]) for s in (1, 2, 3, 0)))
        for code, n in Counter(ds["reason_code"].to_numpy().tolist()).items():
            if code:
                reasons[(group, REASONS[Reason(code)])] += n
    out.print(table)
    for (group, reason), n in sorted(reasons.items()):
        out.print(f"{group}: {n} {reason}", highlight=False)


def history(store: StoreArgument) -> None:
    """The versions of a store, the newest first."""
    table = Table("snapshot", "written", "tags", "what")
    for version in Survey.open(store).history():
        when = f"{version.written:%Y-%m-%d %H:%M:%S}"
        table.add_row(version.snapshot, when, " ".join(version.tags), version.message)
    out.print(table)


def tag(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A release's name.")],
    snapshot: SnapshotOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name away, for good.")] = False,
) -> None:
    """Name a version, so that it can be read by that name and never expires.

    Others may write meanwhile: the newest version is looked up once, and printed.
    """
    from storage import versions

    if remove:
        versions.untag(store, name)
        out.print(f"{name}: removed; the name cannot be given again", highlight=False)
    else:
        out.print(f"{name}: {versions.tag(store, name, snapshot)}", highlight=False)


def expire(
    store: StoreArgument,
    days: Annotated[float, typer.Option(help="Versions older than so many days.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what goes.")] = False,
) -> None:
    """Forget old versions that no tag names, and free what nothing needs any more.

    Refused while a run writes to the store. Versions stay that are newest, younger than --days,
    tagged, or named by a product as what it was made from. Whoever reads another old version,
    or trains on one, loses it: leave --days above the length of your longest run.
    """
    from storage import versions

    if not days >= 0:
        raise ValueError(f"--days: {days:g}; expected 0 or more")
    freed = versions.expire(store, datetime.now(UTC) - timedelta(days=days), dry_run=dry_run)
    would = "would free" if dry_run else "freed"
    out.print(
        f"{would} {freed.bytes / 1e6:.1f} MB: {freed.chunks} chunks, {freed.snapshots} versions; "
        f"{freed.kept} versions stay",
        highlight=False,
    )


def migrate(store: StoreArgument) -> None:
    """Bring a store of an older schema up to date."""
    from storage.migrate import migrate as bring

    for line in bring(store) or ["nothing to do"]:
        out.print(line, highlight=False)


def verify(
    store: StoreArgument,
    snapshot: SnapshotOption = None,
    files: Annotated[
        str | None, typer.Option(metavar="ROOT", help="Hold the survey's files against it, too.")
    ] = None,
) -> None:
    """Read everything, and hold it against schema, ledger, checksums and provenance."""
    from pipeline.verify import verify as check

    found, readable = 0, True
    for finding in check(store, snapshot, files):
        found += 1
        readable &= finding.group != "/"
        out.print(f"{finding.group}: {finding.what}", highlight=False)
    # A store that is damaged at its root cannot say its groups.
    there = f"{len(Survey.open(store, snapshot=snapshot).groups())} groups, " if readable else ""
    out.print(f"{store}: {there}{found} findings", highlight=False)
    raise typer.Exit(FAILED if found else 0)


def join(
    store: StoreArgument,
    table: Annotated[str, typer.Argument(metavar="TABLE", help=".parquet .fits .csv .ecsv")] = "",
    prefix: Annotated[str, typer.Option(help="Its columns are <prefix>.<column>.")] = "",
    on: Annotated[
        str, typer.Option(help="object_id, target_id[=COLUMN], observation or sky[=RA,DEC].")
    ] = "sky",
    columns: Annotated[str, typer.Option(help="Some columns, a,b,c; all when left out.")] = "",
    radius: Annotated[float, typer.Option(help="Of a match on the sky, arcsec.")] = 1.5,
    first: Annotated[bool, typer.Option("--first", help="Of rows of one key, the first.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Take the catalogue out again.")] = False,
    config: ConfigOption = None,
) -> None:
    """Add the columns of an external catalogue, row by row."""
    from pipeline import join as joining

    if not prefix or drop == bool(table):
        raise ValueError("join: expected STORE TABLE --prefix NAME, or STORE --prefix NAME --drop")
    if drop:
        out.print(f"{prefix}: dropped in version {joining.drop(store, prefix, config)}")
        return
    names = [name.strip() for name in columns.split(",")] if columns else None
    done = joining.join(
        store, table, on, prefix, columns=names, config=config, radius=radius, first=first
    )
    out.print(str(done), highlight=False)


def export(
    store: StoreArgument,
    output: Annotated[str, typer.Argument(metavar="OUT", help=".zarr .fits .parquet .csv")],
    expression: Annotated[str, typer.Option("--where", metavar="EXPR", help="Which rows.")] = "",
    spectra: Annotated[
        bool | None, typer.Option("--spectra/--catalogue", help="With the spectra, or without.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write a survey, or some rows, as plain Zarr, FITS, Parquet or CSV."""
    from pipeline.extract import export_store

    count = export_store(store, output, expression, config, spectra)
    out.print(f"{count} spectra -> {output}", highlight=False)


def import_(
    source: Annotated[str, typer.Argument(metavar="ZARR", help="A plain Zarr store.")],
    store: StoreArgument,
    config: ConfigOption = None,
) -> None:
    """Bring a plain Zarr store of spectra into a store."""
    from pipeline.plain import import_zarr

    out.print(f"{store}: {import_zarr(source, store, config)}", highlight=False)


def doctor(path: Annotated[str, typer.Argument(metavar="PATH")]) -> None:
    """What this machine and a file system or bucket can do, and what to do about it."""
    from pipeline.doctor import examine

    checks = examine(path)
    table = Table("", "what", "found", "what to do")
    for check in checks:
        table.add_row(check.level, check.name, check.found, check.cure)
    out.print(table)
    raise typer.Exit(FAILED if any(check.level == "fail" for check in checks) else 0)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (*(query, history, tag, expire, migrate, verify, join, export, doctor),):
        app.command()(verb)
    app.command("import")(import_)
